//! CoSENT: of two pairs of texts, the one scored higher has the higher cosine.
//!
//! ```text
//! loss = log(1 + Σ_{i, j: y_i > y_j} exp(scale · (cos_j − cos_i)))
//! ```
//!
//! cos_i: the cosine of pair i; y_i: its score, of which only the order counts. One value for a batch, whatever its size, as
//! sentence-transformers' `CoSENTLoss`. It is the cross-entropy of a class of logit 0 among the differences.
//! Source: Huang et al., "CoSENT: Consistent Sentence Embedding via Similarity Ranking" (2024), doi:10.1109/TASLP.2024.3402087.
//! Differs from the source: nothing.

use burn::tensor::Tensor;
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::pool::normalize_l2;
use kiln_kernels::rows::take_rows;
use std::sync::Arc;

/// The loss of the batch in nats, `[1]`.
///
/// # Shapes
/// `embeddings`: `[2·pairs, width]`, the first texts of all pairs, then the second ones; `scores`: `[pairs]`.
pub fn loss(embeddings: Tensor<2>, scores: &[f64], scale: f64) -> Tensor<1> {
    let [_, width] = embeddings.dims();
    let n = scores.len();
    let unit = normalize_l2(embeddings);
    let cosines = (unit.clone().slice([0..n, 0..width]) * unit.slice([n..2 * n, 0..width])).sum_dim(1).mul_scalar(scale);
    let ordered = (0..n).flat_map(|i| (0..n).filter(move |&j| scores[i] > scores[j]).map(move |j| (i as u32, j as u32)));
    let (higher, lower): (Vec<u32>, Vec<u32>) = ordered.unzip();
    let differences = take_rows(cosines.clone(), &lower.into()) - take_rows(cosines.clone(), &higher.into());
    let zero = Tensor::zeros([1, 1], (&cosines.device(), cosines.dtype()));
    let logits = Tensor::cat(vec![zero, differences], 0).transpose();
    cross_entropy(logits, &Arc::from([0]), &Arc::from([1.0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use kiln_core::device;

    /// Pairs of the cosines 1, 0 and 0.6.
    fn texts() -> Tensor<2> {
        let rows = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [5.0, 0.0], [0.6, 0.8]];
        Tensor::from_data(TensorData::from(rows), &device::by_name("flex").expect("a device"))
    }

    fn value(scores: [f64; 3]) -> f64 {
        f64::from(loss(texts(), &scores, 2.0).into_scalar::<f32>())
    }

    #[test]
    fn worked_by_hand() {
        // In order: e^(2·(0 − 1)), e^(2·(0 − 0.6)), e^(2·(0.6 − 1)).
        let right = (1.0 + (-2.0f64).exp() + (-1.2f64).exp() + (-0.8f64).exp()).ln();
        assert!((value([5.0, 1.0, 3.0]) - right).abs() < 1e-6);
        let wrong = (1.0 + 2.0f64.exp() + 1.2f64.exp() + 0.8f64.exp()).ln();
        assert!((value([1.0, 5.0, 3.0]) - wrong).abs() < 1e-6);
        // Of equal scores nothing is asked.
        let tied = (1.0 + (-2.0f64).exp() + (-1.2f64).exp()).ln();
        assert!((value([3.0, 1.0, 3.0]) - tied).abs() < 1e-6);
        assert_eq!(value([2.0, 2.0, 2.0]), 0.0);
    }

    #[test]
    fn only_the_order_of_the_scores_counts() {
        assert_eq!(value([5.0, 1.0, 3.0]), value([0.9, -7.0, 0.8]));
    }
}
