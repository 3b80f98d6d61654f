//! Token classification: the right tag of each word gets all the probability.
//!
//! ```text
//! loss = -Σ_words log softmax(logits)[tag]
//! ```
//!
//! logits: [words, tags], of the first token of each word; tag: the word's. A word's other tokens have no loss and never reach the head. A
//! sum, so that the update can divide by all words of a batch.
//! Source: Devlin et al., arXiv:1810.04805, Section 5.3.  Differs from the source: sentences come without their document around them; a
//! share of the loss may fall on all tags alike, and [`super::r_drop`] may compare two passes.

use super::r_drop::{self, Regularization};
use burn::tensor::Tensor;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::token_classifier::TokenClassifier;
use kiln_kernels::random::Key;

/// The loss in nats, `[1]`, of a batch that holds every sentence as often as there are passes.
pub fn loss(
    model: &TokenClassifier,
    batch: &Packed,
    words: &Supervised,
    regularization: Regularization,
    dropout: Option<Key>,
) -> Tensor<1> {
    r_drop::loss(model.forward(batch, &words.rows, dropout), &words.targets, None, regularization)
}
