//! Linear layers with a low-rank adapter that has dropout, or whose rows have a length of their own.
//!
//! ```text
//! y = b + x·Wᵀ + s·(d(x)·Aᵀ)·Bᵀ                                        LoRA with dropout d
//! y = b + c ⊙ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ)            c = m / ‖W + s·B·A‖      DoRA: the length of each row of the weight is learnt apart
//! y = b + (x − d(x))·Wᵀ + c ⊙ (d(x)·Wᵀ + s·(d(x)·Aᵀ)·Bᵀ)               DoRA with dropout
//! ```
//!
//! ‖·‖: the length of each row. It counts as a constant in the gradient (Section 4.3 of the paper), so A and B learn without a dense
//! gradient of `W + s·B·A`.
//!
//! Source: DoRA, arXiv:2402.09353, Equations 5 and 11; dropout as in PEFT, where what is dropped out is the adapter's input alone.

use crate::dropout::{self, Mask};
use crate::host::{on_host, read};
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::linear::{LinearLowRank, LowRank, affine_product, assert_shapes, bias_gradient, linear, linear_low_rank, matrix, plain};
use crate::math::simd;
use crate::matmul::{Matrix, Onto, multiply, product};
use crate::random::Key;
use crate::reduce::{add_rows, sum_pairs};
use burn::backend::DispatchTensor;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// What changes a linear layer.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The update of the weight.
    pub low_rank: LowRank,
    /// The probability with which elements of the adapter's input are dropped, and its randomness.
    pub dropout: Option<(f32, Key)>,
    /// The lengths of the weight's rows, where they are learnt.
    pub dora: Option<Dora>,
}

/// The lengths of a weight's rows.
#[derive(Clone, Debug)]
pub struct Dora {
    /// m: the length each row shall have, `[out]`.
    pub magnitude: Tensor<1>,
    /// ‖W + s·B·A‖: the length each row has, `[out]`, of [`row_lengths`].
    pub lengths: Tensor<1>,
}

/// Inputs: x, weight, A, B, with DoRA magnitude and lengths, and perhaps bias.
#[derive(Debug)]
struct Adapted {
    scale: f32,
    dropout: Option<Mask>,
    is_dora: bool,
}

impl Adapted {
    /// What the adapter sees of `x`, where that is not all of it.
    fn dropped(&self, x: &[f32]) -> Option<Vec<f32>> {
        self.dropout.map(|mask| mask.of(x))
    }

    /// c, one factor for each output.
    fn factors(&self, magnitude: Operand<'_>, lengths: Operand<'_>) -> Vec<f32> {
        magnitude.data.iter().zip(lengths.data).map(|(m, length)| m / length).collect()
    }
}

/// Elements per unit of parallel work.
const CHUNK: usize = 16 * 1024;

fn zipped(x: &[f32], y: &[f32], of: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    x.par_iter().zip(y).with_min_len(CHUNK).map(|(&x, &y)| of(x, y)).collect()
}

fn minus(x: &[f32], y: &[f32]) -> Vec<f32> {
    zipped(x, y, |x, y| x - y)
}

/// Multiplies each column of the rows by its factor.
fn scale_columns(rows: &[f32], factors: &[f32]) -> Vec<f32> {
    let mut scaled = rows.to_vec();
    scaled.par_chunks_mut(factors.len()).for_each(|row| row.iter_mut().zip(factors).for_each(|(x, c)| *x *= c));
    scaled
}

