//! Pooling: one vector for each sequence.

use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::math::simd;
use crate::reduce::{add_rows, dot};
use crate::rows::take_rows;
use crate::segments::Segments;
use burn::tensor::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// What stands for a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of its tokens.
    Mean,
    /// The largest of its tokens in each column; the first of equals takes the gradient.
    Max,
    /// Its first token.
    Cls,
    /// Its last token.
    Last,
}

impl Pooling {
    /// The token of each sequence that stands for it, where it is one.
    ///
    /// # Panics
    /// If a sequence is empty.
    pub fn rows(self, segments: &Segments) -> Option<Arc<[u32]>> {
        assert_not_empty(segments);
        match self {
            Self::Cls => Some(segments.ranges().map(|tokens| tokens.start as u32).collect()),
            Self::Last => Some(segments.ranges().map(|tokens| tokens.end as u32 - 1).collect()),
            Self::Mean | Self::Max => None,
        }
    }
}

fn assert_not_empty(segments: &Segments) {
    assert!(segments.ranges().all(|tokens| !tokens.is_empty()), "an empty sequence has nothing to pool");
}

#[derive(Debug)]
struct Mean {
    segments: Segments,
}

impl Kernel for Mean {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let (x, width) = (inputs[0].data, inputs[0].width());
        let mut data = vec![0.0; self.segments.len() * width];
        data.par_chunks_mut(width).enumerate().for_each(|(index, mean)| {
            let tokens = self.segments.range(index);
            add_rows(mean, &x[tokens.start * width..tokens.end * width]);
            mean.iter_mut().for_each(|mean| *mean /= tokens.len() as f32);
        });
        Forward { data, shape: vec![self.segments.len(), width], saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (grad, width) = (context.grad.data, context.grad.width());
        let mut data = Vec::with_capacity(self.segments.n_tokens() * width);
        for (tokens, grad) in self.segments.ranges().zip(grad.chunks_exact(width)) {
            let share: Vec<f32> = grad.iter().map(|grad| grad / tokens.len() as f32).collect();
            tokens.for_each(|_| data.extend_from_slice(&share));
        }
        vec![Some(data)]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

#[derive(Debug)]
struct Max {
    segments: Segments,
}

impl Kernel for Max {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let (x, width) = (inputs[0].data, inputs[0].width());
        let mut data = vec![0.0; self.segments.len() * width];
        data.par_chunks_mut(width).enumerate().for_each(|(index, max)| {
            let tokens = self.segments.range(index);
            max.copy_from_slice(&x[tokens.start * width..][..width]);
            for row in x[tokens.start * width..tokens.end * width].chunks_exact(width).skip(1) {
                max.iter_mut().zip(row).for_each(|(max, &x)| *max = if x > *max { x } else { *max });
            }
        });
        Forward { data, shape: vec![self.segments.len(), width], saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (x, grad, width) = (context.input(0).data, context.grad.data, context.grad.width());
        let mut data = vec![0.0; x.len()];
        for ((tokens, grad), max) in self.segments.ranges().zip(grad.chunks_exact(width)).zip(context.output().data.chunks_exact(width)) {
            let elements = tokens.start * width..tokens.end * width;
            let (x, data) = (&x[elements.clone()], &mut data[elements]);
            for (column, (largest, grad)) in max.iter().zip(grad).enumerate() {
                // None if the largest is not a number.
                if let Some(first) = x.iter().skip(column).step_by(width).position(|x| x == largest) {
                    data[first * width + column] = *grad;
                }
            }
        }
        vec![Some(data)]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }
}

fn plain_max(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let [_, width] = x.dims();
    Tensor::cat(segments.ranges().map(|tokens| x.clone().slice([tokens, 0..width]).max_dim(0)).collect(), 0)
}

fn plain_mean(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let [_, width] = x.dims();
    Tensor::cat(segments.ranges().map(|tokens| x.clone().slice([tokens, 0..width]).mean_dim(0)).collect(), 0)
}

/// One row for each sequence.
///
/// # Shapes
/// `x`: `[tokens, width]`; the output: `[sequences, width]`.
///
/// # Panics
/// If a sequence is empty.
pub fn pool(x: Tensor<2>, segments: &Segments, kind: Pooling) -> Tensor<2> {
    assert_eq!(x.dims()[0], segments.n_tokens(), "the segments cover the tokens");
    if let Some(rows) = kind.rows(segments) {
        return take_rows(x, &rows);
    }
    let largest = kind == Pooling::Max;
    match on_host(&x.device()) {
        true if largest => apply(Max { segments: segments.clone() }, [x.into_dispatch()]),
        true => apply(Mean { segments: segments.clone() }, [x.into_dispatch()]),
        false if largest => plain_max(x, segments),
        false => plain_mean(x, segments),
    }
}

/// Norms below this count as this, so that a row of zeros stays one.
const SMALLEST_NORM: f32 = 1e-12;

/// Rows per unit of parallel work.
const ROWS: usize = 32;

#[derive(Debug)]
struct Normalize;

impl Kernel for Normalize {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let x = inputs[0];
        let width = x.width();
        let mut data = vec![0.0; x.data.len()];
        data.par_chunks_mut(width).zip(x.data.par_chunks(width)).with_min_len(ROWS).for_each(|(out, x)| {
            simd(
                #[inline(always)]
                || {
                    let norm = dot(x, x).sqrt().max(SMALLEST_NORM);
                    out.iter_mut().zip(x).for_each(|(out, x)| *out = x / norm);
                },
            )
        });
        Forward { data, shape: x.shape.to_vec(), saved: Vec::new() }
    }

    /// With `y = x / ‖x‖`: `dx = (dy − y·(y·dy)) / ‖x‖`; below the smallest norm the divisor is constant.
    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (x, grad) = (context.input(0), context.grad.data);
        let width = x.width();
        let mut data = vec![0.0; x.data.len()];
        let rows = data.par_chunks_mut(width).zip(x.data.par_chunks(width)).zip(grad.par_chunks(width));
        rows.with_min_len(ROWS).for_each(|((dx, x), dy)| {
            simd(
                #[inline(always)]
                || {
                    let norm = dot(x, x).sqrt().max(SMALLEST_NORM);
                    let along = if norm > SMALLEST_NORM { dot(x, dy) / norm / norm } else { 0.0 };
                    dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = (dy - x * along) / norm);
                },
            )
        });
        vec![Some(data)]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }
}

