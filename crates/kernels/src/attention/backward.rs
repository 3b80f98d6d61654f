//! The gradient of attention.
//!
//! ```text
//! p = exp(s − L)     D = Σ dO∘O     dV = pᵀ·dO     dS = p∘(dO·Vᵀ − D)     dQ = scale · dS·K     dK = scale · dSᵀ·Q
//! ```
//!
//! Here L is the log-sum-exp of a row of scores. A sequence is cut into chunks, and a unit of work is one chunk of queries against one chunk
//! of keys, for all query heads of a key/value head. Units run in rounds: in round r the chunk of keys j meets the chunk of queries
//! j + r (mod the number of chunks), so that no two units of a round write the same gradient, and every sum has the same order on any number
//! of threads.
//!
//! Source: Dao, arXiv:2307.08691, Algorithm 2; the rounds are ours.

use super::block::{BLOCK, Block, pieces, row_stride, with_scratch};
use super::host::for_each;
use super::product::{Banded, Panels, Shared, View, ViewMut, Write, product};
use super::{AttentionShape, Span, row_mask};
use crate::buffer::zeros;
use crate::dropout::Mask;
use crate::math::{exp, simd};
use crate::reduce::dot;
use std::ops::Range;

/// Queries and keys of a chunk.
const CHUNK: usize = 128;

/// What the backward pass reads.
pub(super) struct Backward<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) mask: Option<Mask>,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) grad: &'a [f32],
    pub(super) log_sums: &'a [f32],
}

/// One chunk of a sequence's queries against one of its keys, for all query heads of a key/value head.
struct Unit<'a> {
    span: &'a Span,
    queries: Range<usize>,
    keys: Range<usize>,
    kv_head: usize,
}