impl Kernel for Adapted {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let [x, weight, a, b] = std::array::from_fn(|i| inputs[i]);
        let bias = inputs.get(if self.is_dora { 6 } else { 4 }).map(|bias| bias.data);
        let dropped = self.dropped(x.data);
        let seen = dropped.as_ref().map_or(matrix(x), |dropped| Matrix::new(dropped, x.rows(), x.width()));
        let h = product(1.0, seen, matrix(a).t());
        let add_update = |out: &mut [f32]| multiply(out, Onto::Output(1.0), self.scale, Matrix::new(&h, x.rows(), a.rows()), matrix(b).t());
        let shape = vec![x.rows(), weight.rows()];
        if !self.is_dora {
            let mut data = affine_product(matrix(x), matrix(weight), bias);
            add_update(&mut data);
            return Forward { data, shape, saved: if wanted[3] { vec![h] } else { Vec::new() } };
        }
        let mut z = product(1.0, seen, matrix(weight).t());
        add_update(&mut z);
        let mut data = scale_columns(&z, &self.factors(inputs[4], inputs[5]));
        if let Some(dropped) = &dropped {
            let rest = minus(x.data, dropped);
            multiply(&mut data, Onto::Output(1.0), 1.0, Matrix::new(&rest, x.rows(), x.width()), matrix(weight).t());
        }
        if let Some(bias) = bias {
            data.par_chunks_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        let saved = if wanted.contains(&true) { vec![h, z] } else { Vec::new() };
        Forward { data, shape, saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (wanted, dy) = (context.wanted, matrix(context.grad));
        let n_rows = dy.rows();
        let factors = self.is_dora.then(|| self.factors(context.input(4), context.input(5)));
        // The gradient of what the factors scale.
        let scaled = factors.as_ref().map(|factors| scale_columns(context.grad.data, factors));
        let dz = scaled.as_ref().map_or(dy, |scaled| Matrix::new(scaled, n_rows, context.grad.width()));
        let dropped = (wanted[1] || wanted[2]).then(|| self.dropped(context.input(0).data)).flatten();
        let seen = || dropped.as_ref().map_or(matrix(context.input(0)), |dropped| Matrix::new(dropped, n_rows, context.input(0).width()));
        // The gradient of h.
        let dh = (wanted[0] || wanted[2]).then(|| product(self.scale, dz, matrix(context.input(3))));
        let dh = dh.as_ref().map(|dh| Matrix::new(dh, n_rows, dh.len() / n_rows.max(1)));
        let of_x = || {
            let weight = matrix(context.input(1));
            let Some(mask) = self.dropout else {
                let mut gradient = product(1.0, dz, weight);
                multiply(&mut gradient, Onto::Output(1.0), 1.0, dh?, matrix(context.input(2)));
                return Some(gradient);
            };
            let mut through_mask = product(1.0, dh?, matrix(context.input(2)));
            if let Some(scaled) = &scaled {
                let difference = minus(scaled, context.grad.data);
                multiply(&mut through_mask, Onto::Output(1.0), 1.0, Matrix::new(&difference, n_rows, context.grad.width()), weight);
            }
            let mut gradient = mask.of(&through_mask);
            multiply(&mut gradient, Onto::Output(1.0), 1.0, dy, weight);
            Some(gradient)
        };
        let of_weight = || {
            let Some(dropped) = &dropped else { return product(1.0, dz.t(), matrix(context.input(0))) };
            if !self.is_dora {
                return product(1.0, dy.t(), matrix(context.input(0)));
            }
            let rest = minus(context.input(0).data, dropped);
            let mut gradient = product(1.0, dz.t(), seen());
            multiply(&mut gradient, Onto::Output(1.0), 1.0, dy.t(), Matrix::new(&rest, n_rows, context.input(0).width()));
            gradient
        };
        let of_b = || {
            let h = &context.saved[0];
            product(self.scale, dz.t(), Matrix::new(h, n_rows, h.len() / n_rows.max(1)))
        };
        let of_magnitude = || {
            let lengths = context.input(5).data;
            let mut sums = vec![0.0; lengths.len()];
            add_rows(&mut sums, &zipped(context.grad.data, &context.saved[1], |dy, z| dy * z));
            sums.iter_mut().zip(lengths).for_each(|(sum, length)| *sum /= length);
            sums
        };
        let mut gradients = vec![
            if wanted[0] { of_x() } else { None },
            wanted[1].then(of_weight),
            if wanted[2] { dh.map(|dh| product(1.0, dh.t(), seen())) } else { None },
            wanted[3].then(of_b),
        ];
        if self.is_dora {
            gradients.extend([wanted[4].then(of_magnitude), None]);
        }
        gradients.extend(wanted.get(gradients.len()).map(|wanted| wanted.then(|| bias_gradient(context.grad))));
        gradients
    }

    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool {
        match index {
            0 => wanted[1] || wanted[2],
            1 | 2 => wanted[0],
            3 => wanted[0] || wanted[2],
            4 | 5 => self.is_dora,
            _ => false,
        }
    }
}

impl Adapter {
    /// The kernel of the layer, and its inputs between the weight and the bias.
    pub(crate) fn kernel(self) -> (Box<dyn Kernel>, Vec<DispatchTensor>) {
        if self.is_plain() {
            let LowRank { a, b, scale } = self.low_rank;
            return (Box::new(LinearLowRank { scale }), vec![a.into_dispatch(), b.into_dispatch()]);
        }
        let (kernel, inputs) = self.adapted();
        (Box::new(kernel), inputs)
    }

