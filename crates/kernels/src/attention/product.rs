//! Small matrix products: the heads of packed tensors times panels that fit into a core's cache, on the calling thread.
//!
//! A general matrix library spends longer preparing such operands than multiplying them. Here one of them is copied into panels once and
//! meets many others, which are read where they lie.

use crate::math::{arch, simd};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::ops::Range;

/// Columns of a panel, and what rows of panels and scores are padded to.
pub(super) const LANES: usize = 16;

/// A diagonal band of a matrix: row i has the columns j with `first <= j − i < end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) first: isize,
    pub(super) end: isize,
}

impl Band {
    /// Farther from the diagonal than any matrix reaches, and far from overflowing.
    pub(super) const FAR: isize = isize::MAX / 4;
    /// Every column of every row.
    pub(super) const ALL: Self = Self { first: -Self::FAR, end: Self::FAR };

    /// The band of the transposed matrix.
    pub(super) fn transposed(self) -> Self {
        Self { first: 1 - self.end, end: 1 - self.first }
    }

    /// The band in a matrix without the first `rows` rows and the first `columns` columns.
    pub(super) fn cut(self, rows: usize, columns: usize) -> Self {
        let shift = rows as isize - columns as isize;
        Self { first: self.first + shift, end: self.end + shift }
    }

    /// The columns, of `count`, that any of the rows has.
    #[inline(always)]
    pub(super) fn columns(self, rows: Range<usize>, count: usize) -> Range<usize> {
        let start = (rows.start as isize + self.first).clamp(0, count as isize);
        let end = (rows.end as isize - 1 + self.end).clamp(start, count as isize);
        start as usize..end as usize
    }
}

/// How a packed tensor `[tokens, count · dim]` divides into heads.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) count: usize,
    pub(super) dim: usize,
}

impl Heads {
    fn first(self, rows: &Range<usize>, head: usize) -> usize {
        assert!(head < self.count);
        (rows.start * self.count + head) * self.dim
    }

    /// Some rows of one head, `[rows, dim]`.
    pub(super) fn view(self, x: &[f32], rows: Range<usize>, head: usize) -> View<'_> {
        View::new(&x[self.first(&rows, head)..], rows.len(), self.dim, self.count * self.dim)
    }

    /// As [`Heads::view`].
    ///
    /// # Safety
    /// While the view lives, nothing else reads or writes its elements.
    pub(super) unsafe fn view_mut<'a>(self, x: Shared<'a>, rows: Range<usize>, head: usize) -> ViewMut<'a> {
        let (first, stride) = (self.first(&rows, head), self.count * self.dim);
        assert!(first <= x.length);
        assert_inside(x.length - first, rows.len(), self.dim, stride);
        // SAFETY: `first` is within the slice, or one past its end.
        ViewMut { data: unsafe { x.data.add(first) }, rows: rows.len(), columns: self.dim, stride, lifetime: PhantomData }
    }
}

