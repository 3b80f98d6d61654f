//! Next-token training: every supervised token becomes more probable after the tokens before it.
//!
//! ```text
//! loss = -Σ_t keep_t · log p(x_t | x_<t)
//! ```
//!
//! keep_t: 1 for tokens of a completion (or of plain text), 0 for those of its prompt, which never reach the output head. A sum, so that
//! the update can divide by all supervised tokens of a batch. A share of the loss may fall on all tokens of the vocabulary alike.
//! Source: Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018), Eq. 1.
//! Differs from the source: the loss is on completions only.

use burn::tensor::Tensor;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_kernels::random::Key;

/// The loss in nats, `[1]`.
pub fn loss(model: &LanguageModel, batch: &Packed, supervised: &Supervised, label_smoothing: f64, dropout: Option<Key>) -> Tensor<1> {
    LanguageModel::head_loss(model.output_head(batch, &supervised.rows, dropout), supervised, label_smoothing as f32)
}
