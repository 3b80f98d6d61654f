//! Matrix products over host slices, on all cores.
//!
//! The output is cut into blocks, and one thread computes a block from beginning to end. An element is a sum over the inner axis in an order
//! that does not depend on its block: the same bytes on any number of threads.

mod few_rows;

use crate::buffer::unwritten;
use rayon::prelude::*;

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

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// Rows and columns of a block: beyond, its operands leave the caches.
const MAX_BLOCK: (usize, usize) = (512, 384);

/// Rows or columns from which a cut still pays for packing the other operand once more, and below which gemm sums in another order.
const MIN_CUT: usize = 96;

/// Blocks per thread: few, because each packs its operands, but enough that the threads end together.
const BLOCKS_PER_THREAD: usize = 3;

/// With a side this short gemm sums in an order that depends on the block, so the cut must not depend on the number of threads.
const SHORT_SIDE: usize = 16;

/// Extent of the blocks along the long side, for outputs with a short side up to the first number.
const SHORT_SIDE_CUTS: [(usize, usize); 2] = [(8, 32), (SHORT_SIDE, 96)];

/// Into how many blocks the rows and the columns of an `[m, n]` output are cut.
fn cuts(m: usize, n: usize) -> (usize, usize) {
    if let Some((_, extent)) = SHORT_SIDE_CUTS.into_iter().find(|&(side, _)| m.min(n) <= side) {
        return if m <= n { (1, (n / extent).max(1)) } else { ((m / extent).max(1), 1) };
    }
    let (mut rows, mut columns) = (m.div_ceil(MAX_BLOCK.0), n.div_ceil(MAX_BLOCK.1));
    let wanted = BLOCKS_PER_THREAD * rayon::current_num_threads();
    while rows * columns < wanted {
        if n / (columns + 1) >= MIN_CUT {
            columns += 1;
        } else if m / (rows + 1) >= MIN_CUT {
            rows += 1;
        } else {
            break;
        }
    }
    (rows, columns)
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
    let (down, across) = cuts(m, n);
    (0..down * across).into_par_iter().for_each(|index| {
        let (block_row, block_column) = (index / across, index % across);
        let (row, column) = (edge(m, down, block_row), edge(n, across, block_column));
        let (rows, columns) = (edge(m, down, block_row + 1) - row, edge(n, across, block_column + 1) - column);
        let alpha = match onto {
            Onto::Nothing => 0.0,
            Onto::Output(factor) => factor,
            Onto::Row(values) => {
                for row in row..row + rows {
                    // SAFETY: as below; the block's row of the output has as many elements as its part of the values.
                    unsafe { shared.at(row * n + column).copy_from_nonoverlapping(values[column..][..columns].as_ptr(), columns) };
                }
                1.0
            }
        };
        // SAFETY: the block lies inside the output and in no other block; `Matrix::new` vouches for extents and strides, and the assertions
        // above for their agreement.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                k,
                shared.at(row * n + column),
                1,
                n as isize,
                alpha != 0.0,
                a.data.as_ptr().wrapping_add(row * a.row_stride),
                a.column_stride as isize,
                a.row_stride as isize,
                b.data.as_ptr().wrapping_add(column * b.column_stride),
                b.column_stride as isize,
                b.row_stride as isize,
                alpha,
                beta,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
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
    const DEEP_SHAPES: [[usize; 3]; 2] = [[211, 577, 1200], [17, 385, 1200]];

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
