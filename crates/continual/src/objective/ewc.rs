//! Elastic weight consolidation: weights are pulled to where they were, each as strongly as what was known depends on it.
//!
//! ```text
//! penalty = λ/2·Σ_i F_i·(θ_i − θ*_i)²        F_i = 1/N·Σ_rows (Σ_{t of the row} ∂ log p(x_t) / ∂θ_i)²
//! ```
//!
//! θ* are the weights before the domain, N is the number of tokens of the rows. Once a domain is learnt, `F ← γ·F + F_new`.
//! Source: Kirkpatrick et al., arXiv:1612.00796, Eq. 3; online: Schwarz et al., arXiv:1805.06370, Section 3.
//! Differs from the source: a row, not a token, is an example, since its tokens share one backward pass; what is squared is the sum over its
//! tokens, whose expectation is that of the tokens' own squares when x_t is drawn from the model. Divided by tokens, so that λ = 1 weighs the
//! penalty as nats per token whatever the rows' length. All anchors move to the latest weights, as in the online form.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::parameters::{Visit, visit_parameters};
use kiln_kernels::quadratic::add_squares;
use kiln_kernels::random::Key;
use kiln_train::updater::Pull;
use std::collections::BTreeMap;

/// Numbers by the path of their parameter, each `[elements]`.
pub type ByPath = BTreeMap<String, Tensor<1>>;

/// The importances of the weights, F.
#[derive(Clone, Debug, Default)]
pub struct Importance(pub ByPath);

impl Importance {
    /// Adds those of a domain: `F ← decay·F + F_new`.
    pub fn add(&mut self, new: ByPath, decay: f64) {
        for (path, new) in new {
            let sum = match self.0.remove(&path) {
                Some(earlier) => earlier * decay + new,
                None => new,
            };
            self.0.insert(path, sum);
        }
    }

    /// The pull of `strength` λ towards `anchor`, θ*; none before there are importances.
    pub fn pull<'a>(&'a self, anchor: &'a ByPath, strength: f64) -> Option<Pull<'a>> {
        (!self.0.is_empty()).then_some(Pull { anchor, importance: Some(&self.0), strength })
    }
}

/// The diagonal of the Fisher information of a model over examples, each a batch of one row with the labels that count.
pub fn fisher<M: Module>(model: &M, examples: impl IntoIterator<Item = (Tensor<1>, usize)>) -> ByPath {
    let (mut sums, mut n_tokens) = (ByPath::new(), 0);
    for (loss, n) in examples {
        add(model, loss.backward(), &mut sums);
        n_tokens += n;
    }
    sums.into_iter().map(|(path, sum)| (path, sum / n_tokens as f64)).collect()
}

/// Adds the squares of `gradients` to `sums`.
fn add<M: Module>(model: &M, gradients: Gradients, sums: &mut ByPath) {
    struct Add<'a> {
        gradients: Gradients,
        sums: &'a mut ByPath,
    }

    impl Visit for Add<'_> {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            let Some(gradient) = tensor.grad_remove(&mut self.gradients) else { return };
            let n_elements = gradient.shape().num_elements();
            let gradient = gradient.reshape([n_elements]);
            let sum = self.sums.remove(path).unwrap_or_else(|| gradient.zeros_like());
            self.sums.insert(path.to_owned(), add_squares(sum, gradient));
        }
    }

    visit_parameters(model, &mut Add { gradients, sums });
}

