//! Activation functions of feed-forward layers, plain and gated.
//!
//! ```text
//! gelu(x) = x·Φ(x)     gelu_tanh(x) = x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))     silu(x) = x·σ(x)     relu(x) = max(x, 0)
//! gated: act(g)·u
//! ```
//!
//! Source: Hendrycks and Gimpel, arXiv:1606.08415; gated pairs: Shazeer, arXiv:2002.05202, Section 2.

use crate::buffer::unwritten;
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::math::{erf, exp, sigmoid, simd, tanh};
use burn::tensor::{Tensor, activation};
use rayon::prelude::*;

/// An element-wise activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x) with the exact normal distribution function: `gelu` in Hugging Face configurations.
    Gelu,
    /// The tanh approximation: `gelu_new` and `gelu_pytorch_tanh`.
    GeluTanh,
    /// x·σ(x), also called swish.
    Silu,
    /// max(x, 0).
    Relu,
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
const INV_SQRT_2_PI: f32 = 0.398_942_3;

/// The function's value and slope at `x`.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x);
    let distribution = 0.5 + 0.5 * erf(x * SQRT_HALF, density);
    (x * distribution, distribution + x * density * INV_SQRT_2_PI)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    let t = tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
    let inner_slope = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
    (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner_slope)
}

#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// With slope 0 at 0, as PyTorch has it.
#[inline(always)]
fn relu(x: f32) -> (f32, f32) {
    if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }
}

/// `$body` with `$f` as the function of `$kind`: compiled for each, so that its loops are SIMD.
macro_rules! with {
    ($f:ident of $kind:expr => $body:expr) => {
        match $kind {
            Activation::Gelu => {
                let $f = gelu;
                $body
            }
            Activation::GeluTanh => {
                let $f = gelu_tanh;
                $body
            }
            Activation::Silu => {
                let $f = silu;
                $body
            }
            Activation::Relu => {
                let $f = relu;
                $body
            }
        }
    };
}

/// Elements per unit of parallel work; fixed, so that results never depend on the number of threads.
const CHUNK: usize = 16 * 1024;

/// `out = f(x)`, element by element.
fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: every element is written below.
    let mut out = unsafe { unwritten(x.len()) };
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        simd(
            #[inline(always)]
            || out.iter_mut().zip(x).for_each(|(o, &x)| *o = f(x)),
        )
    });
    out
}

/// `out = f(x, y)`, element by element.
fn map2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: every element is written below.
    let mut out = unsafe { unwritten(x.len()) };
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(y.par_chunks(CHUNK)).for_each(|((out, x), y)| {
        simd(
            #[inline(always)]
            || out.iter_mut().zip(x).zip(y).for_each(|((o, &x), &y)| *o = f(x, y)),
        )
    });
    out
}

/// `out = f(x, y, z)`, element by element.
fn map3(x: &[f32], y: &[f32], z: &[f32], f: impl Fn(f32, f32, f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: every element is written below.
    let mut out = unsafe { unwritten(x.len()) };
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(y.par_chunks(CHUNK)).zip(z.par_chunks(CHUNK)).for_each(|(((out, x), y), z)| {
        simd(
            #[inline(always)]
            || out.iter_mut().zip(x).zip(y).zip(z).for_each(|(((o, &x), &y), &z)| *o = f(x, y, z)),
        )
    });
    out
}

#[derive(Debug)]
pub(crate) struct Activate(pub(crate) Activation);

impl Kernel for Activate {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let x = inputs[0];
        let data = with!(f of self.0 => map(
            x.data,
            #[inline(always)]
            |x| f(x).0,
        ));
        Forward { data, shape: x.shape.to_vec(), saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (x, grad) = (context.input(0).data, context.grad.data);
        vec![Some(with!(f of self.0 => map2(
            x,
            grad,
            #[inline(always)]
            |x, g| g * f(x).1,
        )))]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }
}

#[derive(Debug)]
pub(crate) struct Gate(pub(crate) Activation);

impl Kernel for Gate {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let (gate, up) = (inputs[0], inputs[1]);
        let data = with!(f of self.0 => map2(
            gate.data,
            up.data,
            #[inline(always)]
            |g, u| f(g).0 * u,
        ));
        Forward { data, shape: gate.shape.to_vec(), saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let (gate, up, grad) = (context.input(0).data, context.input(1).data, context.grad.data);
        let of_gate = context.wanted[0].then(|| {
            with!(f of self.0 => map3(
                gate,
                up,
                grad,
                #[inline(always)]
                |x, u, g| g * u * f(x).1,
            ))
        });
        let of_up = context.wanted[1].then(|| {
            with!(f of self.0 => map2(
                gate,
                grad,
                #[inline(always)]
                |x, g| g * f(x).0,
            ))
        });
        vec![of_gate, of_up]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }
}

pub(crate) fn plain(x: Tensor<2>, kind: Activation) -> Tensor<2> {
    match kind {
        // Not Burn's: on backends without a backward pass of their own, such as GPUs, its slope is the tanh approximation's, off by up to 9e-4.
        Activation::Gelu => x.clone() * (x.mul_scalar(SQRT_HALF).erf() + 1.0).mul_scalar(0.5),
        Activation::GeluTanh => {
            let cubed = x.clone() * x.clone() * x.clone();
            let inner = (x.clone() + cubed.mul_scalar(CUBIC)).mul_scalar(SQRT_2_OVER_PI);
            x * (inner.tanh() + 1.0).mul_scalar(0.5)
        }
        Activation::Silu => activation::silu(x),
        Activation::Relu => activation::relu(x),
    }
}

/// Applies `kind` to every element.
///
/// # Shapes
/// `x`: any `[rows, width]`; the output has its shape.
pub fn activate(x: Tensor<2>, kind: Activation) -> Tensor<2> {
    if on_host(&x.device()) { apply(Activate(kind), [x.into_dispatch()]) } else { plain(x, kind) }
}

/// `act(gate)·up`, the inner part of a gated feed-forward layer.
///
/// # Shapes
/// `gate`, `up` and the output: `[tokens, inner width]`.
pub fn gated(gate: Tensor<2>, up: Tensor<2>, kind: Activation) -> Tensor<2> {
    assert_eq!(gate.dims(), up.dims(), "gate and up have the same shape");
    if on_host(&gate.device()) { apply(Gate(kind), [gate.into_dispatch(), up.into_dispatch()]) } else { plain(gate, kind) * up }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_kernel;

    const KINDS: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];

    #[test]
    fn activation_matches_plain_burn() {
        for kind in KINDS {
            assert_kernel([[7, 33]], 1e-5, |[x]| activate(x * 4.0, kind), |[x]| plain(x * 4.0, kind));
        }
    }

    #[test]
    fn gated_activation_matches_plain_burn() {
        for kind in KINDS {
            assert_kernel([[5, 19], [5, 19]], 1e-5, |[g, u]| gated(g * 4.0, u, kind), |[g, u]| plain(g * 4.0, kind) * u);
        }
    }
}
