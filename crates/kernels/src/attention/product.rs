//! Small matrix products: the heads of packed tensors times panels that fit into a core's cache, on the calling thread.
//!
//! A general matrix library spends longer preparing such operands than multiplying them. Here one of them is copied into panels once and
//! meets many others, which are read where they lie.

use crate::math::simd;
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::ops::Range;

/// Columns of a panel, and what rows of panels and scores are padded to.
pub(super) const LANES: usize = 16;

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

    /// The elements of one row of a view that is not transposed.
    #[inline(always)]
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.column_stride, 1);
        &self.data[row * self.row_stride..][..self.columns]
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
    /// The dense row-major `[rows, columns]` matrix in `data`.
    pub(super) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_inside(data.len(), rows, columns, columns);
        Self { data: data.as_mut_ptr(), rows, columns, stride: columns, lifetime: PhantomData }
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

/// `out = scale · a · b`, or `out += scale · a · b`.
pub(super) fn product(out: ViewMut<'_>, write: Write, scale: f32, a: View<'_>, b: Panels<'_>) {
    assert!(out.rows == a.rows && a.columns == b.rows, "the shapes of a product fit together");
    pulp::Arch::new().dispatch(Product { out, write, scale, a, b });
}

struct Product<'a> {
    out: ViewMut<'a>,
    write: Write,
    scale: f32,
    a: View<'a>,
    b: Panels<'a>,
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

/// Rows of the output computed together: with a panel's columns they fit into the registers of AVX2.
const TILE: usize = 4;

impl Product<'_> {
    /// Computes tiles of some rows and one panel, whose columns are `VECTORS` vectors.
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(mut self, simd: S) {
        let mut sums = [[0.0; LANES]; TILE];
        for panel in 0..self.out.columns.div_ceil(LANES) {
            let b = &self.b.data[panel * self.b.stride..][..self.b.rows * LANES];
            for row in (0..self.out.rows).step_by(TILE) {
                let rows = TILE.min(self.out.rows - row);
                match rows {
                    1 => self.tile::<S, VECTORS, 1>(simd, row, b, &mut sums),
                    2 => self.tile::<S, VECTORS, 2>(simd, row, b, &mut sums),
                    3 => self.tile::<S, VECTORS, 3>(simd, row, b, &mut sums),
                    _ => self.tile::<S, VECTORS, TILE>(simd, row, b, &mut sums),
                }
                for (row, sums) in (row..row + rows).zip(&sums) {
                    self.store(row, panel * LANES, sums);
                }
            }
        }
    }

    /// `sums[r, :] = Σₖ a[row + r, k] · b[k, :]`, kept in registers until the end.
    #[inline(always)]
    fn tile<S: Simd, const VECTORS: usize, const ROWS: usize>(&self, simd: S, row: usize, b: &[f32], sums: &mut [[f32; LANES]; TILE]) {
        let a = self.a;
        assert!(row + ROWS <= a.rows && b.len() / LANES <= a.columns);
        let mut registers = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        let rows: [*const f32; ROWS] = std::array::from_fn(|r| a.data.as_ptr().wrapping_add((row + r) * a.row_stride));
        let mut offset = 0;
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
        for (sums, registers) in sums.iter_mut().zip(&registers) {
            S::as_mut_simd_f32s(sums).0.copy_from_slice(registers);
        }
    }

    /// Writes one row of a tile.
    #[inline(always)]
    fn store(&mut self, row: usize, column: usize, sums: &[f32; LANES]) {
        let (write, scale, columns) = (self.write, self.scale, self.out.columns);
        let out = &mut self.out.row(row)[column..columns.min(column + LANES)];
        match (write, <&mut [f32; LANES]>::try_from(&mut *out)) {
            (Write::Set, Ok(out)) => (0..LANES).for_each(|lane| out[lane] = scale * sums[lane]),
            (Write::Add, Ok(out)) => (0..LANES).for_each(|lane| out[lane] += scale * sums[lane]),
            (Write::Set, Err(_)) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = scale * sum),
            (Write::Add, Err(_)) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum),
        }
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
                product(ViewMut::new(&mut out, m, n), write, 0.5, a, Panels::pack(b, &mut panels));
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
        product(ViewMut::new(&mut out, 2, 24), Write::Set, 1.0, View::new(&a, 2, 6, 6), panels.rows(3..9).columns_from(16));
        for (row, column) in (0..2).flat_map(|row| (0..24).map(move |column| (row, column))) {
            let sum: f32 = (0..6).map(|k| a[row * 6 + k] * b[(3 + k) * 40 + 16 + column]).sum();
            approx::assert_abs_diff_eq!(out[row * 24 + column], sum, epsilon = 1e-5);
        }
    }
}
