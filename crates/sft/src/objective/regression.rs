//! Regression: the number given is the number right.
//!
//! ```text
//! loss = Σ_sequences (prediction − score)²
//! ```
//!
//! prediction: the one output for each sequence; score: the number right, in its own unit. A sum, so that the update can divide by all
//! sequences of a batch.
//! Source: Bishop, "Pattern Recognition and Machine Learning" (2006), Eq. 3.12.  Differs from the source: without the factor ½, as transformers.

use burn::tensor::Tensor;
use kiln_core::classifier::{SequenceClassifier, squared_error};
use kiln_core::packed::Packed;
use kiln_kernels::random::Key;

/// The loss in squared units of the scores, `[1]`.
pub fn loss(model: &SequenceClassifier, batch: &Packed, scores: &[f32], dropout: Option<Key>) -> Tensor<1> {
    squared_error(model.forward(batch, dropout), scores)
}
