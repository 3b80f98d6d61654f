//! Attention of a few new tokens per sequence to long caches: reading the cache is the work.
//!
//! A unit of work reads a stretch of a sequence's cache once, row after row, for all heads and new tokens. The parts of the softmax that
//! several stretches give are put together in the stretches' order.

use super::block::{exponentials, maximum, with_scratch};
use super::host::for_each;
use super::product::LANES;
use super::{AttentionShape, Span};
use crate::math::{exp, simd, tanh};
use crate::reduce::dot;
use std::ops::Range;

/// New tokens of a sequence up to which this is faster than copying its keys and values into panels.
pub(super) const FEW: usize = 4;
/// Keys of a stretch.
const KEYS: usize = 256;
/// Values added to an output at once.
const TOGETHER: usize = 4;

/// One new token of a sequence against a stretch of its keys.
struct Unit<'a> {
    query: usize,
    /// Rows of the cache.
    keys: Range<usize>,
    /// The heads' outputs before division by their sums, `[heads, head_dim]`, then their largest scores and their sums.
    part: &'a mut [f32],
}

/// The output `[queries, heads · head_dim]`.
pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], spans: &[Span], shape: &AttentionShape) -> Vec<f32> {
    let (heads, dim) = (shape.heads, shape.head_dim);
    let stretches: Vec<(usize, Range<usize>)> = spans
        .iter()
        .flat_map(|span| span.queries.clone().map(move |query| (span, query)))
        .flat_map(|(span, query)| {
            let seen = shape.visible(span.offset() + query - span.queries.start, span.keys.len());
            let (first, end) = (span.keys.start + seen.start, span.keys.start + seen.end);
            (first..end).step_by(KEYS).map(move |start| (query, start..end.min(start + KEYS)))
        })
        .collect();
    let size = heads * (dim + 2);
    let mut parts = vec![0.0; stretches.len() * size];
    let units: Vec<Unit> = stretches
        .iter()
        .zip(parts.chunks_exact_mut(size))
        .map(|((query, keys), part)| Unit { query: *query, keys: keys.clone(), part })
        .collect();
    let multiplications = stretches.iter().map(|(_, keys)| 2 * keys.len() * heads * dim).sum();
    for_each(units, multiplications, |unit| attend(q, k, v, shape, unit));

    let mut out = vec![0.0; q.len()];
    let of_query = |query: usize| query * heads * dim..(query + 1) * heads * dim;
    let mut parts = stretches.iter().map(|(query, _)| *query).zip(parts.chunks_exact(size)).peekable();
    while let Some((query, first)) = parts.next() {
        let mut whole = first.to_vec();
        while let Some((_, part)) = parts.next_if(|(next, _)| *next == query) {
            merge(&mut whole, part, heads, dim);
        }
        let (sums, outputs) = (&whole[heads * (dim + 1)..], &whole[..heads * dim]);
        for ((out, part), sum) in out[of_query(query)].chunks_exact_mut(dim).zip(outputs.chunks_exact(dim)).zip(sums) {
            out.iter_mut().zip(part).for_each(|(out, part)| *out = part / sum);
        }
    }
    out
}

/// Adds the next stretch's part to that of the stretches before it.
fn merge(whole: &mut [f32], part: &[f32], heads: usize, dim: usize) {
    let (maxima, sums) = (heads * dim, heads * (dim + 1));
    for head in 0..heads {
        let max = whole[maxima + head].max(part[maxima + head]);
        let [old, new] = [&*whole, part].map(|x| exp(x[maxima + head] - max));
        whole[maxima + head] = max;
        whole[sums + head] = old * whole[sums + head] + new * part[sums + head];
        let of_head = head * dim..(head + 1) * dim;
        whole[of_head.clone()].iter_mut().zip(&part[of_head]).for_each(|(whole, part)| *whole = old * *whole + new * part);
    }
}

fn attend(q: &[f32], k: &[f32], v: &[f32], shape: &AttentionShape, unit: Unit) {
    let &AttentionShape { heads, kv_heads, head_dim: dim, scale, softcap, .. } = shape;
    let (n_keys, stride) = (unit.keys.len(), unit.keys.len().next_multiple_of(LANES));
    let q = &q[unit.query * heads * dim..][..heads * dim];
    let rows = unit.keys.start * kv_heads * dim..unit.keys.end * kv_heads * dim;
    let (k, v) = (&k[rows.clone()], &v[rows]);
    let (out, rest) = unit.part.split_at_mut(heads * dim);
    let (maxima, sums) = rest.split_at_mut(heads);
    with_scratch([heads * stride], |[scores]| {
        simd(
            #[inline(always)]
            || {
                for (key, k) in k.chunks_exact(kv_heads * dim).enumerate() {
                    for (head, q) in q.chunks_exact(dim).enumerate() {
                        let kv_head = head / shape.group();
                        scores[head * stride + key] = scale * dot(q, &k[kv_head * dim..][..dim]);
                    }
                }
                for (head, scores) in scores.chunks_exact_mut(stride).enumerate() {
                    if let Some(cap) = softcap {
                        scores[..n_keys].iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
                    }
                    scores[n_keys..].fill(f32::NEG_INFINITY);
                    maxima[head] = maximum(scores);
                    sums[head] = exponentials(scores, maxima[head]);
                }
                for (step, v) in v.chunks(TOGETHER * kv_heads * dim).enumerate() {
                    for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                        let p = &scores[head * stride + step * TOGETHER..][..TOGETHER];
                        let first = head / shape.group() * dim;
                        let row = |row: usize| &v[row * kv_heads * dim + first..][..dim];
                        if v.len() == TOGETHER * kv_heads * dim {
                            let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
                            for i in 0..dim {
                                out[i] += p[0] * a[i] + p[1] * b[i] + p[2] * c[i] + p[3] * d[i];
                            }
                        } else {
                            for (r, p) in p.iter().enumerate().take(v.len() / (kv_heads * dim)) {
                                out.iter_mut().zip(row(r)).for_each(|(out, v)| *out += p * v);
                            }
                        }
                    }
                }
            },
        )
    });
}
