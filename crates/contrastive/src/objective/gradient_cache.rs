//! Gradient cache: a loss over the embeddings of a whole batch, in the memory of one part of it.
//!
//! ```text
//! 1.  E = [f(x_1); f(x_2); ...]      part after part, without a graph
//! 2.  G = ∂L(E)/∂E
//! 3.  for each part p:  f(x_p) again, with a graph, and the gradient of ⟨f(x_p), G_p⟩
//! ```
//!
//! f: the encoder; x_p: the texts of part p; L: the loss. By the chain rule the sum over the parts is the gradient of L. The second pass
//! draws the same dropout as the first: each part has a key of its own.
//! Source: Gao et al., arXiv:2101.06983, Section 3.2.  Differs from the source: the last part's first pass has a graph, so that it needs no
//! second one, and its gradient comes first.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_kernels::random::Key;
use std::ops::Range;

/// Hands the gradients of `loss` over the embeddings of `parts`, laid end to end, to `add`, part after part. Returns the loss.
pub fn backward(
    encoder: &SentenceEncoder,
    parts: &[Packed],
    dropout: Option<Key>,
    loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
    mut add: impl FnMut(Gradients),
) -> f64 {
    let key = |part: usize| dropout.map(|key| key.fold(part as u64));
    let (last, earlier) = parts.split_last().expect("a batch has texts");
    let plain = encoder.clone().valid();
    let mut embeddings: Vec<Tensor<2>> = earlier.iter().enumerate().map(|(part, batch)| plain.encode(batch, key(part))).collect();
    let with_graph = encoder.encode(last, key(earlier.len()));
    embeddings.push(with_graph.clone().inner());
    let embeddings = Tensor::<2>::from_inner(Tensor::cat(embeddings, 0)).require_grad();
    let loss = loss(embeddings.clone());
    let gradient = embeddings.grad(&loss.backward()).expect("the loss depends on the embeddings");
    let [n_texts, width] = embeddings.dims();
    let mut backward = |encoded: Tensor<2>, rows: Range<usize>| {
        let upstream = Tensor::from_inner(gradient.clone().slice([rows, 0..width]));
        add((encoded * upstream).sum().backward());
    };
    let mut first = n_texts - last.segments.len();
    backward(with_graph, first..n_texts);
    for (part, batch) in earlier.iter().enumerate().rev() {
        let end = first;
        first -= batch.segments.len();
        backward(encoder.encode(batch, key(part)), first..end);
    }
    f64::from(loss.into_scalar::<f32>())
}
