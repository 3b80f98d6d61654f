//! Attention over host slices, without ever holding more than a block of the probabilities.
//!
//! The forward pass keeps the output and each row's log-sum-exp L; the backward pass computes the probabilities again:
//!
//! ```text
//! p = exp(s − L)     D = Σ dO∘O     dV = pᵀ·dO     dS = p∘(dO·Vᵀ − D)     dQ = scale · dS·K     dK = scale · dSᵀ·Q
//! ```
//!
//! Source: Dao, arXiv:2307.08691, Algorithms 1 and 2. Unlike there, a block of queries meets all its keys at once: rows of scores fit into
//! a CPU's cache, and the softmax needs no running rescaling. One unit of work holds all query heads of a key/value head, so that no two
//! threads write the same element and no sum depends on the number of threads.

use super::product::{Heads, LANES, Panels, Shared, View, ViewMut, Write, product};
use super::{AttentionShape, Span, row_mask};
use crate::dropout::Mask;
use crate::kernel::{Context, Forward, Kernel, Operand};
use crate::math::{exp, simd, tanh};
use crate::reduce::dot;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Queries whose scores are computed together.
const BLOCK: usize = 64;
/// Queries per unit of work of the forward pass.
const UNIT: usize = 256;
/// From so many queries on it pays to copy keys and values into panels first.
const MIN_PACKED: usize = 8;

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

/// Lets `work` use buffers of the given sizes in this thread's scratch memory. They hold any values.
fn with_scratch<const N: usize>(sizes: [usize; N], work: impl FnOnce([&mut [f32]; N])) {
    thread_local!(static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
    let mut scratch = SCRATCH.take();
    let total = sizes.iter().sum();
    if scratch.len() < total {
        scratch.resize(total, 0.0);
    }
    let mut rest = &mut scratch[..];
    work(sizes.map(|size| rest.split_off_mut(..size).expect("the scratch memory holds all buffers")));
    SCRATCH.set(scratch);
}

/// A block of queries of one head and the keys any of them sees.
struct Block {
    /// Rows of the packed tensors.
    queries: Range<usize>,
    /// Position of the first query among the sequence's keys.
    position: usize,
    /// Keys, numbered within the sequence; the first is a multiple of [`LANES`].
    keys: Range<usize>,
    /// The sequence's keys, as rows of the packed tensors.
    key_span: Range<usize>,
    head: usize,
}

impl Block {
    fn new(shape: &AttentionShape, span: &Span, queries: Range<usize>, head: usize) -> Self {
        let position = span.offset() + queries.start;
        let first = shape.visible(position, span.keys.len()).start / LANES * LANES;
        let end = shape.visible(position + queries.len() - 1, span.keys.len()).end;
        let queries = span.queries.start + queries.start..span.queries.start + queries.end;
        Self { queries, position, keys: first..end, key_span: span.keys.clone(), head }
    }

    /// The keys, as rows of the packed tensors.
    fn key_rows(&self) -> Range<usize> {
        self.key_span.start + self.keys.start..self.key_span.start + self.keys.end
    }

    /// Elements per row of scores: padded, so that loops over them need no remainder.
    fn width(&self) -> usize {
        self.keys.len().next_multiple_of(LANES)
    }

    /// Hides what query `row` of the block does not see, and bounds the rest.
    #[inline(always)]
    fn finish_scores(&self, shape: &AttentionShape, row: usize, scores: &mut [f32]) {
        if let Some(cap) = shape.softcap {
            scores.iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
        }
        let visible = shape.visible(self.position + row, self.key_span.len());
        scores[..visible.start - self.keys.start].fill(f32::NEG_INFINITY);
        scores[visible.end - self.keys.start..].fill(f32::NEG_INFINITY);
    }
}

/// The blocks of some queries of a sequence.
fn blocks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    queries.clone().step_by(BLOCK).map(move |first| first..queries.end.min(first + BLOCK))
}

