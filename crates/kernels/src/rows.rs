//! Moving whole rows: writing them into a tensor in place, and gathering them differentiably.

use crate::buffer::{unwritten, zeros};
use crate::host::{change, on_host, read};
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;
use std::sync::Arc;

/// Copies spans of rows from `source` into `destination`, in order: in place if nothing else holds `destination`. Not differentiable.
///
/// # Shapes
/// `destination` and the output: `[rows, width]`; `source`: `[source rows, width]`; each span: first destination row, first source row,
/// number of rows.
///
/// # Panics
/// If a span leaves either tensor or the widths differ.
pub fn write_rows(destination: Tensor<2>, source: Tensor<2>, first_rows: &[(usize, usize, usize)]) -> Tensor<2> {
    let [rows, width] = destination.dims();
    let [source_rows, source_width] = source.dims();
    assert_eq!(width, source_width, "rows are written at their full width");
    for &(to, from, count) in first_rows {
        assert!(to + count <= rows && from + count <= source_rows, "{count} rows from {from} to {to} fit into {source_rows} and {rows}");
    }
    if on_host(&destination.device()) {
        return read(source, |source| {
            change(destination, |destination| {
                for &(to, from, count) in first_rows {
                    destination[to * width..][..count * width].copy_from_slice(&source[from * width..][..count * width]);
                }
            })
        });
    }
    let spans = first_rows.iter().filter(|(_, _, count)| *count > 0);
    spans.fold(destination, |destination, &(to, from, count)| {
        destination.slice_assign([to..to + count, 0..width], source.clone().slice([from..from + count, 0..width]))
    })
}

#[derive(Debug)]
struct Take {
    rows: Arc<[u32]>,
    n_source_rows: usize,
}

/// Rows per unit of parallel work.
const CHUNK: usize = 64;

/// The given rows of a matrix in a new buffer.
pub(crate) fn gather(x: &[f32], width: usize, rows: &[u32]) -> Vec<f32> {
    // SAFETY: every element is written below.
    let mut data = unsafe { unwritten(rows.len() * width) };
    data.par_chunks_mut(width.max(1)).zip(rows).with_min_len(CHUNK).for_each(|(out, &row)| {
        out.copy_from_slice(&x[row as usize * width..][..width]);
    });
    data
}

impl Kernel for Take {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let width = inputs[0].width();
        Forward { data: gather(inputs[0].data, width, &self.rows), shape: vec![self.rows.len(), width], saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (grad, width) = (context.grad.data, context.grad.width());
        // Which output rows came from each source row, by a counting sort: it keeps their order, so every sum has one.
        let mut ends = vec![0; self.n_source_rows + 1];
        self.rows.iter().for_each(|&row| ends[row as usize + 1] += 1);
        (0..self.n_source_rows).for_each(|row| ends[row + 1] += ends[row]);
        let mut next = ends.clone();
        let mut takers = vec![0; self.rows.len()];
        for (taker, &row) in self.rows.iter().enumerate() {
            takers[next[row as usize]] = taker;
            next[row as usize] += 1;
        }
        let mut data = zeros(self.n_source_rows * width);
        data.par_chunks_mut(width.max(1)).enumerate().with_min_len(CHUNK).for_each(|(row, sum)| {
            for &taker in &takers[ends[row]..ends[row + 1]] {
                sum.iter_mut().zip(&grad[taker * width..][..width]).for_each(|(sum, g)| *sum += g);
            }
        });
        vec![Some(data)]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

pub(crate) fn plain_rows(x: Tensor<2>, rows: &[u32]) -> Tensor<2> {
    let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &x.device());
    x.select(0, indices)
}

/// The given rows of `x`, in the given order; a row may be taken more than once.
///
/// # Shapes
/// `x`: `[source rows, width]`; the output: `[rows, width]`.
///
/// # Panics
/// If a row does not exist.
pub fn take_rows(x: Tensor<2>, rows: &Arc<[u32]>) -> Tensor<2> {
    let [n_source_rows, _] = x.dims();
    assert!(rows.iter().all(|&row| (row as usize) < n_source_rows), "rows are taken from among the {n_source_rows} there are");
    if on_host(&x.device()) { apply(Take { rows: rows.clone(), n_source_rows }, [x.into_dispatch()]) } else { plain_rows(x, rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};

    #[test]
    fn gather_matches_plain_burn() {
        let rows: Arc<[u32]> = Arc::from([4, 0, 4, 4, 2, 6]);
        assert_kernel([[7, 33]], 1e-6, |[x]| take_rows(x, &rows), |[x]| plain_rows(x, &rows));
    }

    #[test]
    fn no_rows_are_a_tensor_too() {
        let x = Tensor::<2>::ones([3, 5], &devices()[0]);
        assert_eq!(take_rows(x, &Arc::from([])).dims(), [0, 5]);
    }

    #[test]
    fn rows_land_where_they_are_sent() {
        for device in devices() {
            let of = |rows: usize, seed| Tensor::<2>::from_data(TensorData::new(numbers(rows * 3, seed), [rows, 3]), &device);
            let spans = [(5, 0, 2), (0, 3, 1), (2, 2, 0)];
            let written: Vec<f32> = write_rows(of(8, 1), of(4, 2), &spans).into_data().try_to_vec().unwrap();
            let (mut expected, source) = (numbers(24, 1), numbers(12, 2));
            expected[15..21].copy_from_slice(&source[0..6]);
            expected[0..3].copy_from_slice(&source[9..12]);
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn rows_are_written_in_place() {
        let device = &devices()[0];
        let address = |x: &Tensor<2>| read(x.clone(), |x| x.as_ptr() as usize);
        let cache = Tensor::<2>::zeros([8, 3], device);
        let cache = write_rows(cache, Tensor::ones([1, 3], device), &[(0, 0, 1)]);
        let before = address(&cache);
        let cache = write_rows(cache, Tensor::ones([1, 3], device), &[(1, 0, 1)]);
        assert_eq!(address(&cache), before);
    }
}