fn assert_inside(length: usize, rows: usize, columns: usize, stride: usize) {
    assert!(rows == 0 || columns == 0 || (columns <= stride && (rows - 1) * stride + columns <= length), "a view lies inside its slice");
}

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows` rows of `columns` neighbouring elements, `stride` apart, from the start of `data`.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(data.len(), rows, columns, stride);
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// A matrix that a product may write.
pub(super) struct ViewMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> ViewMut<'a> {
    /// `rows` rows of `columns` neighbouring elements, `stride` apart, from the start of `data`.
    pub(super) fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(data.len(), rows, columns, stride);
        Self { data: data.as_mut_ptr(), rows, columns, stride, lifetime: PhantomData }
    }

    /// The elements of one row.
    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the view was checked to lie inside its slice, and it is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.columns) }
    }
}

/// A slice of which several threads write different elements.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    data: *mut f32,
    length: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives this value; whoever writes through it promises in `Heads::view_mut` that
// no other thread touches the same elements.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `data` among threads.
    pub(super) fn new(data: &'a mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), length: data.len(), lifetime: PhantomData }
    }
}

/// The right factor of a product: panels of [`LANES`] columns, one after the other, each row after row.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    data: &'a [f32],
    rows: usize,
    /// From one panel to the next.
    stride: usize,
}

impl<'a> Panels<'a> {
    /// Numbers that [`Panels::pack`] wants for a matrix of this size.
    pub(super) fn size(rows: usize, columns: usize) -> usize {
        rows * columns.next_multiple_of(LANES)
    }

    /// Copies `x` to the beginning of `out`, padded with zeros to whole panels.
    pub(super) fn pack(x: View<'_>, out: &'a mut [f32]) -> Self {
        let out = &mut out[..Self::size(x.rows, x.columns)];
        simd(
            #[inline(always)]
            || {
                for (panel, out) in out.chunks_exact_mut((x.rows * LANES).max(1)).enumerate() {
                    let first = panel * LANES;
                    let count = LANES.min(x.columns - first);
                    let (rows, _) = out.as_chunks_mut::<LANES>();
                    if x.column_stride == 1 {
                        for (row, lanes) in rows.iter_mut().enumerate() {
                            let from = &x.data[row * x.row_stride + first..][..count];
                            match from.try_into() {
                                Ok(full) => *lanes = full,
                                Err(_) => {
                                    lanes[..count].copy_from_slice(from);
                                    lanes[count..].fill(0.0);
                                }
                            }
                        }
                    } else {
                        for lane in 0..count {
                            let from = &x.data[(first + lane) * x.column_stride..][..x.rows];
                            rows.iter_mut().zip(from).for_each(|(lanes, &x)| lanes[lane] = x);
                        }
                        for lane in count..LANES {
                            rows.iter_mut().for_each(|lanes| lanes[lane] = 0.0);
                        }
                    }
                }
            },
        );
        Self { data: out, rows: x.rows, stride: x.rows * LANES }
    }

    /// Some of the rows.
    pub(super) fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows);
        Self { data: &self.data[rows.start * LANES..], rows: rows.len(), ..self }
    }

    /// The columns from `first` on, a multiple of [`LANES`].
    pub(super) fn columns_from(self, first: usize) -> Self {
        assert_eq!(first % LANES, 0);
        Self { data: &self.data[first / LANES * self.stride..], ..self }
    }
}

/// Whether a product replaces what it writes to, or adds to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// Replace.
    Set,
    /// Add.
    Add,
}

/// Which matrix of a product is known to be zero, or not wanted, outside a band.
#[derive(Clone, Copy)]
pub(super) enum Banded {
    /// The left factor is zero outside: what would be multiplied by it is skipped.
    Left(Band),
    /// Nobody reads the output outside: parts of it are not written.
    Output(Band),
}

/// `out = scale · a · b`, or `out += scale · a · b`.
pub(super) fn product(out: ViewMut<'_>, write: Write, scale: f32, a: View<'_>, b: Panels<'_>, banded: Banded) {
    assert!(out.rows == a.rows && a.columns == b.rows, "the shapes of a product fit together");
    arch().dispatch(Product { out, write, scale, a, b, banded });
}

struct Product<'a> {
    out: ViewMut<'a>,
    write: Write,
    scale: f32,
    a: View<'a>,
    b: Panels<'a>,
    banded: Banded,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1>(simd),
            8 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, LANES>(simd),
        }
    }
}

/// Most rows of the output computed together: with a panel's columns they fill the registers of AVX2.
const TILE: usize = 6;
/// The same where a panel's columns are one vector, of which there are 32: fewer would wait for the panel and for each other.
const TALL_TILE: usize = 12;

impl Product<'_> {
    /// Computes tiles of some rows and one panel, whose columns are `VECTORS` vectors.
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(mut self, simd: S) {
        let (n_rows, n_inner) = (self.out.rows, self.a.columns);
        let is_tall = VECTORS == 1 && S::REGISTER_COUNT >= 32;
        let n_tiles = n_rows.div_ceil(if is_tall { TALL_TILE } else { TILE });
        for first in (0..self.out.columns).step_by(LANES) {
            for tile in 0..n_tiles {
                // Tiles of nearly the same height: low ones leave the multipliers waiting.
                let rows = n_rows * tile / n_tiles..n_rows * (tile + 1) / n_tiles;
                let inner = match self.banded {
                    Banded::Left(band) => band.columns(rows.clone(), n_inner),
                    Banded::Output(band) => {
                        let wanted = band.columns(rows.clone(), self.out.columns);
                        if wanted.end <= first || first + LANES <= wanted.start {
                            continue;
                        }
                        0..n_inner
                    }
                };
                match rows.len() {
                    1 => self.tile::<S, VECTORS, 1>(simd, rows.start, first, inner),
                    2 => self.tile::<S, VECTORS, 2>(simd, rows.start, first, inner),
                    3 => self.tile::<S, VECTORS, 3>(simd, rows.start, first, inner),
                    4 => self.tile::<S, VECTORS, 4>(simd, rows.start, first, inner),
                    5 => self.tile::<S, VECTORS, 5>(simd, rows.start, first, inner),
                    6 => self.tile::<S, VECTORS, TILE>(simd, rows.start, first, inner),
                    7 if is_tall => self.tile::<S, VECTORS, 7>(simd, rows.start, first, inner),
                    8 if is_tall => self.tile::<S, VECTORS, 8>(simd, rows.start, first, inner),
                    9 if is_tall => self.tile::<S, VECTORS, 9>(simd, rows.start, first, inner),
                    10 if is_tall => self.tile::<S, VECTORS, 10>(simd, rows.start, first, inner),
                    11 if is_tall => self.tile::<S, VECTORS, 11>(simd, rows.start, first, inner),
                    12 if is_tall => self.tile::<S, VECTORS, TALL_TILE>(simd, rows.start, first, inner),
                    _ => unreachable!("a tile is no higher than the highest"),
                }
            }
        }
    }

    /// `Σₖ a[row + r, k] · b[k, first..]` over the `inner` k, kept in registers until the end.
    #[inline(always)]
    fn tile<S: Simd, const VECTORS: usize, const ROWS: usize>(&mut self, simd: S, row: usize, first: usize, inner: Range<usize>) {
        let a = self.a;
        assert!(row + ROWS <= a.rows && inner.end <= a.columns);
        let b = &self.b.data[first / LANES * self.b.stride..][inner.start * LANES..inner.end * LANES];
        let mut registers = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        let rows: [*const f32; ROWS] = std::array::from_fn(|r| a.data.as_ptr().wrapping_add((row + r) * a.row_stride));
        let mut offset = inner.start * a.column_stride;
        for b in S::as_simd_f32s(b).0.chunks_exact(VECTORS) {
            for r in 0..ROWS {
                // SAFETY: the row and the column were checked to be within the view, which lies inside its slice.
                let a = simd.splat_f32s(unsafe { *rows[r].wrapping_add(offset) });
                for v in 0..VECTORS {
                    registers[r][v] = simd.mul_add_f32s(a, b[v], registers[r][v]);
                }
            }
            offset += a.column_stride;
        }
        let (write, scale, end) = (self.write, simd.splat_f32s(self.scale), self.out.columns.min(first + LANES));
        for (r, registers) in registers.iter().enumerate() {
            let out = &mut self.out.row(row + r)[first..end];
            match <&mut [f32; LANES]>::try_from(&mut *out) {
                Ok(out) => store(simd, out, write, scale, registers),
                Err(_) => {
                    let mut whole = [0.0; LANES];
                    whole[..out.len()].copy_from_slice(out);
                    store(simd, &mut whole, write, scale, registers);
                    out.copy_from_slice(&whole[..out.len()]);
                }
            }
        }
    }
}

/// Writes one row of a tile.
#[inline(always)]
fn store<S: Simd, const VECTORS: usize>(simd: S, out: &mut [f32; LANES], write: Write, scale: S::f32s, sums: &[S::f32s; VECTORS]) {
    for (out, &sums) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
        *out = match write {
            Write::Set => simd.mul_f32s(scale, sums),
            Write::Add => simd.mul_add_f32s(scale, sums, *out),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn products_match_the_definition() {
        for (m, n, k) in [(1, 16, 3), (2, 5, 8), (3, 33, 1), (4, 16, 16), (7, 40, 20), (23, 32, 23)] {
            let (a, b, before) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
            for (a_transposed, b_transposed, write) in [(false, false, Write::Set), (true, false, Write::Add), (false, true, Write::Add)] {
                let view = |x, rows, columns, transposed| match transposed {
                    false => View::new(x, rows, columns, columns),
                    true => View::new(x, columns, rows, rows).transposed(),
                };
                let (a, b) = (view(&a, m, k, a_transposed), view(&b, k, n, b_transposed));
                let mut panels = vec![f32::NAN; Panels::size(k, n)];
                let mut out = before.clone();
                product(ViewMut::new(&mut out, m, n, n), write, 0.5, a, Panels::pack(b, &mut panels), Banded::Left(Band::ALL));
                for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                    let at = |x: View, row, column| x.data[row * x.row_stride + column * x.column_stride];
                    let sum: f32 = (0..k).map(|k| at(a, row, k) * at(b, k, column)).sum();
                    let former = if write == Write::Add { before[row * n + column] } else { 0.0 };
                    approx::assert_abs_diff_eq!(out[row * n + column], former + 0.5 * sum, epsilon = 1e-5);
                }
            }
        }
    }

    #[test]
    fn parts_of_panels_are_parts_of_the_matrix() {
        let (a, b) = (numbers(2 * 6, 1), numbers(10 * 40, 2));
        let mut panels = vec![0.0; Panels::size(10, 40)];
        let panels = Panels::pack(View::new(&b, 10, 40, 40), &mut panels);
        let mut out = vec![0.0; 2 * 24];
        let panels = panels.rows(3..9).columns_from(16);
        product(ViewMut::new(&mut out, 2, 24, 24), Write::Set, 1.0, View::new(&a, 2, 6, 6), panels, Banded::Left(Band::ALL));
        for (row, column) in (0..2).flat_map(|row| (0..24).map(move |column| (row, column))) {
            let sum: f32 = (0..6).map(|k| a[row * 6 + k] * b[(3 + k) * 40 + 16 + column]).sum();
            approx::assert_abs_diff_eq!(out[row * 24 + column], sum, epsilon = 1e-5);
        }
    }

    /// A band of the left factor, or of the output, gives what the whole matrices give, where it is wanted.
    #[test]
    fn bands_leave_out_only_what_is_zero_or_unwanted() {
        let (m, n, k) = (29, 40, 37);
        let b = numbers(k * n, 2);
        let mut panels = vec![0.0; Panels::size(k, n)];
        let panels = Panels::pack(View::new(&b, k, n, n), &mut panels);
        for band in
            [Band { first: -Band::FAR, end: 1 }, Band { first: -3, end: 9 }, Band { first: 5, end: 30 }, Band { first: 50, end: 60 }]
        {
            let mut a = numbers(m * k, 1);
            let run = |a: &[f32], banded| {
                let mut out = vec![0.0; m * n];
                product(ViewMut::new(&mut out, m, n, n), Write::Set, 1.0, View::new(a, m, k, k), panels, banded);
                out
            };
            let (all, part) = (run(&a, Banded::Left(Band::ALL)), run(&a, Banded::Output(band)));
            for row in 0..m {
                for column in band.columns(row..row + 1, n) {
                    assert_eq!(part[row * n + column], all[row * n + column], "{band:?} at ({row}, {column})");
                }
                let kept = band.columns(row..row + 1, k);
                (0..k).filter(|column| !kept.contains(column)).for_each(|column| a[row * k + column] = 0.0);
                let transposed = band.transposed();
                (0..k).for_each(|column| assert_eq!(kept.contains(&column), transposed.columns(column..column + 1, m).contains(&row)));
            }
            assert_eq!(run(&a, Banded::Left(band)), run(&a, Banded::Left(Band::ALL)), "{band:?}");
        }
    }
}