/// Combines all elements of a padded row in a fixed order.
#[inline(always)]
fn fold(row: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, _) = row.as_chunks::<LANES>();
    let mut lanes = chunks[0];
    for chunk in &chunks[1..] {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], chunk[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

impl AttentionShape {
    fn query_heads(&self) -> Heads {
        Heads { count: self.heads, dim: self.head_dim }
    }

    fn key_heads(&self) -> Heads {
        Heads { count: self.kv_heads, dim: self.head_dim }
    }

    /// The query heads of a key/value head.
    fn group_of(&self, kv_head: usize) -> Range<usize> {
        let group = self.heads / self.kv_heads;
        kv_head * group..(kv_head + 1) * group
    }
}

/// The output `[queries, heads · head_dim]` and the log-sum-exp of each query's scores `[queries, heads]`.
pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], spans: &[Span], shape: &AttentionShape, mask: Option<Mask>) -> (Vec<f32>, Vec<f32>) {
    let (query_heads, key_heads, head_dim) = (shape.query_heads(), shape.key_heads(), shape.head_dim);
    let mut out = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; q.len() / head_dim];
    let (shared_out, shared_log_sums) = (Shared::new(&mut out), Shared::new(&mut log_sums));
    let units: Vec<(&Span, Range<usize>, usize)> = spans
        .iter()
        .flat_map(|span| (0..span.queries.len()).step_by(UNIT).map(move |first| (span, first..span.queries.len().min(first + UNIT))))
        .flat_map(|(span, queries)| (0..shape.kv_heads).map(move |kv_head| (span, queries.clone(), kv_head)))
        .collect();
    units.into_par_iter().with_max_len(1).for_each(|(span, queries, kv_head)| {
        let n_keys = span.keys.len();
        let (height, padded) = (BLOCK.min(queries.len()), n_keys.next_multiple_of(LANES));
        let is_packed = queries.len() >= MIN_PACKED;
        let sizes = if is_packed { [Panels::size(head_dim, n_keys), Panels::size(n_keys, head_dim)] } else { [0, 0] };
        with_scratch([sizes[0], sizes[1], height * padded, height], |[k_panels, v_panels, scores, log_sums]| {
            let (k, v) = (key_heads.view(k, span.keys.clone(), kv_head), key_heads.view(v, span.keys.clone(), kv_head));
            let panels = is_packed.then(|| (Panels::pack(k.transposed(), k_panels), Panels::pack(v, v_panels)));
            for (queries, head) in blocks(queries).flat_map(|queries| shape.group_of(kv_head).map(move |head| (queries.clone(), head))) {
                let block = Block::new(shape, span, queries, head);
                let n_queries = block.queries.len();
                let (scores, log_sums) = (&mut scores[..n_queries * block.width()], &mut log_sums[..n_queries]);
                let q = query_heads.view(q, block.queries.clone(), head);
                // SAFETY: no other unit has these queries and this head.
                let (mut out, mut log_sums_out) = unsafe {
                    let of_head = Heads { dim: 1, ..query_heads };
                    let log_sums_out = of_head.view_mut(shared_log_sums, block.queries.clone(), head);
                    (query_heads.view_mut(shared_out, block.queries.clone(), head), log_sums_out)
                };
                if let Some((k, v)) = panels {
                    let scores_out = ViewMut::new(scores, n_queries, block.width());
                    product(scores_out, Write::Set, shape.scale, q, k.columns_from(block.keys.start));
                    softmax(&block, shape, mask, scores, log_sums);
                    let p = View::new(scores, n_queries, block.keys.len(), block.width());
                    product(out, Write::Set, 1.0, p, v.rows(block.keys.clone()));
                } else {
                    score_each(&block, shape.scale, q, k, scores);
                    softmax(&block, shape, mask, scores, log_sums);
                    mix_each(&block, scores, v, &mut out);
                }
                log_sums.iter().enumerate().for_each(|(row, &log_sum)| log_sums_out.row(row)[0] = log_sum);
            }
        })
    });
    (out, log_sums)
}

/// The scores of few queries, key by key.
fn score_each(block: &Block, scale: f32, q: View<'_>, k: View<'_>, scores: &mut [f32]) {
    simd(
        #[inline(always)]
        || {
            for (row, scores) in scores.chunks_exact_mut(block.width()).enumerate() {
                for (key, score) in block.keys.clone().zip(scores) {
                    *score = scale * dot(q.row(row), k.row(key));
                }
            }
        },
    )
}

/// The outputs of few queries, key by key.
fn mix_each(block: &Block, p: &[f32], v: View<'_>, out: &mut ViewMut<'_>) {
    simd(
        #[inline(always)]
        || {
            for (row, p) in p.chunks_exact(block.width()).enumerate() {
                let out = out.row(row);
                for (key, p) in block.keys.clone().zip(p) {
                    out.iter_mut().zip(v.row(key)).for_each(|(out, v)| *out += p * v);
                }
            }
        },
    )
}

/// Turns a block's scores into probabilities, dropout included, and stores each row's log-sum-exp.
fn softmax(block: &Block, shape: &AttentionShape, mask: Option<Mask>, scores: &mut [f32], log_sums: &mut [f32]) {
    simd(
        #[inline(always)]
        || {
            for (row, (scores, log_sum)) in scores.chunks_exact_mut(block.width()).zip(log_sums).enumerate() {
                block.finish_scores(shape, row, scores);
                let max = fold(
                    scores,
                    #[inline(always)]
                    |x, y| if x > y { x } else { y },
                );
                scores.iter_mut().for_each(|s| *s = exp(*s - max));
                let sum = fold(
                    scores,
                    #[inline(always)]
                    |x, y| x + y,
                );
                let inverse = 1.0 / sum;
                scores.iter_mut().for_each(|s| *s *= inverse);
                if let Some(mask) = mask {
                    row_mask(mask, block.head, block.queries.start + row).apply(scores, block.keys.start);
                }
                *log_sum = max + sum.ln();
            }
        },
    )
}