    /// Whether [`LinearLowRank`] is all it takes.
    fn is_plain(&self) -> bool {
        self.dropout.is_none() && self.dora.is_none()
    }

    fn adapted(self) -> (Adapted, Vec<DispatchTensor>) {
        let LowRank { a, b, scale } = self.low_rank;
        let dropout = self.dropout.map(|(probability, key)| Mask::new(probability, key));
        let kernel = Adapted { scale, dropout, is_dora: self.dora.is_some() };
        let rows = self.dora.into_iter().flat_map(|dora| [dora.magnitude, dora.lengths]).map(Tensor::into_dispatch);
        (kernel, [a.into_dispatch(), b.into_dispatch()].into_iter().chain(rows).collect())
    }

    pub(crate) fn assert_shapes(&self, x: &Tensor<2>, weight: &Tensor<2>, bias: &Option<Tensor<1>>) {
        assert_shapes(x, weight, bias, Some(&self.low_rank));
        if let Some(Dora { magnitude, lengths }) = &self.dora {
            let [out, _] = weight.dims();
            assert_eq!((magnitude.dims(), lengths.dims()), ([out], [out]), "a length for each of {out} rows");
        }
    }
}

fn plain_adapted(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, adapter: Adapter) -> Tensor<2> {
    let seen = match adapter.dropout {
        Some((probability, key)) => dropout::plain(x.clone(), Mask::new(probability, key)),
        None => x.clone(),
    };
    let LowRank { a, b, scale } = adapter.low_rank;
    let update = seen.clone().matmul(a.transpose()).matmul(b.transpose()).mul_scalar(scale);
    match adapter.dora {
        Some(Dora { magnitude, lengths }) => {
            let z = plain(seen.clone(), weight.clone(), None) + update;
            plain(x - seen, weight, bias) + z * (magnitude / lengths).unsqueeze::<2>()
        }
        None => plain(x, weight, bias) + update,
    }
}

/// The linear layer `x·Wᵀ + b` as `adapter` changes it, without forming the changed weight.
///
/// # Shapes
/// `x`: `[rows, in]`; `weight`: `[out, in]`; `bias`: `[out]`; the output: `[rows, out]`.
pub fn linear_adapted(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, adapter: Option<Adapter>) -> Tensor<2> {
    let Some(adapter) = adapter else { return linear(x, weight, bias) };
    if adapter.is_plain() {
        return linear_low_rank(x, weight, bias, adapter.low_rank);
    }
    adapter.assert_shapes(&x, &weight, &bias);
    if !on_host(&x.device()) {
        return plain_adapted(x, weight, bias, adapter);
    }
    let (kernel, factors) = adapter.adapted();
    let inputs = [x, weight].into_iter().map(Tensor::into_dispatch).chain(factors);
    apply(kernel, inputs.chain(bias.map(Tensor::into_dispatch)))
}

/// Rows of the weight that are updated at once.
const BLOCK: usize = 256;

/// The length of each row of `W + s·B·A`, without forming it whole. Not differentiable: the tensors are plain ones.
///
/// # Shapes
/// `weight`: `[out, in]`; the output: `[out]`.
pub fn row_lengths(weight: Tensor<2>, low_rank: LowRank) -> Tensor<1> {
    let device = weight.device();
    let LowRank { a, b, scale } = low_rank;
    if !on_host(&device) {
        let updated = weight + b.matmul(a).mul_scalar(scale);
        return (updated.clone() * updated).sum_dim(1).sqrt().squeeze_dim(1);
    }
    let ([n_out, n_in], [rank, _]) = (weight.dims(), a.dims());
    let mut lengths = Vec::with_capacity(n_out);
    let mut block = vec![0.0; BLOCK.min(n_out) * n_in];
    read(weight, |weight| {
        read(a, |a| {
            read(b, |b| {
                for start in (0..n_out).step_by(BLOCK) {
                    let n_rows = BLOCK.min(n_out - start);
                    let updated = &mut block[..n_rows * n_in];
                    updated.copy_from_slice(&weight[start * n_in..][..n_rows * n_in]);
                    let factors = Matrix::new(&b[start * rank..][..n_rows * rank], n_rows, rank);
                    multiply(updated, Onto::Output(1.0), scale, factors, Matrix::new(a, rank, n_in));
                    let length = |row: &[f32]| {
                        simd(
                            #[inline(always)]
                            || {
                                sum_pairs(
                                    row,
                                    row,
                                    #[inline(always)]
                                    |x, y| x * y,
                                )
                            },
                        )
                        .sqrt()
                    };
                    lengths.extend(updated.chunks_exact(n_in).map(length));
                }
            })
        })
    });
    Tensor::from_data(TensorData::new(lengths, [n_out]), &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};

    const SCALE: f32 = 1.7;
    const SHAPES: [[usize; 2]; 4] = [[7, 33], [19, 33], [4, 33], [19, 4]];

    fn row(x: Tensor<2>) -> Tensor<1> {
        x.squeeze_dim(0)
    }

    /// Lengths that are not those of the weight, so that a forgotten division shows.
    fn lengths(like: &Tensor<2>) -> Tensor<1> {
        let values: Vec<f64> = (0..19).map(|row| 0.5 + 0.1 * f64::from(row)).collect();
        Tensor::from_data(TensorData::new(values, [19]), (&like.device(), like.dtype()))
    }

    #[test]
    fn dropout_matches_plain_burn() {
        let adapter = |a, b| Adapter { low_rank: LowRank { a, b, scale: SCALE }, dropout: Some((0.3, Key::new(8))), dora: None };
        assert_kernel(
            SHAPES,
            1e-5,
            |[x, w, a, b]| linear_adapted(x, w, None, Some(adapter(a, b))),
            |[x, w, a, b]| plain_adapted(x, w, None, adapter(a, b)),
        );
    }

    #[test]
    fn dora_matches_plain_burn() {
        let [x, w, a, b] = SHAPES;
        for dropout in [None, Some((0.3, Key::new(8)))] {
            let adapter = |a: Tensor<2>, b, m| {
                let dora = Dora { lengths: lengths(&a), magnitude: row(m) };
                Adapter { low_rank: LowRank { a, b, scale: SCALE }, dropout, dora: Some(dora) }
            };
            assert_kernel(
                [x, w, a, b, [1, 19], [1, 19]],
                1e-5,
                |[x, w, a, b, m, bias]| linear_adapted(x, w, Some(row(bias)), Some(adapter(a, b, m))),
                |[x, w, a, b, m, bias]| plain_adapted(x, w, Some(row(bias)), adapter(a, b, m)),
            );
            assert_kernel(
                [x, w, a, b, [1, 19]],
                1e-5,
                |[x, w, a, b, m]| linear_adapted(x, w, None, Some(adapter(a, b, m))),
                |[x, w, a, b, m]| plain_adapted(x, w, None, adapter(a, b, m)),
            );
        }
    }

    fn tensor(shape: [usize; 2], seed: u64, device: &burn::tensor::Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(numbers(shape[0] * shape[1], seed), shape), device)
    }

