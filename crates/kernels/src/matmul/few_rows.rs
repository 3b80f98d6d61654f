//! Products of a few rows with a weight, such as those of the next tokens of a few sequences: reading the weight is the work.
//!
//! An element is the dot product of two dense rows. Its sum has the same order in every product, so that a row's results do not depend on
//! the rows beside it. Weights are read where they lie, each once.

use super::{Onto, Shared};
use crate::math::arch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Whether a product of so many rows is faster here than with packed operands.
pub(super) fn are_few(rows: usize) -> bool {
    rows <= if arch().dispatch(Registers) >= MANY { 32 } else { 16 }
}

/// Vector registers of AVX-512 and NEON.
const MANY: usize = 32;

struct Registers;

impl WithSimd for Registers {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::REGISTER_COUNT
    }
}

/// Most rows of x in a tile.
const TILE: usize = 4;

/// Elements of the weight per unit of parallel work: enough to be worth a thread's while.
const UNIT: usize = 1 << 15;

/// `out = onto + beta·x·Wᵀ` for dense `x` `[m, inner]`, `weight` `[n, inner]` and `out` `[m, n]`.
///
/// # Safety
/// As `multiply_at`.
pub(super) unsafe fn multiply_at(out: Shared, onto: Onto, beta: f32, x: &[f32], weight: &[f32], inner: usize) {
    let n = weight.len() / inner;
    let n_rows = (UNIT / inner).next_multiple_of(TILE).max(TILE);
    let unit = |(index, weight): (usize, &[f32])| {
        arch().dispatch(Unit { out, onto, beta, x, weight, inner, first: index * n_rows, n });
    };
    if n <= n_rows {
        unit((0, weight));
    } else {
        weight.par_chunks(n_rows * inner).enumerate().for_each(unit);
    }
}

/// All of x with some rows of the weight.
struct Unit<'a> {
    out: Shared,
    onto: Onto<'a>,
    beta: f32,
    x: &'a [f32],
    weight: &'a [f32],
    inner: usize,
    /// The output's column of the first of these rows of the weight.
    first: usize,
    /// Columns of the output.
    n: usize,
}

impl WithSimd for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A tile's sums, one row of x and the rows of the weight fill the registers.
        if S::REGISTER_COUNT >= MANY { self.run::<S, 4>(simd) } else { self.run::<S, 2>(simd) }
    }
}

impl Unit<'_> {
    #[inline(always)]
    fn run<S: Simd, const WEIGHTS: usize>(&self, simd: S) {
        let (m, n_weights) = (self.x.len() / self.inner, self.weight.len() / self.inner);
        let whole = n_weights / WEIGHTS * WEIGHTS;
        let n_tiles = m.div_ceil(TILE);
        for weight in (0..whole).step_by(WEIGHTS) {
            for tile in 0..n_tiles {
                let rows = m * tile / n_tiles..m * (tile + 1) / n_tiles;
                match rows.len() {
                    1 => self.tile::<S, 1, WEIGHTS>(simd, rows.start, weight, tile == 0),
                    2 => self.tile::<S, 2, WEIGHTS>(simd, rows.start, weight, tile == 0),
                    3 => self.tile::<S, 3, WEIGHTS>(simd, rows.start, weight, tile == 0),
                    _ => self.tile::<S, TILE, WEIGHTS>(simd, rows.start, weight, tile == 0),
                }
            }
        }
        for (weight, row) in (whole..n_weights).flat_map(|weight| (0..m).map(move |row| (weight, row))) {
            self.tile::<S, 1, 1>(simd, row, weight, false);
        }
    }

    /// Some rows of x with some of the weight; `fetch` asks for the weight's next rows meanwhile, for which a thread would wait longer than it
    /// computes.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const WEIGHTS: usize>(&self, simd: S, row: usize, weight: usize, fetch: bool) {
        let &Self { out, onto, beta, inner, first, n, .. } = self;
        let (x, w) = (&self.x[row * inner..][..ROWS * inner], &self.weight[weight * inner..][..WEIGHTS * inner]);
        let mut sums = [[simd.splat_f32s(0.0); WEIGHTS]; ROWS];
        let n_vectors = inner / S::F32_LANES;
        let mut of_weights = [simd.splat_f32s(0.0); WEIGHTS];
        for i in 0..n_vectors {
            if fetch {
                for c in 0..WEIGHTS {
                    fetch_line(w.as_ptr().wrapping_add((WEIGHTS + c) * inner + i * S::F32_LANES));
                }
            }
            for (c, of_weight) in of_weights.iter_mut().enumerate() {
                // SAFETY: the vector lies in the row, and the row in its slice.
                *of_weight = unsafe { w.as_ptr().add(c * inner).cast::<S::f32s>().add(i).read_unaligned() };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let of_x = unsafe { x.as_ptr().add(r * inner).cast::<S::f32s>().add(i).read_unaligned() };
                for (sum, &of_weight) in sums.iter_mut().zip(&of_weights) {
                    *sum = simd.mul_add_f32s(of_x, of_weight, *sum);
                }
            }
        }
        let mut products = [[0.0; WEIGHTS]; ROWS];
        for r in 0..ROWS {
            for c in 0..WEIGHTS {
                products[r][c] = simd.reduce_sum_f32s(sums[r][c]);
            }
        }
        for r in 0..ROWS {
            for c in 0..WEIGHTS {
                let rest = n_vectors * S::F32_LANES..inner;
                let mut product = products[r][c];
                for i in rest {
                    product += x[r * inner + i] * w[c * inner + i];
                }
                product *= beta;
                let at = out.at((row + r) * n + first + weight + c);
                // SAFETY: the caller vouches for the room; no other unit has these columns.
                unsafe {
                    *at = match onto {
                        Onto::Nothing => product,
                        Onto::Output(factor) => factor * *at + product,
                        Onto::Row(row) => row[first + weight + c] + product,
                    };
                }
            }
        }
    }
}

/// Asks the second-level cache for what lies at an address, which may be any.
#[inline(always)]
fn fetch_line(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
