//! Regression: the number given is the number right.
//!
//! ```text
//! loss = Σ_sequences (prediction − score)²
//! ```
//!
//! prediction: the one output for each sequence; score: the number right, in its own unit. A sum, so that the update can divide by all
//! sequences of a batch.
//! Source: Bishop, "Pattern Recognition and Machine Learning" (2006), Eq. 3.12.  Differs from the source: without the factor ½, as transformers.

use burn::tensor::{Tensor, TensorData};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::packed::Packed;
use kiln_kernels::random::Key;

/// The loss in squared units of the scores, `[1]`.
pub fn loss(model: &SequenceClassifier, batch: &Packed, scores: &[f32], dropout: Option<Key>) -> Tensor<1> {
    let predictions = model.forward(batch, dropout);
    let scores = Tensor::from_data(TensorData::new(scores.to_vec(), [scores.len(), 1]), &predictions.device());
    let errors: Tensor<2> = predictions - scores;
    (errors.clone() * errors).sum()
}
