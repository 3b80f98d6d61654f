//! Attention within each sequence of a packed batch: grouped heads, causal or not, sliding windows, soft-capped scores, dropout.
//!
//! ```text
//! s[i, j] = scale · qᵢ·kⱼ                     s ← cap · tanh(s / cap)  with a soft cap (arXiv:2408.00118, Section 2)
//! p[i, :] = softmax of s[i, j] over the keys j that query i sees
//! out[i]  = Σⱼ p[i, j] · vⱼ                   dropout acts on p
//! ```
//!
//! Source: Vaswani et al., arXiv:1706.03762, Equation 1; grouped heads: Ainslie et al., arXiv:2305.13245, Section 2.2.

mod backward;
mod block;
mod decode;
mod host;
mod product;
#[cfg(test)]
mod tests;

use crate::dropout::Mask;
use crate::host::{on_host, read};
use crate::kernel::apply;
use crate::random::Key;
use crate::segments::Segments;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};
use product::Band;
use std::ops::Range;

/// What kind of attention a layer computes.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`. Query head h reads key/value head h · kv_heads / heads.
    pub kv_heads: usize,
    /// Components per head.
    pub head_dim: usize,
    /// Whether a query sees no key after its own position.
    pub causal: bool,
    /// Tokens in the sliding window w, as in Hugging Face configurations. Causal: the w keys up to and including the query's own.
    /// Otherwise: the keys at a distance of at most w / 2.
    pub window: Option<usize>,
    /// Factor of the scores, usually 1 / √head_dim.
    pub scale: f32,
    /// Bound of the scores' absolute value.
    pub softcap: Option<f32>,
}

impl AttentionShape {
    /// How far from the query's position the keys that it sees may lie.
    fn band(&self) -> Band {
        let reach = |window: usize| isize::try_from(window).unwrap_or(Band::FAR).min(Band::FAR);
        match (self.causal, self.window) {
            (true, None) => Band { first: -Band::FAR, end: 1 },
            (true, Some(window)) => Band { first: 1 - reach(window), end: 1 },
            (false, None) => Band::ALL,
            (false, Some(window)) => Band { first: -reach(window / 2), end: reach(window / 2) + 1 },
        }
    }

    /// The keys among `0..n_keys` that the query at `position` sees: never none, and both ends grow with the position.
    fn visible(&self, position: usize, n_keys: usize) -> Range<usize> {
        self.band().columns(position..position + 1, n_keys)
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(&self, q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "key/value heads divide the heads");
        assert!(self.window != Some(0) || !self.causal, "a causal window holds at least the query's own token");
        assert_eq!(q.dims()[1], self.heads * self.head_dim, "queries are heads · head_dim wide");
        assert_eq!(k.dims()[1], self.kv_heads * self.head_dim, "keys are kv_heads · head_dim wide");
        assert_eq!(k.dims(), v.dims(), "keys and values have the same shape");
    }
}

