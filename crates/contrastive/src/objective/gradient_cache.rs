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
//! Source: Gao et al., arXiv:2101.06983, Section 3.2.  Differs from the source: a batch of one part needs no second pass.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_kernels::random::Key;

/// Hands the gradients of `loss` over the embeddings of `parts`, laid end to end, to `add`, part after part. Returns the loss.
pub fn backward(
    encoder: &SentenceEncoder,
    parts: &[Packed],
    dropout: Option<Key>,
    loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
    mut add: impl FnMut(Gradients),
) -> f64 {
    let key = |part: usize| dropout.map(|key| key.fold(part as u64));
    if let [whole] = parts {
        let loss = loss(encoder.encode(whole, key(0)));
        add(loss.backward());
        return f64::from(loss.into_scalar::<f32>());
    }
    let plain = encoder.clone().valid();
    let embeddings = parts.iter().enumerate().map(|(part, batch)| plain.encode(batch, key(part))).collect();
    let embeddings = Tensor::<2>::from_inner(Tensor::cat(embeddings, 0)).require_grad();
    let loss = loss(embeddings.clone());
    let gradient = embeddings.grad(&loss.backward()).expect("the loss depends on the embeddings");
    let [_, width] = embeddings.dims();
    let mut first = 0;
    for (part, batch) in parts.iter().enumerate() {
        let rows = first..first + batch.segments.len();
        first = rows.end;
        let upstream = Tensor::from_inner(gradient.clone().slice([rows, 0..width]));
        let inner = (encoder.encode(batch, key(part)) * upstream).sum();
        add(inner.backward());
    }
    f64::from(loss.into_scalar::<f32>())
}