fn plain_normalize(x: Tensor<2>) -> Tensor<2> {
    let norm = (x.clone() * x.clone()).sum_dim(1).sqrt();
    x / norm.clamp_min(SMALLEST_NORM)
}

/// Divides each row by its Euclidean length: `x / max(‖x‖, 1e-12)`.
///
/// # Shapes
/// `x` and the output: `[rows, width]`.
pub fn normalize_l2(x: Tensor<2>) -> Tensor<2> {
    if on_host(&x.device()) { apply(Normalize, [x.into_dispatch()]) } else { plain_normalize(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::TensorData;

    #[test]
    fn mean_matches_plain_burn() {
        let segments = Segments::from_lengths([3, 1, 7]);
        assert_kernel([[11, 33]], 1e-5, |[x]| pool(x, &segments, Pooling::Mean), |[x]| plain_mean(x, &segments));
    }

    #[test]
    fn max_matches_plain_burn() {
        let segments = Segments::from_lengths([3, 1, 7]);
        assert_kernel([[11, 33]], 1e-6, |[x]| pool(x, &segments, Pooling::Max), |[x]| plain_max(x, &segments));
    }

    #[test]
    fn the_ends_are_the_first_and_last_tokens() {
        let segments = Segments::from_lengths([3, 1, 7]);
        for device in devices() {
            let x = Tensor::<2>::from_data(TensorData::new(numbers(11 * 2, 1), [11, 2]), &device);
            for (kind, rows) in [(Pooling::Cls, [0, 3, 4]), (Pooling::Last, [2, 3, 10])] {
                let expected: Vec<Tensor<2>> = rows.map(|row| x.clone().slice([row..row + 1, 0..2])).into();
                pool(x.clone(), &segments, kind).into_data().assert_eq(&Tensor::cat(expected, 0).into_data(), true);
            }
        }
    }

    #[test]
    #[should_panic(expected = "an empty sequence has nothing to pool")]
    fn empty_sequences_are_refused() {
        pool(Tensor::ones([3, 2], &devices()[0]), &Segments::from_lengths([3, 0]), Pooling::Last);
    }

    #[test]
    fn normalize_matches_plain_burn() {
        assert_kernel([[9, 37]], 1e-5, |[x]| normalize_l2(x), |[x]| plain_normalize(x));
    }

    #[test]
    fn rows_get_length_one_and_zeros_stay_zeros() {
        for device in devices() {
            let x = Tensor::<2>::from_data(TensorData::new(numbers(4 * 50, 1), [4, 50]), &device.clone().autodiff()) * 7.0;
            let squares = normalize_l2(x).powi_scalar(2).sum_dim(1).inner().into_data();
            squares.assert_approx_eq::<f32>(&TensorData::from([[1.0f32]; 4]), Default::default());

            let zeros = Tensor::<2>::zeros([1, 50], &device.autodiff()).require_grad();
            let y = normalize_l2(zeros.clone());
            let gradient = zeros.grad(&y.clone().sum().backward()).expect("a gradient").into_data();
            assert!(y.into_data().iter::<f32>().all(|y| y == 0.0));
            assert!(gradient.iter::<f32>().all(f32::is_finite));
        }
    }
}
