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
    /// Time in the training loop, evaluation left out.
    pub train_seconds: f64,
    /// Training tokens per second of that time.
    pub tokens_per_second: f64,
}

impl Effort {
    /// Of `n_steps` updates of `model` on `n_tokens` tokens, repeated ones counted again.
    pub fn new(model: &impl Module, n_steps: usize, n_tokens: usize, train_seconds: f64) -> Self {
        let [n_trainable, n_parameters] = counts(model);
        Self { n_trainable, n_parameters, n_steps, train_seconds, tokens_per_second: n_tokens as f64 / train_seconds }
    }
}
