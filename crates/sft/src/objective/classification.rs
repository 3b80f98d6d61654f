//! Sequence classification: the right class gets all the probability.
//!
//! ```text
//! loss = -Σ_sequences log softmax(logits)[label]
//! ```
//!
//! logits: [sequences, classes]; label: the class of each sequence. A sum, so that the update can divide by all sequences of a batch.
//! Source: Devlin et al., arXiv:1810.04805, Section 4.1.  Differs from the source: nothing.

use burn::tensor::Tensor;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::packed::Packed;
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::random::Key;
use std::sync::Arc;

/// The loss in nats, `[1]`.
pub fn loss(model: &SequenceClassifier, batch: &Packed, labels: &Arc<[u32]>, dropout: Option<Key>) -> Tensor<1> {
    let weights: Arc<[f32]> = vec![1.0; labels.len()].into();
    cross_entropy(model.forward(batch, dropout), labels, &weights)
}
