//! Attention over host slices, without ever holding more than a block of the probabilities.
//!
//! The forward pass keeps the output and each row's log-sum-exp; [`backward`](super::backward) computes the probabilities again. A block of
//! queries meets the keys chunk by chunk, so that scores, keys and values stay in a core's cache; with every chunk the sums of the softmax
//! are rescaled to the largest score so far.
//!
//! Source: Dao, arXiv:2307.08691, Algorithm 1.

use super::backward::Backward;
use super::block::{BLOCK, Block, exponentials, maximum, pieces, row_stride, with_scratch};
use super::product::{Banded, Heads, Panels, Shared, View, ViewMut, Write, product};
use super::{AttentionShape, Span, row_mask};
use crate::buffer::zeros;
use crate::dropout::Mask;
use crate::kernel::{Context, Forward, Kernel, Operand};
use crate::math::{exp, simd};
use rayon::prelude::*;
use std::ops::Range;

/// Queries per unit of work.
const QUERIES: usize = 256;
/// Keys that a block of queries meets at once.
const KEYS: usize = 256;

#[derive(Debug)]
pub(super) struct Attention {
    pub(super) spans: Vec<Span>,
    pub(super) shape: AttentionShape,
    pub(super) mask: Option<Mask>,
}

impl Kernel for Attention {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let [q, k, v] = [inputs[0], inputs[1], inputs[2]];
        let (data, log_sums) = forward(q.data, k.data, v.data, &self.spans, &self.shape, self.mask);
        let saved = if wanted.contains(&true) { vec![log_sums] } else { Vec::new() };
        Forward { data, shape: q.shape.to_vec(), saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let pass = Backward {
            shape: &self.shape,
            mask: self.mask,
            q: context.input(0).data,
            k: context.input(1).data,
            v: context.input(2).data,
            out: context.output().data,
            grad: context.grad.data,
            log_sums: &context.saved[0],
        };
        let gradients = pass.run(&self.spans);
        gradients.into_iter().zip(context.wanted).map(|(gradient, wanted)| wanted.then_some(gradient)).collect()
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }
}

/// Units of work below which it costs more to wake other threads than to do it all on this one, in multiplications.
const LITTLE: usize = 1 << 18;
/// Tasks that many units are grouped into.
const TASKS: usize = 128;

/// Runs `work` on every unit, in parallel if all of them together take so many multiplications that it pays.
pub(super) fn for_each<T: Sync + Send>(units: Vec<T>, multiplications: usize, work: impl Fn(T) + Sync + Send) {
    if multiplications < LITTLE {
        units.into_iter().for_each(work);
    } else {
        let per_task = units.len().div_ceil(TASKS);
        units.into_par_iter().with_max_len(per_task).for_each(work);
    }
}

/// The output `[queries, heads · head_dim]` and the log-sum-exp of each query's scores `[queries, heads]`.
pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], spans: &[Span], shape: &AttentionShape, mask: Option<Mask>) -> (Vec<f32>, Vec<f32>) {
    let mut out = zeros(q.len());
    let mut log_sums = vec![0.0; q.len() / shape.head_dim.max(1)];
    let pass = Pass { shape, mask, q, k, v, out: Shared::new(&mut out), log_sums: Shared::new(&mut log_sums) };
    let units: Vec<(&Span, Range<usize>, usize)> = spans
        .iter()
        .flat_map(|span| pieces(0..span.queries.len(), QUERIES).map(move |queries| (span, queries)))
        .flat_map(|(span, queries)| (0..shape.kv_heads).map(move |kv_head| (span, queries.clone(), kv_head)))
        .collect();
    let multiplications = spans.iter().map(|span| 2 * span.queries.len() * span.keys.len() * shape.heads * shape.head_dim).sum();
    for_each(units, multiplications, |(span, queries, kv_head)| pass.unit(span, queries, kv_head));
    (out, log_sums)
}

struct Pass<'a> {
    shape: &'a AttentionShape,
    mask: Option<Mask>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: Shared<'a>,
    log_sums: Shared<'a>,
}

