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
use kiln_kernels::cross_entropy::distillation::OutputHead;
use kiln_kernels::linear::linear;
use kiln_kernels::quadratic::add_squares;
use kiln_kernels::random::Key;
use kiln_train::updater::Pull;
use std::collections::BTreeMap;

/// Numbers by the path of their parameter, each `[elements]`.
pub type ByPath = BTreeMap<String, Tensor<1>>;

/// The importances of the weights, F.
#[derive(Clone, Debug, Default)]
pub struct Importance(ByPath);

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
    let OutputHead { hidden, weight, bias } = model.output_head(batch, &supervised.rows, None);
    let logits = linear(hidden, weight, bias);
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
