//! Matrix products over host slices, on all cores.
//!
//! The output is cut into blocks, and one thread computes a block from beginning to end. An element is a sum over the inner axis in an order
//! that does not depend on its block: the same bytes on any number of threads.

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

/// `out = alpha·out + beta·A·B` for a dense row-major `out`; with `alpha` 0 its former content is not read.
pub(crate) fn multiply(out: &mut [f32], alpha: f32, beta: f32, a: Matrix, b: Matrix) {
    assert_eq!(out.len(), a.rows * b.columns, "the extents of a product's output");
    // SAFETY: `out` has an element for each of the product's.
    unsafe { multiply_at(Shared(out.as_mut_ptr()), alpha, beta, a, b) }
}

/// As [`multiply`].
///
/// # Safety
/// `shared` points to room for the product's elements, which nothing else uses meanwhile; unless `alpha` is 0 they are initialised.
unsafe fn multiply_at(shared: Shared, alpha: f32, beta: f32, a: Matrix, b: Matrix) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "the inner extents of a product");
    if m * n == 0 {
        return;
    }
    let (down, across) = cuts(m, n);
    (0..down * across).into_par_iter().for_each(|index| {
        let (block_row, block_column) = (index / across, index % across);
        let (row, column) = (edge(m, down, block_row), edge(n, across, block_column));
        // SAFETY: the block lies inside the output and in no other block; `Matrix::new` vouches for extents and strides, and the assertions
        // above for their agreement.
        unsafe {
            gemm::gemm(
                edge(m, down, block_row + 1) - row,
                edge(n, across, block_column + 1) - column,
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

/// `beta·A·B` in a new buffer, which is written only once.
pub(crate) fn product(beta: f32, a: Matrix, b: Matrix) -> Vec<f32> {
    let mut out = Vec::with_capacity(a.rows * b.columns);
    // SAFETY: there is room for every element, and the product, which reads none, writes them all.
    unsafe {
        multiply_at(Shared(out.as_mut_ptr()), 0.0, beta, a, b);
        out.set_len(a.rows * b.columns);
    }
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
            for (alpha, beta) in [(0.0, 1.0), (1.0, -0.5), (0.25, 2.0)] {
                // What alpha = 0 hides may be anything.
                let mut out = if alpha == 0.0 { vec![f32::NAN; m * n] } else { before.clone() };
                multiply(&mut out, alpha, beta, a, b);
                for i in 0..m {
                    for j in 0..n {
                        let product: f64 = (0..k)
                            .map(|l| {
                                let x = a.data[i * a.row_stride + l * a.column_stride];
                                let y = b.data[l * b.row_stride + j * b.column_stride];
                                f64::from(x) * f64::from(y)
                            })
                            .sum();
                        let exact = f64::from(alpha) * f64::from(before[i * n + j]) + f64::from(beta) * product;
                        let got = f64::from(out[i * n + j]);
                        assert!((got - exact).abs() < 1e-5 * exact.abs().max(1.0), "[{m}, {n}, {k}] at ({i}, {j}): {got}, not {exact}");
                    }
                }
            }
        });
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        for_every_product(SHAPES.into_iter().chain(DEEP_SHAPES), |shape @ [m, n, _], a, b| {
            let on = |threads: usize| {
                let mut out = vec![0.0; m * n];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| multiply(&mut out, 0.0, 1.0, a, b));
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let expected = on(1);
            assert!([2, 4].into_iter().all(|threads| on(threads) == expected), "{shape:?}");
        });
    }
}
