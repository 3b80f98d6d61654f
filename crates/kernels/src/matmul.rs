//! Matrix products over host slices, on all cores.
//!
//! The output is cut into blocks whose size depends on nothing but the shapes, and one thread computes a block from beginning to end: the
//! same bytes on any number of threads.

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

/// Rows and columns of the output block that one thread computes: large enough to pay for packing its operands, small enough that there
/// are blocks for every core.
const BLOCK: (usize, usize) = (256, 128);

/// An output with a side this short is not worth packing operands for.
const SHORT_SIDE: usize = 64;

/// Elements of an output block up to which gemm computes dot products of unpacked operands, if their inner axes are contiguous.
const UNPACKED_BLOCK: usize = 256;

/// Rows and columns of the blocks of `A·B`, from the shapes and layouts alone.
fn block(a: Matrix, b: Matrix) -> (usize, usize) {
    let (short, inner_contiguous) = (a.rows.min(b.columns), a.column_stride == 1 && b.row_stride == 1);
    if short > SHORT_SIDE || !inner_contiguous {
        BLOCK
    } else if a.rows <= b.columns {
        (a.rows, UNPACKED_BLOCK / a.rows)
    } else {
        (UNPACKED_BLOCK / b.columns, b.columns)
    }
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
    let (block_rows, block_columns) = block(a, b);
    let across = n.div_ceil(block_columns);
    (0..m.div_ceil(block_rows) * across).into_par_iter().for_each(|index| {
        let (row, column) = (index / across * block_rows, index % across * block_columns);
        // SAFETY: the block lies inside the output and in no other block; `Matrix::new` vouches for extents and strides, and the assertions
        // above for their agreement.
        unsafe {
            gemm::gemm(
                block_rows.min(m - row),
                block_columns.min(n - column),
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
    const SHAPES: [[usize; 3]; 9] =
        [[1, 70, 37], [4, 33, 64], [7, 130, 100], [16, 5, 31], [33, 65, 17], [300, 140, 40], [513, 257, 5], [3, 4, 0], [140, 65, 70]];

    /// A and B of a product, each either dense or the transpose of a dense matrix.
    fn operands<'a>(a: &'a [f32], b: &'a [f32], [m, n, k]: [usize; 3], a_t: bool, b_t: bool) -> (Matrix<'a>, Matrix<'a>) {
        let a = if a_t { Matrix::new(a, k, m).t() } else { Matrix::new(a, m, k) };
        let b = if b_t { Matrix::new(b, n, k).t() } else { Matrix::new(b, k, n) };
        (a, b)
    }

    fn for_every_product(test: impl Fn([usize; 3], Matrix, Matrix)) {
        for shape @ [m, n, k] in SHAPES {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                let (a, b) = operands(&a, &b, shape, a_t, b_t);
                test(shape, a, b);
            }
        }
    }

    #[test]
    fn products_match_the_definition() {
        for_every_product(|[m, n, k], a, b| {
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
        for_every_product(|shape @ [m, n, _], a, b| {
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
