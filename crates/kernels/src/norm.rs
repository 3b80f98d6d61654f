//! RMSNorm and LayerNorm.
//!
//! ```text
//! rms_norm(x) = g · x / √(mean(x²) + ε)        layer_norm(x) = g · (x − m) / √(mean((x − m)²) + ε) + b,  m = mean(x)
//! ```
//!
//! Both are `g·x̂ + b` with `x̂ = r·(x − m)`, where RMSNorm takes m = 0 and b = 0. With `t = g·dy`, and means over a row:
//!
//! ```text
//! dx = r·(t − mean(t) − x̂·mean(t·x̂))        dg = Σ dy·x̂        db = Σ dy        (mean(t) only in LayerNorm)
//! ```
//!
//! Sources: Zhang and Sennrich, arXiv:1910.07467, Equation 4; Ba, Kiros and Hinton, arXiv:1607.06450, Equation 3.

use crate::buffer::unwritten;
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::math::simd;
use crate::reduce::{add_rows, sum, sum_pairs};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Rows per unit of parallel work; fixed, so that results never depend on the number of threads.
const ROWS: usize = 32;

/// Inputs: x, gain and, for LayerNorm, bias.
#[derive(Debug)]
struct Normalize {
    epsilon: f32,
}

/// m and r of a row.
#[inline(always)]
fn statistics(x: &[f32], centred: bool, epsilon: f32) -> [f32; 2] {
    let n = x.len() as f32;
    let mean = if centred { sum(x) / n } else { 0.0 };
    let squares = sum_pairs(
        x,
        x,
        #[inline(always)]
        |x, _| (x - mean) * (x - mean),
    );
    [mean, 1.0 / (squares / n + epsilon).sqrt()]
}

/// Gradient of x.
fn input_gradient(x: Operand, gain: &[f32], dy: &[f32], statistics: &[[f32; 2]], centred: bool) -> Vec<f32> {
    let width = x.width();
    // SAFETY: every element is written below.
    let mut out = unsafe { unwritten(x.data.len()) };
    let rows = out.par_chunks_mut(ROWS * width).zip(x.data.par_chunks(ROWS * width)).zip(dy.par_chunks(ROWS * width));
    rows.zip(statistics.par_chunks(ROWS)).for_each(|(((out, x), dy), statistics)| {
        simd(
            #[inline(always)]
            || {
                let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
                for (((out, x), dy), &[mean, scale]) in rows.zip(statistics) {
                    out.iter_mut().zip(dy).zip(gain).for_each(|((t, dy), gain)| *t = dy * gain);
                    let mean_t = if centred { sum(out) / width as f32 } else { 0.0 };
                    let mean_tx = sum_pairs(
                        out,
                        x,
                        #[inline(always)]
                        |t, x| t * (x - mean),
                    ) * scale
                        / width as f32;
                    out.iter_mut().zip(x).for_each(|(t, x)| *t = scale * (*t - mean_t - (x - mean) * scale * mean_tx));
                }
            },
        )
    });
    out
}

/// Gradients of gain and bias, one after the other: partial sums over fixed chunks of rows, added in the chunks' order.
fn parameter_gradients(x: Operand, dy: &[f32], statistics: &[[f32; 2]]) -> Vec<f32> {
    let width = x.width();
    let mut partial = vec![0.0; x.rows().div_ceil(ROWS) * 2 * width];
    let chunks = partial.par_chunks_mut(2 * width).zip(x.data.par_chunks(ROWS * width)).zip(dy.par_chunks(ROWS * width));
    chunks.zip(statistics.par_chunks(ROWS)).for_each(|(((sums, x), dy), statistics)| {
        simd(
            #[inline(always)]
            || {
                let (of_gain, of_bias) = sums.split_at_mut(width);
                for ((x, dy), &[mean, scale]) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(statistics) {
                    of_gain.iter_mut().zip(x).zip(dy).for_each(|((sum, x), dy)| *sum += dy * (x - mean) * scale);
                    of_bias.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
                }
            },
        )
    });
    let mut sums = vec![0.0; 2 * width];
    add_rows(&mut sums, &partial);
    sums
}

impl Kernel for Normalize {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let (x, gain, bias) = (inputs[0], inputs[1].data, inputs.get(2).map(|bias| bias.data));
        let width = x.width();
        // SAFETY: every element is written below.
        let mut data = unsafe { unwritten(x.data.len()) };
        let mut saved = vec![0.0; 2 * x.rows()];
        let rows = data.par_chunks_mut(ROWS * width).zip(x.data.par_chunks(ROWS * width)).zip(saved.par_chunks_mut(2 * ROWS));
        rows.for_each(|((out, x), saved)| {
            simd(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
                    for ((out, x), saved) in rows.zip(saved.as_chunks_mut::<2>().0) {
                        let [mean, scale] = statistics(x, bias.is_some(), self.epsilon);
                        out.iter_mut().zip(x).zip(gain).for_each(|((out, x), gain)| *out = gain * ((x - mean) * scale));
                        if let Some(bias) = bias {
                            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                        }
                        *saved = [mean, scale];
                    }
                },
            )
        });
        Forward { data, shape: x.shape.to_vec(), saved: if wanted.contains(&true) { vec![saved] } else { Vec::new() } }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (x, dy, wanted, statistics) = (context.input(0), context.grad.data, context.wanted, context.saved[0].as_chunks().0);
        let of_x = wanted[0].then(|| input_gradient(x, context.input(1).data, dy, statistics, wanted.len() > 2));
        let mut gradients = vec![of_x, None, None];
        if wanted[1..].contains(&true) {
            let mut of_gain = parameter_gradients(x, dy, statistics);
            let of_bias = of_gain.split_off(x.width());
            gradients[1] = wanted[1].then_some(of_gain);
            gradients[2] = wanted.get(2).is_some_and(|&wanted| wanted).then_some(of_bias);
        }
        gradients.truncate(wanted.len());
        gradients
    }

    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool {
        match index {
            0 => true,
            1 => wanted[0],
            _ => false,
        }
    }
}

