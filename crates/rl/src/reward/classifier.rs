//! The reward of a classifier: how probable it holds one of its labels to be.

use super::{Completion, Reward};
use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::activation::softmax;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Limit, Overlong};
use kiln_data::pack::parts;
use std::path::Path;

/// Tokens per forward pass; results do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// A classifier's probability of one of its labels.
pub(super) struct Classifier {
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    limit: Limit,
    label: usize,
    name: String,
    with_prompt: bool,
}

impl Classifier {
    pub(super) fn open(place: &str, folder: &Path, label: &str, with_prompt: bool, device: &Device) -> Result<Self> {
        let shape = ModelConfig::from_folder(folder)?;
        let names = shape.label_names();
        let (model, _) = SequenceClassifier::load(folder, device)?;
        let Some(index) = names.iter().position(|name| name == label) else {
            let known = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            return Err(Error::config(format!("{place}.label"), format!("unknown label {label:?}; the classifier knows {known}")));
        };
        let tokenizer = Tokenizer::for_model(folder, &shape)?;
        let limit = Limit::new(shape.max_positions, Overlong::Truncate, &tokenizer)?;
        Ok(Self { model: model.valid(), tokenizer, limit, label: index, name: format!("classifier_{label}"), with_prompt })
    }
}

impl Reward for Classifier {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        let text = |completion: &Completion<'_>| match self.with_prompt {
            true => format!("{}{}", completion.prompt.text, completion.text),
            false => completion.text.trim().to_owned(),
        };
        let ids = self.tokenizer.encode_all(completions.iter().map(text).collect())?;
        let ids: Vec<Vec<u32>> = ids.into_iter().map(|ids| self.limit.cut(ids)).collect();
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        // A text without a token has no class.
        let judged: Vec<usize> = (0..ids.len()).filter(|&index| lengths[index] > 0).collect();
        let mut scores = vec![0.0; ids.len()];
        for part in parts(&judged, &lengths, BATCH_TOKENS) {
            let batch = Packed::new(part.iter().map(|&index| ids[index].as_slice()));
            let logits = self.model.forward(&batch, None);
            let [_, n_labels] = logits.dims();
            let probabilities: Vec<f32> = softmax(logits, 1).into_data().try_to_vec().expect("f32");
            for (&index, row) in part.iter().zip(probabilities.chunks_exact(n_labels)) {
                scores[index] = f64::from(row[self.label]);
            }
        }
        Ok(scores)
    }
}
