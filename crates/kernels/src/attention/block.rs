//! A block of queries of one head against a chunk of keys: which keys are seen, and what both passes do with rows of scores.

use super::product::{Band, Banded, Heads, LANES};
use super::{AttentionShape, Span};
use crate::math::{exp, tanh};
use std::cell::RefCell;
use std::ops::Range;

/// Queries whose scores are computed together.
pub(super) const BLOCK: usize = 64;

/// A block of queries of one head and the keys of a chunk that any of them sees.
pub(super) struct Block {
    /// Rows of the packed tensors.
    pub(super) queries: Range<usize>,
    /// Keys, numbered within the sequence; the first is a multiple of [`LANES`].
    pub(super) keys: Range<usize>,
    pub(super) head: usize,
    /// Which of the keys each query sees.
    pub(super) band: Band,
}

impl Block {
    /// Some queries and a chunk of the keys, both numbered within the sequence, the first key a multiple of [`LANES`]. `None` if no query
    /// sees any of the keys.
    pub(super) fn new(shape: &AttentionShape, span: &Span, queries: Range<usize>, chunk: Range<usize>, head: usize) -> Option<Self> {
        let seen = shape.seen(span, queries.clone());
        let keys = seen.start.max(chunk.start)..seen.end.min(chunk.end);
        let band = shape.band().cut(span.offset() + queries.start, keys.start);
        let queries = span.queries.start + queries.start..span.queries.start + queries.end;
        (!keys.is_empty()).then_some(Self { queries, keys, head, band })
    }

    /// Elements of a row of scores: whole panels.
    pub(super) fn width(&self) -> usize {
        self.keys.len().next_multiple_of(LANES)
    }

    /// Elements from one row of scores to the next.
    pub(super) fn stride(&self) -> usize {
        row_stride(self.keys.len())
    }

    /// What a product knows about the block's scores when it computes them.
    pub(super) fn output(&self) -> Banded {
        Banded::Output(self.band)
    }

    /// The part of a row of scores that its query sees, rounded to whole lanes and bounded by the soft cap, and where in the row it begins.
    /// What the query does not see of it becomes -∞, and the rest of the row 0. `None` if the query sees nothing.
    #[inline(always)]
    pub(super) fn seen<'a>(&self, softcap: Option<f32>, row: usize, scores: &'a mut [f32]) -> Option<(usize, &'a mut [f32])> {
        let seen = self.band.columns(row..row + 1, self.keys.len());
        if seen.is_empty() {
            scores.fill(0.0);
            return None;
        }
        let (start, end) = (seen.start / LANES * LANES, seen.end.next_multiple_of(LANES));
        scores[..start].fill(0.0);
        scores[end..].fill(0.0);
        if let Some(cap) = softcap {
            scores[start..end].iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
        }
        scores[start..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..end].fill(f32::NEG_INFINITY);
        Some((start, &mut scores[start..end]))
    }
}

/// Elements from one row of scores to the next for so many keys: an odd number of cache lines, so that a column spreads over the whole cache.
pub(super) fn row_stride(n_keys: usize) -> usize {
    (n_keys.div_ceil(LANES) | 1) * LANES
}

impl AttentionShape {
    pub(super) fn query_heads(&self) -> Heads {
        Heads { count: self.heads, dim: self.head_dim }
    }

    pub(super) fn key_heads(&self) -> Heads {
        Heads { count: self.kv_heads, dim: self.head_dim }
    }

    /// The query heads of a key/value head.
    pub(super) fn group_of(&self, kv_head: usize) -> Range<usize> {
        kv_head * self.group()..(kv_head + 1) * self.group()
    }

    /// The keys that any of the queries sees, all numbered within the sequence, from a multiple of [`LANES`] on.
    pub(super) fn seen(&self, span: &Span, queries: Range<usize>) -> Range<usize> {
        let seen = self.band().columns(span.offset() + queries.start..span.offset() + queries.end, span.keys.len());
        seen.start / LANES * LANES..seen.end
    }
}

/// The pieces of a range between the multiples of `size`.
pub(super) fn pieces(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    (range.start / size..range.end.div_ceil(size)).map(move |i| range.start.max(i * size)..range.end.min((i + 1) * size))
}

/// Combines the lanes of a row of whole lanes in a fixed order.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Unlike `f32::max` one instruction: nobody compares with NaN here.
#[inline(always)]
fn larger(x: f32, y: f32) -> f32 {
    if x > y { x } else { y }
}

/// The largest element of a row of whole lanes.
#[inline(always)]
pub(super) fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in row.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    fold(lanes, larger)
}

/// Replaces each score by e^(score − shift) and returns their sum, over a row of whole lanes.
#[inline(always)]
pub(super) fn exponentials(row: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for chunk in row.as_chunks_mut::<LANES>().0 {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            lanes[lane] += chunk[lane];
        }
    }
    fold(
        lanes,
        #[inline(always)]
        |x, y| x + y,
    )
}

/// Floats between the ends of neighbouring buffers of scratch memory: without them, buffers whose sizes are powers of two compete for the
/// same places in the cache.
const GAP: usize = 9 * LANES;

/// Lets `work` use buffers of the given sizes in this thread's scratch memory. They hold any finite values.
pub(super) fn with_scratch<const N: usize>(sizes: [usize; N], work: impl FnOnce([&mut [f32]; N])) {
    thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    SCRATCH.with_borrow_mut(|scratch| {
        let sizes = sizes.map(|size| size.next_multiple_of(LANES));
        let total = LANES + sizes.iter().map(|size| size + GAP).sum::<usize>();
        if scratch.len() < total {
            scratch.resize(total, 0.0);
        }
        let aligned = scratch.as_ptr().align_offset(LANES * size_of::<f32>());
        let mut rest = &mut scratch[aligned..];
        work(sizes.map(|size| &mut rest.split_off_mut(..size + GAP).expect("the scratch memory holds all buffers")[..size]));
    });
}
