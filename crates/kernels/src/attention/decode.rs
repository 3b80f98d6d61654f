//! Attention of a few new tokens per sequence to long caches: reading the cache is the work.
//!
//! A unit of work reads a stretch of a sequence's cache once, row after row, for all heads and new tokens. The parts of the softmax that
//! several stretches give are put together in the stretches' order.

use super::block::{exponentials, maximum, with_scratch};
use super::host::for_each;
use super::product::LANES;
use super::{AttentionShape, Span};
use crate::math::{arch, exp, simd, tanh};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// New tokens of a sequence up to which this is faster than copying its keys and values into panels.
pub(super) const FEW: usize = 4;
/// Keys of a stretch.
const KEYS: usize = 128;
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
    let (out, rest) = unit.part.split_at_mut(heads * dim);
    let (maxima, sums) = rest.split_at_mut(heads);
    with_scratch([heads * stride], |[scores]| {
        arch().dispatch(Score { q, k: &k[rows.clone()], scores, shape, stride });
        simd(
            #[inline(always)]
            || {
                for (head, scores) in scores.chunks_exact_mut(stride).enumerate() {
                    scores.iter_mut().for_each(|s| *s *= scale);
                    if let Some(cap) = softcap {
                        scores.iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
                    }
                    scores[n_keys..].fill(f32::NEG_INFINITY);
                    maxima[head] = maximum(scores);
                    sums[head] = exponentials(scores, maxima[head]);
                }
            },
        );
        arch().dispatch(Mix { p: scores, v: &v[rows], out, shape, stride });
    });
}

/// The products of all heads' queries `[heads, head_dim]` with some rows of keys, to `[heads, stride]`.
struct Score<'a> {
    q: &'a [f32],
    k: &'a [f32],
    scores: &'a mut [f32],
    shape: &'a AttentionShape,
    stride: usize,
}

impl WithSimd for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let &AttentionShape { kv_heads, head_dim: dim, .. } = self.shape;
        let group = self.shape.group();
        for (key, k) in self.k.chunks_exact(kv_heads * dim).enumerate() {
            for (kv_head, k) in k.chunks_exact(dim).enumerate() {
                let (k, k_rest) = S::as_simd_f32s(k);
                for head in kv_head * group..(kv_head + 1) * group {
                    let (q, q_rest) = S::as_simd_f32s(&self.q[head * dim..][..dim]);
                    // Two sums, because a multiplication cannot wait for the one before it.
                    let mut sums = [simd.splat_f32s(0.0); 2];
                    let (pairs, last) = (q.chunks_exact(2).zip(k.chunks_exact(2)), q.len() / 2 * 2);
                    for (q, k) in pairs {
                        sums[0] = simd.mul_add_f32s(q[0], k[0], sums[0]);
                        sums[1] = simd.mul_add_f32s(q[1], k[1], sums[1]);
                    }
                    for (&q, &k) in q[last..].iter().zip(&k[last..]) {
                        sums[0] = simd.mul_add_f32s(q, k, sums[0]);
                    }
                    let rest: f32 = q_rest.iter().zip(k_rest).map(|(q, k)| q * k).sum();
                    self.scores[head * self.stride + key] = simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1])) + rest;
                }
            }
        }
    }
}

/// Adds some rows of values, weighted by each head's `[heads, stride]` factors, to the heads' outputs `[heads, head_dim]`.
struct Mix<'a> {
    p: &'a [f32],
    v: &'a [f32],
    out: &'a mut [f32],
    shape: &'a AttentionShape,
    stride: usize,
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let &AttentionShape { kv_heads, head_dim: dim, .. } = self.shape;
        let (width, group) = (kv_heads * dim, self.shape.group());
        let whole = self.v.len() / width / TOGETHER * TOGETHER;
        for key in (0..whole).step_by(TOGETHER) {
            let v = &self.v[key * width..][..TOGETHER * width];
            for (head, out) in self.out.chunks_exact_mut(dim).enumerate() {
                let p = &self.p[head * self.stride + key..][..TOGETHER];
                let rows: [_; TOGETHER] = std::array::from_fn(|row| S::as_simd_f32s(&v[row * width + head / group * dim..][..dim]));
                let factors: [_; TOGETHER] = std::array::from_fn(|row| simd.splat_f32s(p[row]));
                let (out, out_rest) = S::as_mut_simd_f32s(out);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = (0..TOGETHER).fold(*out, |sum, row| simd.mul_add_f32s(factors[row], rows[row].0[i], sum));
                }
                for (i, out) in out_rest.iter_mut().enumerate() {
                    *out += (0..TOGETHER).map(|row| p[row] * rows[row].1[i]).sum::<f32>();
                }
            }
        }
        for (key, v) in self.v.chunks_exact(width).enumerate().skip(whole) {
            for (head, out) in self.out.chunks_exact_mut(dim).enumerate() {
                let p = self.p[head * self.stride + key];
                out.iter_mut().zip(&v[head / group * dim..]).for_each(|(out, v)| *out += p * v);
            }
        }
    }
}
