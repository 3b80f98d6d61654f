//! Triplet loss: the anchor is nearer to its positive than to its negative, by a margin.
//!
//! ```text
//! loss = Σ_i max(‖a_i − p_i‖ − ‖a_i − n_i‖ + margin, 0)
//! ```
//!
//! a, p, n: anchors, positives and negatives; ‖x‖: Euclidean. A sum over triplets; the mean is sentence-transformers' `TripletLoss` with
//! its defaults (Euclidean distance, margin 5). Embeddings of length 1 are at most 2 apart: a margin of 2 or more then never lets go.
//! Source: Schroff et al., arXiv:1503.03832, Eq. 2.
//! Differs from the source: distances are not squared.

use burn::tensor::Tensor;
use kiln_kernels::rows::take_rows;

/// Added to every difference, as PyTorch's `pairwise_distance` does, so that the distance of equal texts has a gradient.
const EPSILON: f64 = 1e-6;

/// The loss summed over the triplets, `[1]`.
///
/// # Shapes
/// `embeddings`: `[3·triplets, width]`: all anchors, then all positives, then all negatives.
pub fn loss(embeddings: Tensor<2>, margin: f64) -> Tensor<1> {
    let n = embeddings.dims()[0] / 3;
    let part = |index: usize| take_rows(embeddings.clone(), &(index * n..(index + 1) * n).map(|row| row as u32).collect());
    let [anchors, positives, negatives] = [part(0), part(1), part(2)];
    let distance = |to: Tensor<2>| (anchors.clone() - to).add_scalar(EPSILON).square().sum_dim(1).sqrt();
    (distance(positives) - distance(negatives)).add_scalar(margin).clamp_min(0.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use kiln_core::device;

    #[test]
    fn worked_by_hand() {
        // Distances 5 and 1; 0 and 10.
        let rows = [[0.0, 0.0], [1.0, 1.0], [3.0, 4.0], [1.0, 1.0], [1.0, 0.0], [7.0, 9.0]];
        let embeddings = Tensor::<2>::from_data(TensorData::from(rows), &device::by_name("flex").expect("a device"));
        for (margin, expected) in [(5.0, 9.0), (0.5, 4.5), (11.0, 16.0), (-4.0, 0.0)] {
            let found = loss(embeddings.clone(), margin).into_scalar::<f32>();
            assert!((f64::from(found) - expected).abs() < 1e-4, "margin {margin}: {found}");
        }
    }
}