    /// Every choice of frozen operands: the frozen get no gradient, the others the one they get when nothing is frozen.
    #[test]
    fn frozen_operands_leave_the_other_gradients_alone() {
        let [x, w, a, b] = SHAPES;
        let shapes = [x, w, a, b, [1, 19]];
        for (device, dropout) in devices().into_iter().flat_map(|device| [(device.clone(), None), (device, Some((0.3, Key::new(8))))]) {
            let device = device.autodiff();
            let gradients = |tracked: u32| -> Vec<Option<TensorData>> {
                let leaves: [Tensor<2>; 5] =
                    std::array::from_fn(|i| tensor(shapes[i], i as u64 + 1, &device).set_require_grad(tracked >> i & 1 == 1));
                let [x, w, a, b, m] = leaves.clone();
                let dora = Dora { lengths: lengths(&a), magnitude: row(m) };
                let adapter = Adapter { low_rank: LowRank { a, b, scale: SCALE }, dropout, dora: Some(dora) };
                let y = linear_adapted(x, w, None, Some(adapter));
                let gradients = (y * tensor([7, 19], 9, &device)).sum().backward();
                leaves.iter().map(|x| x.grad(&gradients).map(Tensor::into_data)).collect()
            };
            let all = gradients(0b11111);
            for choice in 1..0b100000u32 {
                for (i, gradient) in gradients(choice).into_iter().enumerate() {
                    let expected = if choice >> i & 1 == 1 { all[i].clone() } else { None };
                    assert_eq!(gradient, expected, "input {i}, tracked {choice:05b}");
                }
            }
        }
    }

