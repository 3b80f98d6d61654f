//! The model that is trained, and what is read from it and from the reference without a gradient.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use kiln_core::language_model::LanguageModel;
use kiln_core::linear::Linear;
use kiln_core::model::Model;
use kiln_core::packed::Branched;
use kiln_data::pack::parts;
use kiln_kernels::cross_entropy::{HeadOptions, TokenLoss};
use std::sync::Arc;

/// Tokens per forward pass without a gradient; results do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// A decoder, and with PPO a value head on its last hidden states.
#[derive(Module, Debug)]
pub struct Policy {
    /// The decoder.
    pub model: LanguageModel,
    /// Width to one number: the reward still to come.
    pub value: Option<Linear>,
}

impl Policy {
    /// With `has_value`, a value head that expects 0 of everything.
    pub fn new(model: LanguageModel, has_value: bool, device: &Device) -> Self {
        let width = model.config().hidden_size;
        let value = has_value.then(|| Linear {
            weight: Param::from_tensor(Tensor::zeros([1, width], device)),
            bias: Some(Param::from_tensor(Tensor::zeros([1], device))),
            adapter: None,
        });
        Self { model, value }
    }
}

/// A prompt and a completion.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// The tokens that were given.
    pub prompt: &'a [u32],
    /// The tokens that were sampled.
    pub completion: &'a [u32],
}

impl<'a> Sequence<'a> {
    /// The tokens that others follow: nothing is predicted from the last.
    fn inputs(&self) -> &'a [u32] {
        &self.completion[..self.completion.len() - 1]
    }

    /// Tokens that pass through the model, if the prompt does so for it alone.
    pub fn n_tokens(&self) -> usize {
        self.prompt.len() + self.inputs().len()
    }
}

/// Sequences without their last tokens, those of one prompt that follow each other with the prompt in common; the rows that completions are
/// predicted from, and what they predict.
pub fn pack(sequences: &[Sequence<'_>]) -> (Branched, Arc<[u32]>, Arc<[u32]>) {
    let groups = || sequences.chunk_by(|a, b| a.prompt == b.prompt);
    let branched = Branched::new(groups().map(|group| (group[0].prompt, group.iter().map(Sequence::inputs).collect())));
    let mut rows = Vec::new();
    let mut ranges = branched.packed.segments.ranges();
    for group in groups() {
        let prompt = ranges.next().expect("a prompt");
        for own in ranges.by_ref().take(group.len()) {
            rows.push(prompt.end as u32 - 1);
            rows.extend(own.map(|row| row as u32));
        }
    }
    drop(ranges);
    let targets = sequences.iter().flat_map(|sequence| sequence.completion).copied().collect();
    (branched, rows.into(), targets)
}

/// The log-probability of each token of each completion, in nats, from logits divided by `temperature`.
pub fn log_probabilities(model: &LanguageModel, sequences: &[Sequence<'_>], temperature: f32) -> Vec<Vec<f32>> {
    let model = model.clone().valid();
    let options = HeadOptions { temperature, ..HeadOptions::default() };
    in_parts(sequences, |packed, rows, targets| {
        let hidden = model.trunk.forward_branches(packed, rows, None);
        model.token_loss(hidden, targets, options, Arc::new(|_, _| TokenLoss::default())).1
    })
}

/// What the value head expects at each token of each completion.
///
/// # Panics
/// If there is no value head.
pub fn values(policy: &Policy, sequences: &[Sequence<'_>]) -> Vec<Vec<f32>> {
    let policy = policy.clone().valid();
    let value = policy.value.as_ref().expect("a value head");
    in_parts(sequences, |packed, rows, _| {
        let hidden = policy.model.trunk.forward_branches(packed, rows, None);
        value.forward(hidden).into_data().try_to_vec().expect("f32")
    })
}

/// Numbers of each completion's tokens, computed for a bounded number of tokens at a time.
fn in_parts(sequences: &[Sequence<'_>], of: impl Fn(&Branched, &Arc<[u32]>, &Arc<[u32]>) -> Vec<f32>) -> Vec<Vec<f32>> {
    let lengths: Vec<usize> = sequences.iter().map(Sequence::n_tokens).collect();
    let all: Vec<usize> = (0..sequences.len()).collect();
    let mut found = Vec::with_capacity(sequences.len());
    for part in parts(&all, &lengths, BATCH_TOKENS) {
        let part: Vec<Sequence<'_>> = part.into_iter().map(|index| sequences[index]).collect();
        let (packed, rows, targets) = pack(&part);
        let mut numbers = of(&packed, &rows, &targets).into_iter();
        found.extend(part.iter().map(|sequence| numbers.by_ref().take(sequence.completion.len()).collect::<Vec<f32>>()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_predicted_from_the_row_before() {
        let of = |prompt, completion| Sequence { prompt, completion };
        let (branched, rows, targets) = pack(&[of(&[7, 8], &[1, 2, 3]), of(&[7, 8], &[5]), of(&[7, 8], &[6, 1]), of(&[9], &[4])]);
        assert_eq!(*branched.packed.ids, [7, 8, 1, 2, 6, 9]);
        assert_eq!(branched.prefixes, [0..0, 0..2, 0..2, 0..2, 0..0, 5..6]);
        assert_eq!(*rows, [1, 2, 3, 1, 1, 4, 5]);
        assert_eq!(*targets, [1, 2, 3, 5, 6, 1, 4]);
    }
}
