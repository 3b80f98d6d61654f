//! Linear layers, with an optional low-rank adapter.
//!
//! ```text
//! y = x·Wᵀ + b                       linear
//! y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ         with a low-rank adapter
//! ```
//!
//! Weights are `[out, in]`, as Hugging Face stores them. A frozen weight gets no gradient, and its input is not kept for one.
//!
//! Source: LoRA, arXiv:2106.09685, Equation 3.

use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::matmul::{Matrix, Onto, multiply, product, product_onto};
use crate::reduce::add_rows;
use burn::tensor::Tensor;

/// A low-rank update of a linear layer's weight: `s·B·A`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// A, `[rank, in]`.
    pub a: Tensor<2>,
    /// B, `[out, rank]`.
    pub b: Tensor<2>,
    /// s; alpha / rank in the paper.
    pub scale: f32,
}

pub(crate) fn matrix(operand: Operand<'_>) -> Matrix<'_> {
    Matrix::new(operand.data, operand.rows(), operand.width())
}

/// `out = x·Wᵀ + b`.
pub(crate) fn affine(out: &mut [f32], x: Matrix, weight: Matrix, bias: Option<&[f32]>) {
    multiply(out, bias.map_or(Onto::Nothing, Onto::Row), 1.0, x, weight.t());
}

/// `x·Wᵀ + b` in a new buffer.
pub(crate) fn affine_product(x: Matrix, weight: Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    product_onto(bias, 1.0, x, weight.t())
}

/// Gradient of the bias: the sum of the rows of the output's gradient.
pub(crate) fn bias_gradient(grad: Operand) -> Vec<f32> {
    let mut sums = vec![0.0; grad.width()];
    add_rows(&mut sums, grad.data);
    sums
}

/// Inputs: x, weight and perhaps bias.
#[derive(Debug)]
pub(crate) struct Linear;

impl Kernel for Linear {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let (x, weight) = (inputs[0], inputs[1]);
        let data = affine_product(matrix(x), matrix(weight), inputs.get(2).map(|bias| bias.data));
        Forward { data, shape: vec![x.rows(), weight.rows()], saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (wanted, dy) = (context.wanted, matrix(context.grad));
        let mut gradients = vec![
            wanted[0].then(|| product(1.0, dy, matrix(context.input(1)))),
            wanted[1].then(|| product(1.0, dy.t(), matrix(context.input(0)))),
        ];
        gradients.extend(wanted.get(2).map(|wanted| wanted.then(|| bias_gradient(context.grad))));
        gradients
    }

    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool {
        match index {
            0 => wanted[1],
            1 => wanted[0],
            _ => false,
        }
    }
}

/// Inputs: x, weight, A, B and perhaps bias.
#[derive(Debug)]
pub(crate) struct LinearLowRank {
    pub(crate) scale: f32,
}

impl Kernel for LinearLowRank {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let [x, weight, a, b] = std::array::from_fn(|i| inputs[i]);
        let mut data = affine_product(matrix(x), matrix(weight), inputs.get(4).map(|bias| bias.data));
        let h = product(1.0, matrix(x), matrix(a).t());
        multiply(&mut data, Onto::Output(1.0), self.scale, Matrix::new(&h, x.rows(), a.rows()), matrix(b).t());
        Forward { data, shape: vec![x.rows(), weight.rows()], saved: if wanted[3] { vec![h] } else { Vec::new() } }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (wanted, dy) = (context.wanted, matrix(context.grad));
        // The gradient of h = x·Aᵀ.
        let dh = (wanted[0] || wanted[2]).then(|| product(self.scale, dy, matrix(context.input(3))));
        let dh = dh.as_ref().map(|dh| Matrix::new(dh, dy.rows(), dh.len() / dy.rows().max(1)));
        let of_x = || {
            let mut gradient = product(1.0, dy, matrix(context.input(1)));
            multiply(&mut gradient, Onto::Output(1.0), 1.0, dh?, matrix(context.input(2)));
            Some(gradient)
        };
        let of_b = || {
            let h = &context.saved[0];
            product(self.scale, dy.t(), Matrix::new(h, dy.rows(), h.len() / dy.rows().max(1)))
        };
        let mut gradients = vec![
            if wanted[0] { of_x() } else { None },
            wanted[1].then(|| product(1.0, dy.t(), matrix(context.input(0)))),
            if wanted[2] { dh.map(|dh| product(1.0, dh.t(), matrix(context.input(0)))) } else { None },
            wanted[3].then(of_b),
        ];
        gradients.extend(wanted.get(4).map(|wanted| wanted.then(|| bias_gradient(context.grad))));
        gradients
    }

    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool {
        match index {
            0 => wanted[1] || wanted[2],
            1 | 2 => wanted[0],
            3 => wanted[0] || wanted[2],
            _ => false,
        }
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let product = x.matmul(weight.transpose());
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

pub(crate) fn plain_low_rank(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, adapter: LowRank) -> Tensor<2> {
    let update = x.clone().matmul(adapter.a.transpose()).matmul(adapter.b.transpose());
    plain(x, weight, bias) + update.mul_scalar(adapter.scale)
}

pub(crate) fn assert_shapes(x: &Tensor<2>, weight: &Tensor<2>, bias: &Option<Tensor<1>>, adapter: Option<&LowRank>) {
    let [_, width] = x.dims();
    let [out, input] = weight.dims();
    assert_eq!(width, input, "the input's width is the weight's");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [out]), "one bias for each of {out} outputs");
    if let Some(LowRank { a, b, .. }) = adapter {
        let [rank, _] = a.dims();
        assert_eq!((a.dims(), b.dims()), ([rank, input], [out, rank]), "an adapter of a [{out}, {input}] weight");
    }
}