impl Backward<'_> {
    /// The gradients of queries, keys and values.
    pub(super) fn run(&self, spans: &[Span]) -> [Vec<f32>; 3] {
        let shape = self.shape;
        let mut gradients = [self.q, self.k, self.v].map(|x| zeros(x.len()));
        let shared = gradients.each_mut().map(|gradient| Shared::new(gradient));
        let longest = spans.iter().map(|span| span.keys.len()).max().unwrap_or(0);
        for round in 0..longest.div_ceil(CHUNK) {
            let units: Vec<Unit> = spans
                .iter()
                .flat_map(|span| pieces(0..span.keys.len(), CHUNK).map(move |keys| (span, keys)))
                .filter_map(|(span, keys)| {
                    let n_chunks = span.keys.len().div_ceil(CHUNK);
                    let first = (keys.start / CHUNK + round) % n_chunks * CHUNK;
                    // There may be fewer queries than keys.
                    let queries = first..span.queries.len().min(first + CHUNK);
                    if round >= n_chunks || queries.is_empty() {
                        return None;
                    }
                    let seen = shape.seen(span, queries.clone());
                    (seen.start < keys.end && keys.start < seen.end).then_some((span, queries, keys))
                })
                .flat_map(|(span, queries, keys)| {
                    (0..shape.kv_heads).map(move |kv_head| Unit { span, queries: queries.clone(), keys: keys.clone(), kv_head })
                })
                .collect();
            let pairs: usize = units.iter().map(|unit| unit.queries.len() * unit.keys.len()).sum();
            for_each(units, 5 * pairs * shape.group() * shape.head_dim, |unit| self.unit(unit, shared));
        }
        gradients
    }

    fn unit(&self, Unit { span, queries, keys, kv_head }: Unit, [dq, dk, dv]: [Shared<'_>; 3]) {
        let &AttentionShape { head_dim, scale, .. } = self.shape;
        let (query_heads, key_heads) = (self.shape.query_heads(), self.shape.key_heads());
        let rows = |keys: &Range<usize>| span.keys.start + keys.start..span.keys.start + keys.end;
        let height = BLOCK.min(queries.len());
        let of_keys = [Panels::size(head_dim, keys.len()), Panels::size(head_dim, keys.len()), Panels::size(keys.len(), head_dim)];
        let (of_queries, scores) = (Panels::size(height, head_dim), height * row_stride(keys.len()));
        let sizes = [of_keys[0], of_keys[1], of_keys[2], of_queries, scores, scores];
        with_scratch(sizes, |[k_transposed, v_transposed, k_panels, query_panels, p, ds]| {
            let k = key_heads.view(self.k, rows(&keys), kv_head);
            let k_transposed = Panels::pack(k.transposed(), k_transposed);
            let k_panels = Panels::pack(k, k_panels);
            let v_transposed = Panels::pack(key_heads.view(self.v, rows(&keys), kv_head).transposed(), v_transposed);
            let heads = self.shape.group_of(kv_head);
            for (head, queries) in heads.flat_map(|head| pieces(queries.clone(), BLOCK).map(move |queries| (head, queries))) {
                let Some(block) = Block::new(self.shape, span, queries, keys.clone(), head) else { continue };
                let (n_queries, n_keys, width, stride) = (block.queries.len(), block.keys.len(), block.width(), block.stride());
                let first = block.keys.start - keys.start;
                let q = query_heads.view(self.q, block.queries.clone(), head);
                let grad = query_heads.view(self.grad, block.queries.clone(), head);
                let scores = |x| ViewMut::new(x, n_queries, width, stride);
                product(scores(p), Write::Set, scale, q, k_transposed.columns_from(first), block.output());
                product(scores(ds), Write::Set, 1.0, grad, v_transposed.columns_from(first), block.output());
                self.differentiate(&block, p, ds);
                let (p, ds) = (View::new(p, n_queries, n_keys, stride), View::new(ds, n_queries, n_keys, stride));
                // SAFETY: in this round no other unit has these queries or these keys of this key/value head, to which the head belongs.
                let (dq, dk, dv) = unsafe {
                    (
                        query_heads.view_mut(dq, block.queries.clone(), head),
                        key_heads.view_mut(dk, rows(&block.keys), kv_head),
                        key_heads.view_mut(dv, rows(&block.keys), kv_head),
                    )
                };
                let (by_query, by_key) = (Banded::Left(block.band), Banded::Left(block.band.transposed()));
                product(dv, Write::Add, 1.0, p.transposed(), Panels::pack(grad, query_panels), by_key);
                product(dq, Write::Add, scale, ds, k_panels.rows(first..first + n_keys), by_query);
                product(dk, Write::Add, scale, ds.transposed(), Panels::pack(q, query_panels), by_key);
            }
        })
    }

    /// From scores to probabilities after dropout, and from their gradient to that of the scores before the cap.
    fn differentiate(&self, block: &Block, p: &mut [f32], ds: &mut [f32]) {
        let &AttentionShape { heads, head_dim, softcap, .. } = self.shape;
        simd(
            #[inline(always)]
            || {
                let (width, stride) = (block.width(), block.stride());
                for row in 0..block.queries.len() {
                    let (p, ds) = (&mut p[row * stride..][..width], &mut ds[row * stride..][..width]);
                    let head = (block.queries.start + row) * heads + block.head;
                    let of_head = head * head_dim..(head + 1) * head_dim;
                    let mean = dot(&self.grad[of_head.clone()], &self.out[of_head]);
                    let log_sum = self.log_sums[head];
                    let mask = self.mask.map(|mask| row_mask(mask, block.head, block.queries.start + row));
                    let Some((start, p)) = block.seen(softcap, row, p) else {
                        ds.fill(0.0);
                        continue;
                    };
                    let end = start + p.len();
                    ds[..start].fill(0.0);
                    ds[end..].fill(0.0);
                    let ds = &mut ds[start..end];
                    if let Some(mask) = mask {
                        mask.apply(ds, block.keys.start + start);
                    }
                    match softcap {
                        None => p.iter_mut().zip(ds).for_each(|(p, ds)| {
                            *p = exp(*p - log_sum);
                            *ds = *p * (*ds - mean);
                        }),
                        Some(cap) => p.iter_mut().zip(ds).for_each(|(p, ds)| {
                            // The slope of the cap is 1 − (s / cap)²; what is hidden is at −∞ and has none.
                            let bounded = p.max(-cap) / cap;
                            *p = exp(*p - log_sum);
                            *ds = *p * (*ds - mean) * (1.0 - bounded * bounded);
                        }),
                    }
                    if let Some(mask) = mask {
                        mask.apply(p, block.keys.start + start);
                    }
                }
            },
        )
    }
}
