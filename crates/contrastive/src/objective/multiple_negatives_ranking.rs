//! Multiple negatives ranking: each anchor is nearer to its own positive than to every other document of the batch (InfoNCE).
//!
//! ```text
//! loss = -Σ_i log softmax_j(scale · cos(a_i, d_j))_i
//! symmetric: half of that, plus half of  -Σ_i log softmax_j(scale · cos(d_i, a_j))_i  over the positives
//! ```
//!
//! a: anchors, `[anchors, width]`; d: documents, `[documents, width]`, first the anchors' positives in order, then any number of hard
//! negatives; scale: 1 / temperature. Pairs in `hide` are left out of the softmax. A sum over anchors; the mean is sentence-transformers'
//! `MultipleNegativesRankingLoss`, with `directions=("query_to_doc", "doc_to_query")` and `partition_mode="per_direction"` if symmetric.
//! Source: Henderson et al., arXiv:1705.00652, Section 4.4; van den Oord et al., arXiv:1807.03748, Eq. 4.
//! Differs from the source: cosines times a scale instead of dot products; [`false_negatives`] are left out.

use burn::tensor::{Tensor, TensorData};
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::linear::linear;
use kiln_kernels::pool::normalize_l2;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pairs of an anchor and a document, by their places in the batch.
pub type Pairs = Vec<(usize, usize)>;

/// Documents that are right for an anchor without being its own positive: the same text as its positive or as itself, or the positive of an
/// anchor of the same text. As negatives they would push away what belongs together.
///
/// `texts` are the anchors, their positives, then the hard negatives, each as token ids.
pub fn false_negatives(texts: &[&[u32]], n_anchors: usize) -> Pairs {
    let mut numbers = BTreeMap::new();
    let same: Vec<usize> = texts
        .iter()
        .map(|text| {
            let next = numbers.len();
            *numbers.entry(text).or_insert(next)
        })
        .collect();
    if numbers.len() == texts.len() {
        return Vec::new();
    }
    let (anchors, documents) = same.split_at(n_anchors);
    let is_right = |anchor: usize, document: usize| {
        document != anchor
            && (documents[document] == documents[anchor]
                || documents[document] == anchors[anchor]
                || anchors.get(document) == Some(&anchors[anchor]))
    };
    let of_anchor =
        |anchor| (0..documents.len()).filter(move |&document| is_right(anchor, document)).map(move |document| (anchor, document));
    (0..n_anchors).flat_map(of_anchor).collect()
}

/// The loss in nats, summed over the anchors, `[1]`.
///
/// # Shapes
/// `embeddings`: `[anchors + documents, width]`, of any length.
pub fn loss(embeddings: Tensor<2>, n_anchors: usize, hide: &Pairs, scale: f64, symmetric: bool) -> Tensor<1> {
    let [n_texts, width] = embeddings.dims();
    let n_documents = n_texts - n_anchors;
    let unit = normalize_l2(embeddings);
    let anchors = unit.clone().slice([0..n_anchors, 0..width]).mul_scalar(scale);
    let documents = unit.slice([n_anchors..n_texts, 0..width]);
    let mut logits = linear(anchors, documents, None);
    if !hide.is_empty() {
        let mut values = vec![0.0; n_anchors * n_documents];
        hide.iter().for_each(|&(anchor, document)| values[anchor * n_documents + document] = f32::NEG_INFINITY);
        logits = logits.clone() + Tensor::from_data(TensorData::new(values, [n_anchors, n_documents]), (&logits.device(), logits.dtype()));
    }
    let own: Arc<[u32]> = (0..n_anchors as u32).collect();
    let weights = |weight: f32| -> Arc<[f32]> { vec![weight; n_anchors].into() };
    if !symmetric {
        return cross_entropy(logits, &own, &weights(1.0));
    }
    let backwards = logits.clone().slice([0..n_anchors, 0..n_anchors]).transpose();
    cross_entropy(logits, &own, &weights(0.5)) + cross_entropy(backwards, &own, &weights(0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::device;

    fn tensor<const R: usize>(rows: [[f32; 2]; R]) -> Tensor<2> {
        Tensor::from_data(TensorData::from(rows), &device::by_name("flex").expect("a device"))
    }

    fn value(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_scalar::<f32>())
    }

    /// Anchors along x and y, positives of other lengths along x and y: cosines are 1 with the own and 0 with the other.
    #[test]
    fn worked_by_hand() {
        let texts = tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]]);
        // Each of the two: -log(e^2 / (e^2 + 1)).
        let each = (1.0 + (-2.0f64).exp()).ln();
        for symmetric in [false, true] {
            assert!((value(loss(texts.clone(), 2, &vec![], 2.0, symmetric)) - 2.0 * each).abs() < 1e-6);
        }
        // A hard negative along x adds e^2 to the first anchor's sum and 1 to the second's.
        let texts = tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5], [7.0, 0.0]]);
        let (x, y) = ((2.0 + (-2.0f64).exp()).ln(), (1.0 + 2.0 * (-2.0f64).exp()).ln());
        assert!((value(loss(texts.clone(), 2, &vec![], 2.0, false)) - x - y).abs() < 1e-6);
        // Backwards nothing knows of it.
        assert!((value(loss(texts.clone(), 2, &vec![], 2.0, true)) - 0.5 * (x + y) - each).abs() < 1e-6);
        // Hidden from the first anchor, it counts for the second only.
        assert!((value(loss(texts, 2, &vec![(0, 2)], 2.0, false)) - each - y).abs() < 1e-6);
    }

    #[test]
    fn texts_all_alike_cost_the_logarithm_of_their_number() {
        let texts = tensor([[0.6, 0.8]; 8]);
        assert!((value(loss(texts.clone(), 4, &vec![], 20.0, false)) - 4.0 * 4f64.ln()).abs() < 1e-5);
        let all_others = (0..4).flat_map(|i| (0..4).filter(move |&j| i != j).map(move |j| (i, j))).collect();
        for symmetric in [false, true] {
            assert_eq!(value(loss(texts.clone(), 4, &all_others, 20.0, symmetric)), 0.0, "with all others hidden nothing is left to learn");
        }
    }

    #[test]
    fn the_same_text_is_no_negative() {
        let [a, b, c, d, e] = [&[1u32][..], &[2], &[3], &[4], &[5]];
        assert!(false_negatives(&[a, b, c, d, e], 2).is_empty());
        // The same positive twice.
        assert_eq!(false_negatives(&[a, b, c, c], 2), [(0, 1), (1, 0)]);
        // The same anchor twice.
        assert_eq!(false_negatives(&[a, a, b, c], 2), [(0, 1), (1, 0)]);
        // The second anchor's positive is the first anchor.
        assert_eq!(false_negatives(&[a, b, c, a], 2), [(0, 1)]);
        // A hard negative, document 2, that is the first anchor's own positive; the same anchor has a negative of its own, document 3.
        assert_eq!(false_negatives(&[a, b, c, d, c, e], 2), [(0, 2)]);
    }
}