/// The same supervised rows with labels drawn from the model, which is off the tape; each row draws its own number of `key`.
pub fn sampled(model: &LanguageModel, batch: &Packed, supervised: &Supervised, key: Key) -> Supervised {
    let logits = model.output_head(batch, &supervised.rows, None).logits();
    let [_, n_classes] = logits.dims();
    let logits: Vec<f32> = logits.into_data().try_to_vec().expect("f32");
    let draw = |(row, logits): (usize, &[f32])| {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let share = |logit: &f32| f64::from(logit - largest).exp();
        let mut left = f64::from(key.uniform(row as u64)) * logits.iter().map(share).sum::<f64>();
        let passed = |logit: &f32| {
            left -= share(logit);
            left < 0.0
        };
        // Rounding may leave a little behind the last one.
        logits.iter().position(passed).unwrap_or(n_classes - 1) as u32
    };
    let targets = logits.chunks_exact(n_classes).enumerate().map(draw).collect();
    Supervised { targets, ..supervised.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use kiln_core::config::ModelConfig;
    use kiln_core::device;
    use kiln_train::updater::{UpdateConfig, Updater};
    use serde_json::json;
    use std::path::Path;

    /// Logistic regression on two inputs: p(1) = 1 / (1 + exp(−w·x)).
    #[derive(Module, Debug)]
    struct Logistic {
        weight: Param<Tensor<1>>,
    }

    const WEIGHT: [f32; 2] = [0.5, -1.0];

    impl Logistic {
        fn new() -> Self {
            let device = device::by_name("flex").expect("a device").autodiff();
            Self { weight: Param::from_tensor(Tensor::from_floats(WEIGHT, &device)) }
        }

        /// −ln p(label).
        fn loss(&self, x: [f32; 2], label: f32) -> Tensor<1> {
            let weight = self.weight.val();
            let x = Tensor::from_floats(x, &weight.device());
            ((weight * x).sum() * (1.0 - 2.0 * label)).exp().add_scalar(1.0).log()
        }
    }

    fn floats(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.clone().into_data().try_to_vec().expect("floats")
    }

    /// F_i = mean of (label − p)²·x_i², and the penalty of a step is that of the closed form.
    #[test]
    fn a_model_of_two_parameters_has_a_closed_form() {
        let rows = [([1.0f32, 2.0f32], 1.0f32), ([-0.5, 1.0], 0.0), ([3.0, 0.25], 0.0)];
        let model = Logistic::new();
        let found = fisher(&model, rows.map(|(x, label)| (model.loss(x, label), 1)));
        let mut expected = [0.0; 2];
        for (x, label) in rows {
            let p = 1.0 / (1.0 + (-(WEIGHT[0] * x[0] + WEIGHT[1] * x[1])).exp());
            (0..2).for_each(|index| expected[index] += ((label - p) * x[index]).powi(2) / 3.0);
        }
        let weights = floats(&found["weight"]);
        assert!((0..2).all(|index| (weights[index] - expected[index]).abs() < 1e-6), "{weights:?} {expected:?}");

        let anchor = ByPath::from([("weight".to_owned(), Tensor::from_floats([1.0, 1.0], &model.weight.val().inner().device()))]);
        let mut importance = Importance::default();
        assert!(importance.pull(&anchor, 3.0).is_none(), "nothing is known to matter yet");
        importance.add(found.clone(), 1.0);
        importance.add(found, 0.5);
        let mut updater = Updater::new(UpdateConfig::default(), 1);
        updater.add(&model, model.loss([1.0, 2.0], 1.0).backward(), 1.0);
        let penalty = updater.pull(&model, &importance.pull(&anchor, 3.0).expect("importances"));
        let closed = 3.0 / 2.0 * 1.5 * (expected[0] * 0.25 + expected[1] * 4.0);
        assert!((penalty - f64::from(closed)).abs() < 1e-5, "{penalty} {closed}");
    }

    /// The expectation over labels drawn from the model is Σ_y p(y)·(∂ log p(y))², enumerated.
    #[test]
    fn drawn_labels_give_the_information_itself() {
        let keys = json!({
            "model_type": "llama", "vocab_size": 6, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 8, "hidden_act": "silu", "tie_word_embeddings": true, "initializer_range": 0.6,
        });
        let config =
            ModelConfig::from_json(keys.as_object().expect("an object").clone(), Path::new("config.json")).expect("a configuration");
        let device = device::by_name("flex").expect("a device").autodiff();
        let model = LanguageModel::new(config, &device, Key::new(4)).expect("a model");
        let batch = Packed::new([&[1u32, 4, 2][..]]);
        let with = |target: u32| Supervised { rows: [2].into(), targets: [target].into(), weights: [1.0].into() };
        let mut exact: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for target in 0..6 {
            let loss = model.loss(&batch, &with(target), None);
            let p = f64::from(-loss.clone().into_scalar::<f32>()).exp();
            for (path, squares) in fisher(&model, [(loss, 1)]) {
                let sums = exact.entry(path).or_insert_with(|| vec![0.0; squares.dims()[0]]);
                sums.iter_mut().zip(floats(&squares)).for_each(|(sum, square)| *sum += p * f64::from(square));
            }
        }
        let plain = model.clone().valid();
        const N: u64 = 3000;
        let draws = (0..N).map(|index| {
            let drawn = sampled(&plain, &batch, &with(0), Key::new(9).fold(index));
            (model.loss(&batch, &drawn, None), 1)
        });
        for (path, found) in fisher(&model, draws) {
            let largest = exact[&path].iter().copied().fold(0.0, f64::max);
            for (found, expected) in floats(&found).iter().zip(&exact[&path]) {
                assert!((f64::from(*found) - expected).abs() < 0.12 * largest, "{path}: {found} {expected}");
            }
        }
    }
}
