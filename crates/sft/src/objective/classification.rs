//! Sequence classification: the right class gets all the probability.
//!
//! ```text
//! loss = -Σ_sequences log softmax(logits)[label]
//! ```
//!
//! logits: [sequences, classes]; label: the class of each sequence. A sum, so that the update can divide by all sequences of a batch.
//! Source: Devlin et al., arXiv:1810.04805, Section 4.1.  Differs from the source: a share of the loss may fall on all classes alike, and
//! [`super::r_drop`] may compare two passes.

use super::r_drop::{self, Regularization};
use burn::tensor::Tensor;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::packed::Packed;
use kiln_kernels::random::Key;
use std::sync::Arc;

/// The loss in nats, `[1]`, of a batch that holds every sequence as often as there are passes. `weigh` says from the logits how much each
/// sequence counts; if it says nothing, all count as 1.
pub fn loss(
    model: &SequenceClassifier,
    batch: &Packed,
    labels: &Arc<[u32]>,
    regularization: Regularization,
    weigh: impl FnOnce(&Tensor<2>) -> Option<Vec<f32>>,
    dropout: Option<Key>,
) -> Tensor<1> {
    let logits = model.forward(batch, dropout);
    let weights = weigh(&logits);
    r_drop::loss(logits, labels, weights.as_deref(), regularization)
}