/// `x·Wᵀ + b`.
///
/// # Shapes
/// `x`: `[rows, in]`; `weight`: `[out, in]`; `bias`: `[out]`; the output: `[rows, out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    assert_shapes(&x, &weight, &bias, None);
    if on_host(&x.device()) {
        apply(Linear, [x.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch)))
    } else {
        plain(x, weight, bias)
    }
}

/// `x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ`, without forming `W + s·B·A`.
///
/// # Shapes
/// `x`: `[rows, in]`; `weight`: `[out, in]`; `bias`: `[out]`; the output: `[rows, out]`.
pub fn linear_low_rank(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, adapter: LowRank) -> Tensor<2> {
    assert_shapes(&x, &weight, &bias, Some(&adapter));
    if on_host(&x.device()) {
        let kernel = LinearLowRank { scale: adapter.scale };
        let inputs = [x, weight, adapter.a, adapter.b].map(Tensor::into_dispatch);
        apply(kernel, inputs.into_iter().chain(bias.map(Tensor::into_dispatch)))
    } else {
        plain_low_rank(x, weight, bias, adapter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::{Device, TensorData};

    const SCALE: f32 = 1.7;

    fn row(x: Tensor<2>) -> Tensor<1> {
        x.squeeze_dim(0)
    }

    #[test]
    fn linear_matches_plain_burn() {
        assert_kernel([[7, 33], [19, 33]], 1e-5, |[x, w]| linear(x, w, None), |[x, w]| plain(x, w, None));
        let (fast, slow) = (linear, plain);
        assert_kernel([[70, 33], [19, 33], [1, 19]], 1e-5, |[x, w, b]| fast(x, w, Some(row(b))), |[x, w, b]| slow(x, w, Some(row(b))));
    }

    #[test]
    fn low_rank_matches_plain_burn() {
        let adapter = |a, b| LowRank { a, b, scale: SCALE };
        assert_kernel(
            [[7, 33], [19, 33], [4, 33], [19, 4]],
            1e-5,
            |[x, w, a, b]| linear_low_rank(x, w, None, adapter(a, b)),
            |[x, w, a, b]| plain_low_rank(x, w, None, adapter(a, b)),
        );
        assert_kernel(
            [[70, 33], [19, 33], [4, 33], [19, 4], [1, 19]],
            1e-5,
            |[x, w, a, b, bias]| linear_low_rank(x, w, Some(row(bias)), adapter(a, b)),
            |[x, w, a, b, bias]| plain_low_rank(x, w, Some(row(bias)), adapter(a, b)),
        );
    }

    fn leaf(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(numbers(shape[0] * shape[1], seed), shape), &device.clone().autodiff())
    }

    /// Every choice of frozen operands: the frozen get no gradient, the others the one they get when nothing is frozen.
    #[test]
    fn frozen_operands_leave_the_other_gradients_alone() {
        let shapes = [[5, 8], [6, 8], [3, 8], [6, 3], [1, 6]];
        for device in devices() {
            let gradients = |tracked: u32, with_adapter: bool| -> Vec<Option<Vec<f32>>> {
                let leaves: Vec<Tensor<2>> = (0..5)
                    .map(|i| leaf(shapes[i], i as u64 + 1, &device))
                    .enumerate()
                    .map(|(i, x)| if tracked >> i & 1 == 1 { x.require_grad() } else { x })
                    .collect();
                let [x, w, a, b, bias] = std::array::from_fn(|i| leaves[i].clone());
                let y = if with_adapter {
                    linear_low_rank(x, w, Some(row(bias)), LowRank { a, b, scale: SCALE })
                } else {
                    linear(x, w, Some(row(bias)))
                };
                let gradients = (y * leaf([5, 6], 9, &device)).sum().backward();
                leaves.iter().map(|x| x.grad(&gradients).map(|g| g.into_data().try_to_vec().expect("f32"))).collect()
            };
            for with_adapter in [false, true] {
                let all = gradients(0b11111, with_adapter);
                let choices = (1..0b100000u32).filter(|choice| with_adapter || choice & 0b10011 != 0);
                for choice in choices {
                    for (i, gradient) in gradients(choice, with_adapter).into_iter().enumerate() {
                        let expected = if choice >> i & 1 == 1 { all[i].clone() } else { None };
                        assert_eq!(gradient, expected, "input {i}, tracked {choice:05b}, adapter {with_adapter}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_adapter_of_scale_zero_changes_nothing() {
        for device in devices() {
            let [x, w, a, b] = [[9, 40], [21, 40], [4, 40], [21, 4]].map(|shape| leaf(shape, shape[0] as u64, &device));
            let values = |y: Tensor<2>| y.into_data().try_to_vec::<f32>().expect("f32");
            let with = linear_low_rank(x.clone(), w.clone(), None, LowRank { a, b, scale: 0.0 });
            assert_eq!(values(with), values(linear(x, w, None)));
        }
    }
}
