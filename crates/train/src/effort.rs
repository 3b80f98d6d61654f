//! What training took: how many weights, updates and seconds.

use burn::module::Module;
use kiln_core::parameters::counts;
use serde::Serialize;

/// What training took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Effort {
    /// Parameters trained.
    pub n_trainable: usize,
    /// Parameters of the model, trained or not.
    pub n_parameters: usize,
    /// Updates.
    pub n_steps: usize,
    /// Of these, updates that were left out because the loss or a gradient was not finite, or a spike.
    pub n_skipped_steps: usize,
    /// Time in the training loop, evaluation left out.
    pub train_seconds: f64,
    /// Training tokens per second of that time.
    pub tokens_per_second: f64,
}

impl Effort {
    /// Of so many updates of `model`, and those of them that were left out, on `n_tokens` tokens, repeated ones counted again.
    pub fn new(model: &impl Module, [n_steps, n_skipped_steps]: [usize; 2], n_tokens: usize, train_seconds: f64) -> Self {
        let [n_trainable, n_parameters] = counts(model);
        Self { n_trainable, n_parameters, n_steps, n_skipped_steps, train_seconds, tokens_per_second: n_tokens as f64 / train_seconds }
    }
}