    /// With the lengths of the updated weight as magnitudes nothing changes but rounding; twice as long, twice the output.
    #[test]
    fn magnitudes_are_lengths() {
        for device in devices() {
            let [x, w, a, b] = [[9, 40], [600, 40], [4, 40], [600, 4]].map(|shape| tensor(shape, shape[0] as u64, &device));
            let low_rank = LowRank { a: a.clone(), b: b.clone(), scale: SCALE };
            let lengths = row_lengths(w.clone(), low_rank.clone());
            let updated = w.clone() + b.matmul(a).mul_scalar(SCALE);
            let expected = (updated.clone() * updated).sum_dim(1).sqrt().squeeze_dim::<1>(1);
            let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().expect("f32");
            for (found, expected) in values(lengths.clone()).iter().zip(values(expected)) {
                assert!((found - expected).abs() <= 1e-5 * expected, "{found} {expected}");
            }
            let run = |factor: f32| {
                let dora = Dora { magnitude: lengths.clone().mul_scalar(factor), lengths: lengths.clone() };
                let adapter = Adapter { low_rank: low_rank.clone(), dropout: None, dora: Some(dora) };
                values(linear_adapted(x.clone(), w.clone(), None, Some(adapter)).flatten(0, 1))
            };
            let plain = values(linear_low_rank(x.clone(), w.clone(), None, low_rank.clone()).flatten(0, 1));
            for (index, expected) in plain.iter().enumerate() {
                assert!((run(1.0)[index] - expected).abs() <= 1e-5 * expected.abs().max(1.0));
                if index == 0 {
                    assert!((run(2.0)[index] - 2.0 * expected).abs() <= 2e-5 * expected.abs().max(1.0));
                }
            }
        }
    }
}
