//! Rotary position embedding in the half-split layout of Hugging Face: component i of a head turns together with component i + d/2.
//!
//! ```text
//! out[i]       = x[i]·cos(p·θᵢ) − x[i + d/2]·sin(p·θᵢ)
//! out[i + d/2] = x[i + d/2]·cos(p·θᵢ) + x[i]·sin(p·θᵢ)
//! ```
//!
//! Source: Su et al., arXiv:2104.09864, Equation 34, with the pairs of components regrouped. The gradient turns back by the same angle.

use crate::buffer::unwritten;
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::math::simd;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::sync::Arc;

/// Cosines and sines of every position's angles, `[positions, head dimension / 2]`; cheap to clone.
#[derive(Clone, Debug)]
pub struct Rotary {
    cosines: Arc<[f32]>,
    sines: Arc<[f32]>,
    half: usize,
}

impl Rotary {
    /// Tables for positions below `max_positions`, for the given radians per position of each pair of components.
    ///
    /// `attention_scale` multiplies both tables (arXiv:2309.00071, Equation 22); 1 for ordinary rotary embeddings.
    pub fn new(inverse_frequencies: &[f32], attention_scale: f32, max_positions: usize) -> Self {
        let table = |f: fn(f64) -> f64| {
            let value = |position, frequency: &f32| (f(position as f64 * f64::from(*frequency)) * f64::from(attention_scale)) as f32;
            (0..max_positions).flat_map(|position| inverse_frequencies.iter().map(move |frequency| value(position, frequency))).collect()
        };
        Self { cosines: table(f64::cos), sines: table(f64::sin), half: inverse_frequencies.len() }
    }

    /// How many positions the tables cover.
    pub fn max_positions(&self) -> usize {
        self.cosines.len() / self.half.max(1)
    }

    /// The row of `table` for one position.
    fn row<'a>(&self, table: &'a [f32], position: u32) -> &'a [f32] {
        &table[position as usize * self.half..][..self.half]
    }
}

#[derive(Debug)]
struct Rotate {
    rotary: Rotary,
    positions: Arc<[u32]>,
}

/// Tokens per unit of parallel work.
const CHUNK: usize = 32;

impl Rotate {
    /// Turns every head of every row of `x` forwards (`direction` = 1) or back (-1).
    fn turn(&self, x: Operand<'_>, direction: f32) -> Vec<f32> {
        // SAFETY: every element is written below.
        let mut out = unsafe { unwritten(x.data.len()) };
        let (width, half) = (x.width().max(1), self.rotary.half);
        let chunks = out.par_chunks_mut(CHUNK * width).zip(x.data.par_chunks(CHUNK * width)).zip(self.positions.par_chunks(CHUNK));
        chunks.for_each(|((out, x), positions)| {
            simd(
                #[inline(always)]
                || {
                    for ((out, x), &position) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(positions) {
                        let cosines = self.rotary.row(&self.rotary.cosines, position);
                        let sines = self.rotary.row(&self.rotary.sines, position);
                        for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                            let (out_low, out_high) = out.split_at_mut(half);
                            let (low, high) = x.split_at(half);
                            for i in 0..half {
                                let (cosine, sine) = (cosines[i], sines[i] * direction);
                                out_low[i] = low[i] * cosine - high[i] * sine;
                                out_high[i] = high[i] * cosine + low[i] * sine;
                            }
                        }
                    }
                },
            )
        });
        out
    }
}

impl Kernel for Rotate {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        Forward { data: self.turn(inputs[0], 1.0), shape: inputs[0].shape.to_vec(), saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.turn(context.grad, -1.0))]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

fn plain(x: Tensor<2>, rotary: &Rotary, positions: &[u32]) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let half = rotary.half;
    let heads = width / (2 * half);
    let gather = |table: &[f32]| {
        let rows: Vec<f32> = positions.iter().flat_map(|&position| rotary.row(table, position)).copied().collect();
        Tensor::<3>::from_data(TensorData::new(rows, [tokens, 1, half]), (&x.device(), x.dtype()))
    };
    let (cosines, sines) = (gather(&rotary.cosines), gather(&rotary.sines));
    let x = x.reshape([tokens, heads, 2 * half]);
    let low = x.clone().slice([0..tokens, 0..heads, 0..half]);
    let high = x.slice([0..tokens, 0..heads, half..2 * half]);
    let out_low = low.clone() * cosines.clone() - high.clone() * sines.clone();
    let out_high = high * cosines + low * sines;
    Tensor::cat(vec![out_low, out_high], 2).reshape([tokens, width])
}

/// Turns every head of every token by the angles of the token's position.
///
/// # Shapes
/// `x` and the output: `[tokens, heads · head_dim]`; `positions`: one per token.
///
/// # Panics
/// If a position lies beyond the tables, or the shapes do not fit together.
pub fn rotate(x: Tensor<2>, rotary: &Rotary, positions: &Arc<[u32]>, head_dim: usize) -> Tensor<2> {
    let [tokens, width] = x.dims();
    assert_eq!(head_dim, 2 * rotary.half, "the rotary tables fit the head dimension");
    assert_eq!(width % head_dim, 0, "the width is a whole number of heads");
    assert_eq!(tokens, positions.len(), "every token has a position");
    if on_host(&x.device()) {
        apply(Rotate { rotary: rotary.clone(), positions: positions.clone() }, [x.into_dispatch()])
    } else {
        plain(x, rotary, positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, numbers};
    use burn::tensor::Device;

    fn frequencies(half: usize) -> Vec<f32> {
        (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect()
    }

    #[test]
    fn rotation_matches_plain_burn() {
        for (heads, half, scale) in [(3, 4, 1.0), (2, 17, 1.3)] {
            let rotary = Rotary::new(&frequencies(half), scale, 50);
            let positions: Arc<[u32]> = (0..37).map(|token| token * 7 % 50).collect();
            let fast = |[x]: [Tensor<2>; 1]| rotate(x, &rotary, &positions, 2 * half);
            assert_kernel([[37, heads * 2 * half]], 1e-6, fast, |[x]| plain(x, &rotary, &positions));
        }
    }

    /// The law rotary embeddings exist for: q at p + k against k at p depends on k alone; and lengths stay.
    #[test]
    fn products_depend_on_the_distance_only() {
        let half = 16;
        let rotary = Rotary::new(&frequencies(half), 1.0, 200);
        let at = |seed, position: u32| -> Vec<f32> {
            let x = Tensor::from_data(TensorData::new(numbers(2 * half, seed), [1, 2 * half]), &Device::flex());
            rotate(x, &rotary, &Arc::from([position]), 2 * half).into_data().try_to_vec().unwrap()
        };
        let product = |p, q| at(1, p).iter().zip(at(2, q)).map(|(x, y)| x * y).sum::<f32>();
        approx::assert_abs_diff_eq!(product(3, 0), product(150, 147), epsilon = 2e-5);
        assert!((product(3, 0) - product(4, 0)).abs() > 1e-2);
        let square = |x: Vec<f32>| x.iter().map(|x| x * x).sum::<f32>();
        approx::assert_abs_diff_eq!(square(at(1, 123)), square(numbers(2 * half, 1)), epsilon = 1e-5);
    }
}
