//! A model that gets embeddings for tokens added to its tokenizer.

use crate::language_model::LanguageModel;
use crate::model::Model;
use crate::parameters::{Change, change_parameters};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeSet;

/// What has a row, or a number, for each token of the vocabulary. A head tied to the embeddings has no weights of its own and follows them.
const PER_TOKEN: [&str; 3] = ["trunk.embeddings.token.weight", "head.output.weight", "head.bias"];

/// The model with rows for the tokens `added` to its tokenizer, each the mean of the rows that it had before: the logits of new tokens are
/// then those of an average token, which moves a distribution least (Hewitt, "Initializing New Word Embeddings for Pretrained Language
/// Models", 2021). The vocabulary is rounded up to a multiple of `multiple_of` tokens, which some devices are faster with; it never shrinks,
/// since published models have more rows than tokens.
pub fn grow(model: LanguageModel, added: &[u32], multiple_of: usize) -> LanguageModel {
    let mut config = model.config().clone();
    let n_needed = added.iter().map(|&id| id as usize + 1).max().unwrap_or(0).max(config.vocab_size);
    let mut grow = Grow { added: added.iter().map(|&id| id as usize).collect(), n_rows: n_needed.next_multiple_of(multiple_of.max(1)) };
    let LanguageModel { trunk, head, .. } = change_parameters(model, &mut grow);
    config.vocab_size = grow.n_rows;
    config.raw.insert("vocab_size".into(), grow.n_rows.into());
    LanguageModel::from_parts(trunk, head, config)
}

struct Grow {
    added: BTreeSet<usize>,
    n_rows: usize,
}

impl Change for Grow {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !PER_TOKEN.contains(&path) {
            return param;
        }
        let table = param.val();
        let mut shape = table.dims();
        let (n_old, width) = (shape[0], shape[1..].iter().product::<usize>());
        let device = table.device();
        let mut values: Vec<f32> = table.into_data().try_to_vec().expect("f32");
        let (mut mean, mut n_averaged) = (vec![0f64; width], 0u32);
        for row in (0..n_old).filter(|row| !self.added.contains(row)) {
            mean.iter_mut().zip(&values[row * width..]).for_each(|(sum, &value)| *sum += f64::from(value));
            n_averaged += 1;
        }
        let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / f64::from(n_averaged.max(1))) as f32).collect();
        values.resize(self.n_rows * width, 0.0);
        for row in self.added.iter().copied().filter(|&row| row < n_old).chain(n_old..self.n_rows) {
            values[row * width..][..width].copy_from_slice(&mean);
        }
        shape[0] = self.n_rows;
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::device;
    use crate::packed::Packed;
    use crate::parameters::parameters;
    use kiln_kernels::random::Key;
    use serde_json::{Value, json};
    use std::path::Path;

    fn model(tied: bool) -> LanguageModel {
        let Value::Object(keys) = json!({
            "model_type": "llama", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16, "hidden_act": "silu", "tie_word_embeddings": tied, "eos_token_id": 1,
        }) else {
            unreachable!("an object")
        };
        let config = ModelConfig::from_json(keys, Path::new("config.json")).unwrap();
        LanguageModel::new(config, &device::by_name("flex").unwrap(), Key::new(3)).unwrap()
    }

    fn logits(model: &LanguageModel) -> Vec<Vec<f32>> {
        let batch = Packed::new([&[1u32, 2, 3, 6][..]]);
        let logits = model.logits(model.trunk.forward(&batch, None));
        let [_, width] = logits.dims();
        let values: Vec<f32> = logits.into_data().try_to_vec().unwrap();
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    /// What the model says of the tokens it knew is unchanged, and of a new one it says what it says of all others on average.
    #[test]
    fn new_tokens_are_average_tokens() {
        for tied in [true, false] {
            let before = model(tied);
            let after = grow(before.clone(), &[7, 8], 8);
            assert_eq!(after.config().vocab_size, 16);
            assert_eq!(after.config().raw["vocab_size"], 16);
            let tables = parameters(&after).into_iter().filter(|parameter| PER_TOKEN.contains(&parameter.path.as_str()));
            assert_eq!(tables.map(|table| table.shape[0]).collect::<Vec<_>>(), vec![16; if tied { 1 } else { 2 }]);
            for (old, new) in logits(&before).iter().zip(logits(&after)) {
                assert_eq!(old[..], new[..7], "tied {tied}");
                let mean = old.iter().sum::<f32>() / 7.0;
                assert!(new[7..].iter().all(|logit| (logit - mean).abs() < 1e-5), "tied {tied}: {new:?}, mean {mean}");
            }
        }
    }

    /// A row that no token had before is one like any new row, and is not averaged.
    #[test]
    fn spare_rows_are_used_first() {
        let grown = grow(model(true), &[6], 1);
        assert_eq!(grown.config().vocab_size, 7);
        for row in logits(&grown) {
            let mean = row[..6].iter().sum::<f32>() / 6.0;
            assert!((row[6] - mean).abs() < 1e-5);
        }
    }
}
