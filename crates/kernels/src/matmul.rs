//! Matrix products over host slices, on all cores.
//!
//! The output is cut into blocks, and one thread computes a block from beginning to end. An element is a sum over the inner axis in an order
//! that does not depend on its block: the same bytes on any number of threads.

mod few_rows;
mod transpose;

use crate::buffer::unwritten;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use transpose::transpose;

/// A matrix in a slice, as it lies or transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The row-major `[rows, columns]` matrix in `data`.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a [{rows}, {columns}] matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether neighbours in a row lie apart.
    fn is_scattered(&self) -> bool {
        self.column_stride != 1
    }

    /// Some rows and columns.
    fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let first = rows.start * self.row_stride + columns.start * self.column_stride;
        Self { data: self.data.get(first..).unwrap_or_default(), rows: rows.len(), columns: columns.len(), ..self }
    }

    /// The same matrix in `buffer`, row after row.
    ///
    /// # Panics
    /// If it is not the transpose of a dense matrix.
    fn gathered<'b>(self, buffer: &'b mut [f32]) -> Matrix<'b> {
        assert_eq!(self.row_stride, 1, "a transposed matrix");
        let buffer = &mut buffer[..self.rows * self.columns];
        transpose(buffer, self.data, [self.columns, self.rows], self.column_stride);
        Matrix::new(buffer, self.rows, self.columns)
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// Rows and columns of a block: beyond, its operands leave the caches.
const MAX_BLOCK: (usize, usize) = (1024, 768);

/// Rows or columns from which a cut still pays for packing the other operand once more, and below which gemm sums in another order.
const MIN_CUT: usize = 96;

/// Blocks per thread: few, because each packs its operands, but enough that the threads end together.
const BLOCKS_PER_THREAD: usize = 3;

/// With a side this short gemm sums in an order that depends on the block, so the cut must not depend on the number of threads.
const SHORT_SIDE: usize = 16;

/// Extent of the blocks along the long side, for outputs with a short side up to the first number.
const SHORT_SIDE_CUTS: [(usize, usize); 2] = [(8, 32), (SHORT_SIDE, 96)];

/// Inner elements of B that are gathered at a time, no more than gemm goes through in one sweep.
const DEPTH: usize = 512;

/// What it costs to prepare an element of A and of B, as it lies and scattered: gemm copies all into panels but an A whose rows are dense.
const COSTS: [[usize; 2]; 2] = [[0, 1], [1, 2]];

/// Into how many blocks the rows and the columns of the product of A and B are cut: so that preparing the operands, which each block does for
/// itself, costs least.
fn cuts(a: Matrix, b: Matrix) -> (usize, usize) {
    let (m, n) = (a.rows, b.columns);
    if let Some((_, extent)) = SHORT_SIDE_CUTS.into_iter().find(|&(side, _)| m.min(n) <= side) {
        return if m <= n { (1, (n / extent).max(1)) } else { ((m / extent).max(1), 1) };
    }
    let wanted = BLOCKS_PER_THREAD * rayon::current_num_threads();
    let [of_a, of_b] = [COSTS[0][usize::from(a.is_scattered())], COSTS[1][usize::from(b.is_scattered())]];
    let cut = |rows: usize| {
        let columns = wanted.div_ceil(rows).max(n.div_ceil(MAX_BLOCK.1)).min((n / MIN_CUT).max(1));
        let n_missing = wanted.saturating_sub(rows * columns);
        (n_missing, columns * of_a * m + rows * of_b * n, rows, columns)
    };
    let least = m.div_ceil(MAX_BLOCK.0);
    let (.., rows, columns) = (least..=(m / MIN_CUT).max(least)).map(cut).min().expect("at least one cut");
    (rows, columns)
}

/// Lets `work` use a buffer of this thread's, which holds anything.
fn with_buffer(size: usize, work: impl FnOnce(&mut [f32])) {
    thread_local!(static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0.0);
        }
        work(&mut buffer[..size]);
    });
}

/// Where piece `index` of `pieces` begins, at a multiple of the SIMD width.
fn edge(extent: usize, pieces: usize, index: usize) -> usize {
    if index == pieces { extent } else { extent * index / pieces / 16 * 16 }
}