impl Pass<'_> {
    /// All query heads of a key/value head for some queries of a sequence.
    fn unit(&self, span: &Span, queries: Range<usize>, kv_head: usize) {
        let shape = self.shape;
        let (query_heads, key_heads, dim) = (shape.query_heads(), shape.key_heads(), shape.head_dim);
        let seen = shape.seen(span, queries.clone());
        let (n_rows, n_keys) = (shape.group() * queries.len(), KEYS.min(seen.len()));
        let scores = BLOCK.min(queries.len()) * row_stride(n_keys);
        let sizes = [Panels::size(dim, n_keys), Panels::size(n_keys, dim), scores, n_rows, n_rows];
        with_scratch(sizes, |[k_panels, v_panels, scores, maxima, sums]| {
            maxima.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            for chunk in pieces(seen, KEYS) {
                let rows = span.keys.start + chunk.start..span.keys.start + chunk.end;
                let k = Panels::pack(key_heads.view(self.k, rows.clone(), kv_head).transposed(), k_panels);
                let v = Panels::pack(key_heads.view(self.v, rows, kv_head), v_panels);
                for (index, head) in shape.group_of(kv_head).enumerate() {
                    for queries_of_block in pieces(queries.clone(), BLOCK) {
                        let first = index * queries.len() + queries_of_block.start - queries.start;
                        let state = first..first + queries_of_block.len();
                        let Some(block) = Block::new(shape, span, queries_of_block, chunk.clone(), head) else { continue };
                        let (n_queries, width, stride) = (block.queries.len(), block.width(), block.stride());
                        let q = query_heads.view(self.q, block.queries.clone(), head);
                        let k = k.columns_from(block.keys.start - chunk.start);
                        product(ViewMut::new(scores, n_queries, width, stride), Write::Set, shape.scale, q, k, block.output());
                        // SAFETY: no other unit has these queries and this head.
                        let mut out = unsafe { query_heads.view_mut(self.out, block.queries.clone(), head) };
                        self.softmax(&block, scores, &mut maxima[state.clone()], &mut sums[state], &mut out);
                        let p = View::new(scores, n_queries, block.keys.len(), stride);
                        let v = v.rows(block.keys.start - chunk.start..block.keys.end - chunk.start);
                        product(out, Write::Add, 1.0, p, v, Banded::Left(block.band));
                    }
                }
            }
            for (index, head) in shape.group_of(kv_head).enumerate() {
                let rows = span.queries.start + queries.start..span.queries.start + queries.end;
                // SAFETY: no other unit has these queries and this head.
                let (mut out, mut log_sums) = unsafe {
                    let of_head = Heads { dim: 1, ..query_heads };
                    (query_heads.view_mut(self.out, rows.clone(), head), of_head.view_mut(self.log_sums, rows.clone(), head))
                };
                for row in 0..rows.len() {
                    let (max, sum) = (maxima[index * rows.len() + row], sums[index * rows.len() + row]);
                    let inverse = 1.0 / sum;
                    out.row(row).iter_mut().for_each(|out| *out *= inverse);
                    log_sums.row(row)[0] = max + sum.ln();
                }
            }
        })
    }

    /// Turns a block's scores into probabilities up to the sums of their rows, dropout included, and keeps the rows' largest scores, sums and
    /// outputs in step.
    fn softmax(&self, block: &Block, scores: &mut [f32], maxima: &mut [f32], sums: &mut [f32], out: &mut ViewMut<'_>) {
        simd(
            #[inline(always)]
            || {
                for (row, (all_max, all_sum)) in maxima.iter_mut().zip(sums).enumerate() {
                    let scores = &mut scores[row * block.stride()..][..block.width()];
                    let Some((start, scores)) = block.seen(self.shape.softcap, row, scores) else { continue };
                    let before = *all_max;
                    let max = maximum(scores).max(before);
                    let sum = exponentials(scores, max);
                    if max > before && before > f32::NEG_INFINITY {
                        let shrink = exp(before - max);
                        *all_sum *= shrink;
                        out.row(row).iter_mut().for_each(|out| *out *= shrink);
                    }
                    *all_max = max;
                    *all_sum += sum;
                    if let Some(mask) = self.mask {
                        row_mask(mask, block.head, block.queries.start + row).apply(scores, block.keys.start + start);
                    }
                }
            },
        )
    }
}