fn plain(x: Tensor<2>, gain: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    let centred = if bias.is_some() { x.clone() - x.mean_dim(1) } else { x };
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normal = centred / (variance + epsilon).sqrt() * gain.unsqueeze();
    match bias {
        Some(bias) => normal + bias.unsqueeze(),
        None => normal,
    }
}

fn normalize(x: Tensor<2>, gain: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    let [_, width] = x.dims();
    assert_eq!(gain.dims(), [width], "one gain for each of {width} columns");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [width]), "one bias for each of {width} columns");
    if !on_host(&x.device()) {
        return plain(x, gain, bias, epsilon);
    }
    let inputs = [x.into_dispatch(), gain.into_dispatch()];
    apply(Normalize { epsilon: epsilon as f32 }, inputs.into_iter().chain(bias.map(Tensor::into_dispatch)))
}

/// Divides each row by its root mean square and multiplies it by `gain`.
///
/// # Shapes
/// `x` and the output: `[tokens, width]`; `gain`: `[width]`.
pub fn rms_norm(x: Tensor<2>, gain: Tensor<1>, epsilon: f64) -> Tensor<2> {
    normalize(x, gain, None, epsilon)
}

/// Brings each row to mean 0 and variance 1, multiplies it by `gain` and adds `bias`.
///
/// # Shapes
/// `x` and the output: `[tokens, width]`; `gain` and `bias`: `[width]`.
pub fn layer_norm(x: Tensor<2>, gain: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    normalize(x, gain, Some(bias), epsilon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::{Device, TensorData};

    const EPSILON: f64 = 1e-3;

    fn row(x: Tensor<2>) -> Tensor<1> {
        x.squeeze_dim(0)
    }

    #[test]
    fn rms_norm_matches_plain_burn() {
        assert_kernel([[70, 37], [1, 37]], 2e-5, |[x, g]| rms_norm(x, row(g), EPSILON), |[x, g]| plain(x, row(g), None, EPSILON));
    }

    #[test]
    fn layer_norm_matches_plain_burn() {
        assert_kernel(
            [[70, 37], [1, 37], [1, 37]],
            2e-5,
            |[x, g, b]| layer_norm(x + 3.0, row(g), row(b), EPSILON),
            |[x, g, b]| plain(x + 3.0, row(g), Some(row(b)), EPSILON),
        );
    }

    /// The gradients of x, gain and bias, each tracked or not.
    fn gradients(tracked: u32, device: &Device) -> [Option<TensorData>; 3] {
        let (rows, width, device) = (100, 19, device.clone().autodiff());
        let vector = |seed| Tensor::<1>::from_data(TensorData::new(numbers(width, seed), [width]), &device);
        let x =
            Tensor::<2>::from_data(TensorData::new(numbers(rows * width, 1), [rows, width]), &device).set_require_grad(tracked & 1 != 0);
        let (gain, bias) = (vector(2).set_require_grad(tracked & 2 != 0), vector(3).set_require_grad(tracked & 4 != 0));
        let y = layer_norm(x.clone(), gain.clone(), bias.clone(), EPSILON);
        let gradients = (y.clone() * y).sum().backward();
        let data = |gradient: Tensor<1>| gradient.into_data();
        [x.grad(&gradients).map(Tensor::into_data), gain.grad(&gradients).map(data), bias.grad(&gradients).map(data)]
    }

    #[test]
    fn frozen_operands_leave_the_other_gradients_alone() {
        for device in devices() {
            let all = gradients(0b111, &device);
            for tracked in 1..0b111 {
                for (i, gradient) in gradients(tracked, &device).into_iter().enumerate() {
                    assert_eq!(gradient, if tracked >> i & 1 == 1 { all[i].clone() } else { None }, "input {i}, tracked {tracked:03b}");
                }
            }
        }
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| gradients(0b111, &devices()[0]))
        };
        assert_eq!(on(1), on(2));
        assert_eq!(on(1), on(4));
    }

    #[test]
    fn rows_come_out_normal() {
        for device in devices() {
            let x = Tensor::<2>::from_data(TensorData::new(numbers(5 * 64, 1), [5, 64]), &device) * 9.0 + 4.0;
            let ones = Tensor::<1>::ones([64], &device);
            let y = rms_norm(x.clone(), ones.clone(), 0.0);
            let square = (y.clone() * y).mean_dim(1).into_data();
            square.assert_approx_eq::<f32>(&TensorData::from([[1.0f32]; 5]), Default::default());
            let y = layer_norm(x, ones.clone(), ones * 0.5, 0.0);
            y.mean_dim(1).into_data().assert_approx_eq::<f32>(&TensorData::from([[0.5f32]; 5]), Default::default());
        }
    }
}