/// A pointer that threads may share because each writes elsewhere.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: no two threads write through it to the same element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onto<'a> {
    /// Nothing: what the output holds is not read.
    Nothing,
    /// What the output holds, times a factor.
    Output(f32),
    /// One row, the same for all rows of the product.
    Row(&'a [f32]),
}

/// `out = onto + beta·A·B` for a dense row-major `out`.
pub(crate) fn multiply(out: &mut [f32], onto: Onto, beta: f32, a: Matrix, b: Matrix) {
    assert_eq!(out.len(), a.rows * b.columns, "the extents of a product's output");
    // SAFETY: `out` has an element for each of the product's.
    unsafe { multiply_at(Shared(out.as_mut_ptr()), onto, beta, a, b) }
}

/// As [`multiply`].
///
/// # Safety
/// `shared` points to room for the product's elements, which nothing else uses meanwhile; if they are added to they are initialised.
unsafe fn multiply_at(shared: Shared, onto: Onto, beta: f32, a: Matrix, b: Matrix) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "the inner extents of a product");
    if let Onto::Row(row) = onto {
        assert_eq!(row.len(), n, "the row that a product is added to");
    }
    if m * n == 0 {
        return;
    }
    if k > 0 && a.column_stride == 1 && b.row_stride == 1 && few_rows::are_few(m) {
        // SAFETY: the caller's promise.
        return unsafe { few_rows::multiply_at(shared, onto, beta, a.data, b.data, k) };
    }
    let (down, across) = cuts(a, b);
    // gemm would gather the elements of a panel one by one, for which strides that are powers of two are the worst.
    let gathers = b.is_scattered() && m.min(n) > SHORT_SIDE;
    let n_pieces = if gathers { k.div_ceil(DEPTH) } else { 1 };
    (0..down * across).into_par_iter().for_each(|index| {
        let (block_row, block_column) = (index / across, index % across);
        let rows = edge(m, down, block_row)..edge(m, down, block_row + 1);
        let columns = edge(n, across, block_column)..edge(n, across, block_column + 1);
        let mut onto = match onto {
            Onto::Nothing => 0.0,
            Onto::Output(factor) => factor,
            Onto::Row(values) => {
                for row in rows.clone() {
                    // SAFETY: as below; the block's row of the output has as many elements as its part of the values.
                    unsafe { shared.at(row * n + columns.start).copy_from_nonoverlapping(values[columns.clone()].as_ptr(), columns.len()) };
                }
                1.0
            }
        };
        with_buffer(if gathers { DEPTH.min(k) * columns.len() } else { 0 }, |buffer| {
            for piece in 0..n_pieces {
                let inner = k * piece / n_pieces..k * (piece + 1) / n_pieces;
                let left = a.part(rows.clone(), inner.clone());
                let mut right = b.part(inner, columns.clone());
                if gathers {
                    right = right.gathered(buffer);
                }
                // SAFETY: the block lies inside the output and in no other block.
                unsafe { multiply_block(shared.at(rows.start * n + columns.start), n, onto, beta, left, right) };
                onto = 1.0;
            }
        });
    });
}

