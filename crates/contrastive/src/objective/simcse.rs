//! Unsupervised SimCSE: a text under two dropouts is its own positive, and the other texts of the batch are the negatives.
//!
//! ```text
//! loss = -Σ_i log softmax_j(scale · cos(h_i, h'_j))_i,   h_i = f(x_i, z_i),  h'_i = f(x_i, z'_i)
//! ```
//!
//! z, z': two draws of dropout; scale: 1 / temperature. All texts pass through the encoder once, twice in the same batch, so that dropout
//! differs of itself. A sum over texts.
//! Source: Gao et al., arXiv:2104.08821, Eq. 4.
//! Differs from the source: the encoder's own pooling, without a layer that is there in training only; a text that is in the batch more than
//! once is no negative of itself.

use super::multiple_negatives_ranking::{self, false_negatives};
use burn::tensor::Tensor;

/// The texts of a batch, each twice, as the encoder must see them.
pub fn doubled<'a>(texts: &[&'a [u32]]) -> Vec<&'a [u32]> {
    [texts, texts].concat()
}

/// The loss in nats, summed over the texts, `[1]`.
///
/// # Shapes
/// `embeddings`: `[2·texts, width]`, of the texts [`doubled`].
pub fn loss(embeddings: Tensor<2>, doubled: &[&[u32]], scale: f64) -> Tensor<1> {
    let n = doubled.len() / 2;
    multiple_negatives_ranking::loss(embeddings, n, &false_negatives(doubled, n), scale, false)
}