/// The rows of one sequence: its queries, and the keys they look at. The queries are the newest tokens of the keys' sequence.
#[derive(Clone, Debug)]
struct Span {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Span {
    /// The position of the first query among the keys.
    fn offset(&self) -> usize {
        self.keys.len() - self.queries.len()
    }
}

fn spans(queries: &Segments, keys: &Segments) -> Vec<Span> {
    queries.ranges().zip(keys.ranges()).map(|(queries, keys)| Span { queries, keys }).collect()
}

/// The dropout mask of the probabilities of one query and head, by key position.
fn row_mask(mask: Mask, head: usize, query: usize) -> Mask {
    mask.fold(head as u64).fold(query as u64)
}

fn indices(rows: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.map(|row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}

/// Gathers to `[sequences, heads, longest, head_dim]`, computes every pair of tokens, and scatters back.
fn plain(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, spans: &[Span], shape: &AttentionShape, mask: Option<Mask>) -> Tensor<2> {
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let (device, dtype, sequences) = (q.device(), q.dtype(), spans.len());
    let n_queries = spans.iter().map(|span| span.queries.len()).max().unwrap_or(0);
    let n_keys = spans.iter().map(|span| span.keys.len()).max().unwrap_or(0);
    if n_queries == 0 {
        return q;
    }
    // Padding repeats some row that exists; nobody looks at it.
    let slots = |ranges: fn(&Span) -> &Range<usize>, count: usize| {
        let slot = move |range: &Range<usize>, slot| if slot < range.len() { range.start + slot } else { 0 };
        indices(spans.iter().map(ranges).flat_map(|range| (0..count).map(move |i| slot(range, i))), &device)
    };
    let key_slots = slots(|span| &span.keys, n_keys);
    let spread = |x: Tensor<2>| {
        let x = x.select(0, key_slots.clone()).reshape([sequences, n_keys, kv_heads, 1, head_dim]);
        x.expand([sequences, n_keys, kv_heads, shape.group(), head_dim]).reshape([sequences, n_keys, heads, head_dim]).swap_dims(1, 2)
    };
    let q = q.select(0, slots(|span| &span.queries, n_queries)).reshape([sequences, n_queries, heads, head_dim]).swap_dims(1, 2);

    let mut scores = q.matmul(spread(k).transpose()).mul_scalar(shape.scale);
    if let Some(cap) = shape.softcap {
        scores = scores.div_scalar(cap).tanh().mul_scalar(cap);
    }
    // A padded query sees key 0, so that its softmax, and with it every gradient, is finite.
    let visible = |span: &Span, i| if i < span.queries.len() { shape.visible(span.offset() + i, span.keys.len()) } else { 0..1 };
    let hide: Vec<bool> = spans
        .iter()
        .flat_map(|span| (0..n_queries).map(move |i| visible(span, i)))
        .flat_map(|visible| (0..n_keys).map(move |j| !visible.contains(&j)))
        .collect();
    let hide = Tensor::<4, Bool>::from_data(TensorData::new(hide, [sequences, 1, n_queries, n_keys]), &device);
    let scores = scores.mask_fill(hide.expand([sequences, heads, n_queries, n_keys]), f32::NEG_INFINITY);
    let mut probabilities = activation::softmax(scores, 3);
    if let Some(mask) = mask {
        let rows =
            spans.iter().flat_map(|span| (0..heads).flat_map(move |head| (0..n_queries).map(move |i| (head, span.queries.start + i))));
        let factors: Vec<f32> = rows.flat_map(|(head, query)| row_mask(mask, head, query).factors(n_keys)).collect();
        let factors = TensorData::new(factors, [sequences, heads, n_queries, n_keys]);
        probabilities = probabilities * Tensor::from_data(factors, (&device, dtype));
    }
    let out = probabilities.matmul(spread(v)).swap_dims(1, 2).reshape([sequences * n_queries, heads * head_dim]);
    let slots = spans.iter().enumerate().flat_map(|(sequence, span)| (0..span.queries.len()).map(move |i| sequence * n_queries + i));
    out.select(0, indices(slots, &device))
}

/// Attention of every sequence's tokens to its own tokens.
///
/// # Shapes
/// `q` and the output: `[tokens, heads · head_dim]`; `k`, `v`: `[tokens, kv_heads · head_dim]`; `segments` covers the tokens.
///
/// `dropout`: probability of dropping an attention probability, and the key of the mask.
///
/// # Panics
/// If the shapes do not fit together.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: &Segments,
    shape: &AttentionShape,
    dropout: Option<(f32, Key)>,
) -> Tensor<2> {
    attention_of_newest(q, k, v, [segments, segments], shape, dropout)
}

/// Attention of each sequence's newest tokens to all of its tokens, of which keys and values are given.
///
/// # Shapes
/// `q` and the output: `[newest tokens, heads · head_dim]`, laid out by the first of the `segments`; `k`, `v`:
/// `[tokens, kv_heads · head_dim]`, laid out by the second.
///
/// # Panics
/// If the shapes do not fit together, or a sequence has fewer keys than queries.
pub fn attention_of_newest(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    segments: [&Segments; 2],
    shape: &AttentionShape,
    dropout: Option<(f32, Key)>,
) -> Tensor<2> {
    let [queries, keys] = segments;
    shape.check(&q, &k, &v);
    assert_eq!(q.dims()[0], queries.n_tokens(), "the segments cover the queries");
    assert_eq!(k.dims()[0], keys.n_tokens(), "the segments cover the keys");
    assert_eq!(queries.len(), keys.len(), "every sequence has its keys");
    let spans = spans(queries, keys);
    assert!(spans.iter().all(|span| span.queries.len() <= span.keys.len()), "the queries are the newest of the keys' tokens");
    let mask = dropout.filter(|(probability, _)| *probability > 0.0).map(|(probability, key)| Mask::new(probability, key));
    if on_host(&q.device()) {
        let kernel = host::Attention { spans, shape: shape.clone(), mask };
        apply(kernel, [q.into_dispatch(), k.into_dispatch(), v.into_dispatch()])
    } else {
        plain(q, k, v, &spans, shape, mask)
    }
}

/// Attention of each sequence's newest tokens to its cached tokens, the newest among them included. Plain tensors; not differentiable.
///
/// # Shapes
/// `q` and the output: `[new tokens, heads · head_dim]`, laid out by `query_segments`; `keys`, `values`: `[cache rows, kv_heads · head_dim]`,
/// of which sequence i owns `count` rows from `start`, where `key_spans[i]` is `(start, count)`.
///
/// # Panics
/// If the shapes do not fit together, or a sequence has fewer keys than queries.
pub fn cached_attention(
    q: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    query_segments: &Segments,
    key_spans: &[(usize, usize)],
    shape: &AttentionShape,
) -> Tensor<2> {
    shape.check(&q, &keys, &values);
    let [tokens, width] = q.dims();
    assert_eq!(tokens, query_segments.n_tokens(), "the segments cover the queries");
    assert_eq!(query_segments.len(), key_spans.len(), "every sequence has a span of keys");
    let spans: Vec<Span> =
        query_segments.ranges().zip(key_spans).map(|(queries, &(start, count))| Span { queries, keys: start..start + count }).collect();
    for span in &spans {
        assert!(span.queries.len() <= span.keys.len() && span.keys.end <= keys.dims()[0], "the cache holds the newest tokens: {span:?}");
    }
    if !on_host(&q.device()) {
        return plain(q, keys, values, &spans, shape, None);
    }
    let device = q.device();
    let are_few = spans.iter().all(|span| span.queries.len() <= decode::FEW);
    let forward = |q: &[f32], k: &[f32], v: &[f32]| match are_few {
        true => decode::forward(q, k, v, &spans, shape),
        false => host::forward(q, k, v, &spans, shape, None).0,
    };
    let out = read(q, |q| read(keys, |k| read(values, |v| forward(q, k, v))));
    Tensor::from_data(TensorData::new(out, [tokens, width]), &device)
}