/// `out = onto·out + beta·A·B` on this thread, for an output whose rows are `stride` apart; if `onto` is 0 it is not read.
///
/// # Safety
/// `out` points to room for the product's elements, which nothing else uses meanwhile.
unsafe fn multiply_block(out: *mut f32, stride: usize, onto: f32, beta: f32, a: Matrix, b: Matrix) {
    // SAFETY: the caller's promise; `Matrix` vouches for extents and strides.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out,
            1,
            stride as isize,
            onto != 0.0,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            onto,
            beta,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `beta·A·B` in a new buffer.
pub(crate) fn product(beta: f32, a: Matrix, b: Matrix) -> Vec<f32> {
    product_onto(None, beta, a, b)
}

/// `row + beta·A·B` in a new buffer.
pub(crate) fn product_onto(row: Option<&[f32]>, beta: f32, a: Matrix, b: Matrix) -> Vec<f32> {
    // SAFETY: the product reads no element and writes them all.
    let mut out = unsafe { unwritten(a.rows * b.columns) };
    multiply(&mut out, row.map_or(Onto::Nothing, Onto::Row), beta, a, b);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// `[m, n, k]`: few rows, odd extents, several blocks, an empty inner axis.
    const SHAPES: [[usize; 3]; 11] = [
        [1, 70, 37],
        [4, 33, 64],
        [7, 130, 100],
        [16, 5, 31],
        [33, 65, 17],
        [300, 140, 40],
        [513, 257, 5],
        [3, 4, 0],
        [140, 65, 70],
        [211, 577, 50],
        [17, 385, 60],
    ];

    /// A and B of a product, each either dense or the transpose of a dense matrix.
    fn operands<'a>(a: &'a [f32], b: &'a [f32], [m, n, k]: [usize; 3], a_t: bool, b_t: bool) -> (Matrix<'a>, Matrix<'a>) {
        let a = if a_t { Matrix::new(a, k, m).t() } else { Matrix::new(a, m, k) };
        let b = if b_t { Matrix::new(b, n, k).t() } else { Matrix::new(b, k, n) };
        (a, b)
    }

    /// Inner axes that gemm works through in several pieces.
    const DEEP_SHAPES: [[usize; 3]; 3] = [[211, 577, 1200], [17, 385, 1200], [1100, 97, 600]];

    fn for_every_product(shapes: impl IntoIterator<Item = [usize; 3]>, test: impl Fn([usize; 3], Matrix, Matrix)) {
        for shape @ [m, n, k] in shapes {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                let (a, b) = operands(&a, &b, shape, a_t, b_t);
                test(shape, a, b);
            }
        }
    }

    #[test]
    fn products_match_the_definition() {
        for_every_product(SHAPES, |[m, n, k], a, b| {
            let before = numbers(m * n, 3);
            let row = numbers(n, 4);
            for (onto, beta) in [(Onto::Nothing, 1.0), (Onto::Output(1.0), -0.5), (Onto::Output(0.25), 2.0), (Onto::Row(&row), 0.5)] {
                // What is not read may be anything.
                let mut out = if matches!(onto, Onto::Output(_)) { before.clone() } else { vec![f32::NAN; m * n] };
                multiply(&mut out, onto, beta, a, b);
                for i in 0..m {
                    for j in 0..n {
                        let product: f64 = (0..k)
                            .map(|l| {
                                let x = a.data[i * a.row_stride + l * a.column_stride];
                                let y = b.data[l * b.row_stride + j * b.column_stride];
                                f64::from(x) * f64::from(y)
                            })
                            .sum();
                        let first = match onto {
                            Onto::Nothing => 0.0,
                            Onto::Output(factor) => f64::from(factor) * f64::from(before[i * n + j]),
                            Onto::Row(row) => f64::from(row[j]),
                        };
                        let exact = first + f64::from(beta) * product;
                        let got = f64::from(out[i * n + j]);
                        assert!((got - exact).abs() < 1e-5 * exact.abs().max(1.0), "[{m}, {n}, {k}] at ({i}, {j}): {got}, not {exact}");
                    }
                }
            }
        });
    }

    /// The next tokens of several sequences get the bytes that each gets alone.
    #[test]
    fn a_row_of_few_does_not_depend_on_the_others() {
        let (n, k) = (130, 100);
        let (a, b) = (numbers(11 * k, 1), numbers(n * k, 2));
        let rows = |rows: std::ops::Range<usize>| {
            product(1.0, Matrix::new(&a[rows.start * k..rows.end * k], rows.len(), k), Matrix::new(&b, n, k).t())
        };
        let together = rows(0..11);
        assert!((0..11).all(|row| rows(row..row + 1) == together[row * n..(row + 1) * n]));
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        for_every_product(SHAPES.into_iter().chain(DEEP_SHAPES), |shape @ [m, n, _], a, b| {
            let on = |threads: usize| {
                let mut out = vec![0.0; m * n];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| multiply(&mut out, Onto::Nothing, 1.0, a, b));
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let expected = on(1);
            assert!([2, 4].into_iter().all(|threads| on(threads) == expected), "{shape:?}");
        });
    }
}
