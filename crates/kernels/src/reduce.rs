//! Sums over slices in a fixed order, so that they vectorise and yet give the same bytes everywhere.

use crate::math::simd;
use rayon::prelude::*;

/// Partial sums carried side by side: one vector of the widest kind. The compiler gives up on two.
const LANES: usize = 16;

/// The sum of all lanes, halves onto halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = lanes.len() / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        width /= 2;
    }
    lanes[0]
}

/// Σ f(x, y) over the pairs of two equally long slices. Call it inside [`simd`], with `f` marked `#[inline(always)]`.
#[inline(always)]
pub(crate) fn sum_pairs(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += f(x, y);
    }
    fold(lanes)
}

/// Σ x·y.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    sum_pairs(
        x,
        y,
        #[inline(always)]
        |x, y| x * y,
    )
}

/// Σ x.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    sum_pairs(
        x,
        x,
        #[inline(always)]
        |x, _| x,
    )
}

/// The largest element; -∞ if there is none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (x, rest) = x.as_chunks::<LANES>();
    for x in x {
        for lane in 0..LANES {
            lanes[lane] = if x[lane] > lanes[lane] { x[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `sums += Σ rows` of a row-major matrix, row after row.
pub(crate) fn add_rows(sums: &mut [f32], rows: &[f32]) {
    const COLUMNS: usize = 256;
    let width = sums.len();
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, sums)| {
        simd(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(width) {
                    sums.iter_mut().zip(&row[chunk * COLUMNS..]).for_each(|(sum, x)| *sum += x);
                }
            },
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn sums_match_f64_at_every_length() {
        for length in [0, 1, 31, 32, 33, 1000] {
            let (x, y) = (numbers(length, 1), numbers(length, 2));
            let exact: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            assert!((f64::from(dot(&x, &y)) - exact).abs() < 1e-5, "dot of length {length}");
        }
    }

    #[test]
    fn rows_are_added_to_what_is_there() {
        let (width, rows) = (300, 7);
        let matrix = numbers(rows * width, 3);
        let mut sums = vec![1.0; width];
        add_rows(&mut sums, &matrix);
        for (column, sum) in sums.iter().enumerate() {
            let exact: f64 = 1.0 + (0..rows).map(|row| f64::from(matrix[row * width + column])).sum::<f64>();
            assert!((f64::from(*sum) - exact).abs() < 1e-5, "column {column}");
        }
    }
}
