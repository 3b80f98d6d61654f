//! Copies of matrices with rows and columns exchanged, for products whose inner kernel would gather their elements one by one.

#[cfg(target_arch = "x86_64")]
use {crate::math::arch, pulp::Arch};

/// Writes the transpose of `from`, `rows` rows of `columns` elements, each `stride` after the one before, to `out`, whose rows are dense.
pub(super) fn transpose(out: &mut [f32], from: &[f32], [rows, columns]: [usize; 2], stride: usize) {
    assert!(out.len() == rows * columns && (out.is_empty() || (columns <= stride && (rows - 1) * stride + columns <= from.len())));
    #[cfg(target_arch = "x86_64")]
    if !matches!(arch(), Arch::Scalar) {
        // SAFETY: AVX2 is there, and the assertion vouches for the extents.
        return unsafe { avx2::transpose(out, from, [rows, columns], stride) };
    }
    exchange(out, from, [rows, columns], stride, [0, 0]);
}

/// What lies below or right of the element `[first row, first column]`, element by element.
fn exchange(out: &mut [f32], from: &[f32], [rows, columns]: [usize; 2], stride: usize, [first_row, first_column]: [usize; 2]) {
    for column in 0..columns {
        for row in if column < first_column { first_row } else { 0 }..rows {
            out[column * rows + row] = from[row * stride + column];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    /// Rows and columns of a block that the registers hold.
    const SIDE: usize = 8;
    /// Columns that all rows copy before the next: with the output's part they stay in the first-level cache.
    const STRIP: usize = 16;

    /// As `super::transpose`.
    ///
    /// # Safety
    /// AVX2 is there, and both slices hold what the extents say.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose(out: &mut [f32], from: &[f32], [rows, columns]: [usize; 2], stride: usize) {
        let whole = [rows / SIDE * SIDE, columns / SIDE * SIDE];
        for strip in (0..whole[1]).step_by(STRIP) {
            for row in (0..whole[0]).step_by(SIDE) {
                for column in (strip..whole[1].min(strip + STRIP)).step_by(SIDE) {
                    // SAFETY: the block lies in both matrices.
                    unsafe {
                        let (from, out) = (from.as_ptr().add(row * stride + column), out.as_mut_ptr().add(column * rows + row));
                        block(out, rows, from, stride);
                    }
                }
            }
        }
        super::exchange(out, from, [rows, columns], stride, whole);
    }

    /// One block.
    ///
    /// # Safety
    /// As above.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn block(out: *mut f32, out_stride: usize, from: *const f32, stride: usize) {
        let mut rows = [_mm256_setzero_ps(); SIDE];
        for (index, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *row = unsafe { _mm256_loadu_ps(from.add(index * stride)) };
        }
        // Neighbouring rows element by element, then pairs, then halves.
        let mut pairs = rows;
        for i in 0..SIDE / 2 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in 0..SIDE / 4 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            fours[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            fours[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            fours[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for i in 0..SIDE / 2 {
            let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
            // SAFETY: the caller's promise.
            unsafe {
                _mm256_storeu_ps(out.add(i * out_stride), low);
                _mm256_storeu_ps(out.add((i + 4) * out_stride), high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn rows_become_columns() {
        for (rows, columns, stride) in [(1, 1, 1), (8, 8, 8), (16, 40, 43), (13, 21, 21), (64, 7, 9), (5, 64, 64), (0, 5, 5), (17, 16, 16)]
        {
            let from = numbers(rows * stride, 1);
            let mut out = vec![f32::NAN; rows * columns];
            transpose(&mut out, &from, [rows, columns], stride);
            let mut by_element = vec![f32::NAN; rows * columns];
            exchange(&mut by_element, &from, [rows, columns], stride, [0, 0]);
            assert_eq!(out, by_element, "{rows} rows of {columns}");
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                assert_eq!(out[column * rows + row], from[row * stride + column]);
            }
        }
    }
}
