//! Masked language modelling: tokens are hidden, and predicted from what stands around them.
//!
//! ```text
//! loss = -Σ_{t chosen} log p(x_t | x̃)
//! ```
//!
//! x̃ is the text with the chosen tokens hidden ([`kiln_data::masking`]). A sum, so that the update can divide by all chosen tokens of a batch.
//! Source: Devlin et al., arXiv:1810.04805, Section 3.1.
//! Differs from the source: nothing.

use burn::tensor::Tensor;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_kernels::random::Key;

/// The loss in nats, `[1]`.
pub fn loss(model: &LanguageModel, batch: &Packed, supervised: &Supervised, dropout: Option<Key>) -> Tensor<1> {
    model.loss(batch, supervised, dropout)
}