/// What the backward pass reads.
struct Backward<'a> {
    shape: &'a AttentionShape,
    mask: Option<Mask>,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    grad: &'a [f32],
    log_sums: &'a [f32],
}

impl Backward<'_> {
    /// The gradients of queries, keys and values.
    fn run(&self, spans: &[Span]) -> [Vec<f32>; 3] {
        let &AttentionShape { kv_heads, head_dim, scale, .. } = self.shape;
        let (query_heads, key_heads) = (self.shape.query_heads(), self.shape.key_heads());
        let mut gradients = [vec![0.0; self.q.len()], vec![0.0; self.k.len()], vec![0.0; self.v.len()]];
        let [dq, dk, dv] = gradients.each_mut().map(|gradient| Shared::new(gradient));
        let spans = spans.iter().filter(|span| !span.keys.is_empty());
        let units: Vec<(&Span, usize)> = spans.flat_map(|span| (0..kv_heads).map(move |kv_head| (span, kv_head))).collect();
        units.into_par_iter().with_max_len(1).for_each(|(span, kv_head)| {
            let n_keys = span.keys.len();
            let (height, padded) = (BLOCK.min(n_keys), n_keys.next_multiple_of(LANES));
            let of_keys = [Panels::size(head_dim, n_keys), Panels::size(head_dim, n_keys), Panels::size(n_keys, head_dim)];
            let of_queries = Panels::size(height, head_dim);
            let sizes = [of_keys[0], of_keys[1], of_keys[2], of_queries, of_queries, height * padded, height * padded];
            with_scratch(sizes, |[k_transposed, v_transposed, k_panels, q_panels, grad_panels, p, ds]| {
                let k = key_heads.view(self.k, span.keys.clone(), kv_head);
                let k_transposed = Panels::pack(k.transposed(), k_transposed);
                let k_panels = Panels::pack(k, k_panels);
                let v = key_heads.view(self.v, span.keys.clone(), kv_head);
                let v_transposed = Panels::pack(v.transposed(), v_transposed);
                for (queries, head) in
                    blocks(0..n_keys).flat_map(|queries| self.shape.group_of(kv_head).map(move |head| (queries.clone(), head)))
                {
                    let block = Block::new(self.shape, span, queries, head);
                    let (n_queries, n_keys, row) = (block.queries.len(), block.keys.len(), block.width());
                    let (p, ds) = (&mut p[..n_queries * row], &mut ds[..n_queries * row]);
                    let q = query_heads.view(self.q, block.queries.clone(), head);
                    let grad = query_heads.view(self.grad, block.queries.clone(), head);
                    product(ViewMut::new(p, n_queries, row), Write::Set, scale, q, k_transposed.columns_from(block.keys.start));
                    product(ViewMut::new(ds, n_queries, row), Write::Set, 1.0, grad, v_transposed.columns_from(block.keys.start));
                    self.differentiate(&block, p, ds);
                    let (p, ds) = (View::new(p, n_queries, n_keys, row), View::new(ds, n_queries, n_keys, row));
                    // SAFETY: no other unit has this sequence and this key/value head, to which this head belongs.
                    let (dq, dk, dv) = unsafe {
                        (
                            query_heads.view_mut(dq, block.queries.clone(), head),
                            key_heads.view_mut(dk, block.key_rows(), kv_head),
                            key_heads.view_mut(dv, block.key_rows(), kv_head),
                        )
                    };
                    product(dv, Write::Add, 1.0, p.transposed(), Panels::pack(grad, grad_panels));
                    product(dq, Write::Set, scale, ds, k_panels.rows(block.keys.clone()));
                    product(dk, Write::Add, scale, ds.transposed(), Panels::pack(q, q_panels));
                }
            })
        });
        gradients
    }

    /// From scores to probabilities after dropout, and from their gradient to that of the scores before the cap.
    fn differentiate(&self, block: &Block, p: &mut [f32], ds: &mut [f32]) {
        let &AttentionShape { heads, head_dim, softcap, .. } = self.shape;
        simd(
            #[inline(always)]
            || {
                for (row, (p, ds)) in p.chunks_exact_mut(block.width()).zip(ds.chunks_exact_mut(block.width())).enumerate() {
                    let head = (block.queries.start + row) * heads + block.head;
                    let of_head = head * head_dim..(head + 1) * head_dim;
                    let mean = dot(&self.grad[of_head.clone()], &self.out[of_head]);
                    let log_sum = self.log_sums[head];
                    let mask = self.mask.map(|mask| row_mask(mask, block.head, block.queries.start + row));
                    block.finish_scores(self.shape, row, p);
                    if let Some(mask) = mask {
                        mask.apply(ds, block.keys.start);
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
                        mask.apply(p, block.keys.start);
                    }
                }
            },
        )
    }
}
