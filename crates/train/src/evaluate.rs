//! What evaluations of a model on held-out rows share.

use burn::tensor::Tensor;
use kiln_data::pack::parts;

/// Tokens per forward pass of an evaluation; results do not depend on it.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// Rows in order, cut so that each forward pass gets a bounded number of tokens.
pub fn batches<R>(rows: &[R], n_tokens: impl Fn(&R) -> usize) -> impl Iterator<Item = Vec<&R>> {
    let lengths: Vec<usize> = rows.iter().map(n_tokens).collect();
    let all: Vec<usize> = (0..rows.len()).collect();
    parts(&all, &lengths, BATCH_TOKENS).into_iter().map(|part| part.into_iter().map(|index| &rows[index]).collect())
}

/// The values of a tensor.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("floats")
}

/// The likeliest class of each row of `logits` and the cross-entropy of its label, in nats. Of classes equally likely the first counts.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `labels`: one per row.
pub fn cross_entropies(logits: Tensor<2>, labels: &[u32]) -> Vec<(usize, f64)> {
    let [_, n_classes] = logits.dims();
    let row = |(scores, &label): (&[f32], &u32)| {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).expect("a class");
        let largest = f64::from(scores[best]);
        let log_sum = largest + scores.iter().map(|&score| (f64::from(score) - largest).exp()).sum::<f64>().ln();
        (best, log_sum - f64::from(scores[label as usize]))
    };
    floats(logits).chunks_exact(n_classes).zip(labels).map(row).collect()
}
