//! Dropout whose mask is a function of a key: the gradient draws it again instead of keeping it.
//!
//! ```text
//! out[i] = x[i] / (1 − p)  if  uniform(key, i) ≥ p,  else 0
//! ```
//!
//! Source: Srivastava et al., JMLR 15 (2014), in the inverted form, which leaves inference alone.

use crate::buffer::unwritten;
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::math::simd;
use crate::random::Key;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Elements per unit of parallel work.
const CHUNK: usize = 16 * 1024;

/// Which elements dropout keeps, and by how much it scales them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    key: Key,
    /// An element is kept if its 32 random bits are at least this.
    threshold: u32,
    scale: f32,
}

impl Mask {
    pub(crate) fn new(probability: f32, key: Key) -> Self {
        assert!((0.0..1.0).contains(&probability), "a dropout probability lies in [0, 1), not at {probability}");
        Self { key, threshold: (f64::from(probability) * (1u64 << 32) as f64) as u32, scale: 1.0 / (1.0 - probability) }
    }

    /// The mask of one part of what is dropped out.
    #[inline(always)]
    pub(crate) fn fold(self, index: u64) -> Self {
        Self { key: self.key.fold(index), ..self }
    }

    #[inline(always)]
    fn factor(self, bits: u32) -> f32 {
        if bits >= self.threshold { self.scale } else { 0.0 }
    }

    /// Multiplies `x`, whose first element has the even index `first`, by 0 or the scale. One hash decides two elements.
    /// Call it inside [`simd`].
    #[inline(always)]
    pub(crate) fn apply(self, x: &mut [f32], first: usize) {
        debug_assert_eq!(first % 2, 0);
        let first = first as u64 / 2;
        let (pairs, rest) = x.as_chunks_mut::<2>();
        let n_pairs = pairs.len() as u64;
        for (index, pair) in pairs.iter_mut().enumerate() {
            let bits = self.key.bits(first + index as u64);
            pair[0] *= self.factor(bits as u32);
            pair[1] *= self.factor((bits >> 32) as u32);
        }
        for x in rest {
            *x *= self.factor(self.key.bits(first + n_pairs) as u32);
        }
    }

    /// `x` through the mask, in a new buffer.
    pub(crate) fn of(self, x: &[f32]) -> Vec<f32> {
        // SAFETY: every element is written below.
        let mut out = unsafe { unwritten(x.len()) };
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (out, x))| {
            out.copy_from_slice(x);
            simd(
                #[inline(always)]
                || self.apply(out, chunk * CHUNK),
            )
        });
        out
    }

    /// The factors of `count` elements, for devices that must be handed them.
    pub(crate) fn factors(self, count: usize) -> Vec<f32> {
        let mut factors = vec![1.0; count];
        self.apply(&mut factors, 0);
        factors
    }
}

#[derive(Debug)]
struct Dropout(Mask);

impl Kernel for Dropout {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        Forward { data: self.0.of(inputs[0].data), shape: inputs[0].shape.to_vec(), saved: Vec::new() }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        vec![Some(self.0.of(context.grad.data))]
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

pub(crate) fn plain(x: Tensor<2>, mask: Mask) -> Tensor<2> {
    let [rows, width] = x.dims();
    let factors = TensorData::new(mask.factors(rows * width), [rows, width]);
    let factors = Tensor::from_data(factors, (&x.device(), x.dtype()));
    x * factors
}

/// Drops each element with the given probability and scales the others so that the expectation stays; probability 0 returns `x`.
///
/// # Shapes
/// `x` and the output: any `[rows, width]`.
///
/// # Panics
/// If the probability is not in [0, 1).
pub fn dropout(x: Tensor<2>, probability: f32, key: Key) -> Tensor<2> {
    if probability == 0.0 {
        return x;
    }
    let mask = Mask::new(probability, key);
    if on_host(&x.device()) { apply(Dropout(mask), [x.into_dispatch()]) } else { plain(x, mask) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_kernel;
    use burn::tensor::Device;

    #[test]
    fn dropout_matches_plain_burn() {
        for probability in [0.1, 0.5] {
            let key = Key::new(5);
            let fast = |[x]: [Tensor<2>; 1]| dropout(x, probability, key);
            assert_kernel([[7, 33]], 1e-6, fast, |[x]| plain(x, Mask::new(probability, key)));
        }
    }

    #[test]
    fn dropout_keeps_its_share_and_scales_it() {
        let (rows, width, probability) = (300, 1001, 0.3);
        let x = Tensor::<2>::full([rows, width], 2.0, &Device::flex());
        let out: Vec<f32> = dropout(x.clone(), probability, Key::new(1)).into_data().try_to_vec().unwrap();
        let kept = out.iter().filter(|&&x| x != 0.0).count() as f64 / out.len() as f64;
        assert!((kept - 0.7).abs() < 4.0 * 0.46 / 548.0, "kept {kept}");
        assert!(out.iter().all(|&x| x == 0.0 || x == 2.0 * (1.0 / 0.7)));
        let other: Vec<f32> = dropout(x, probability, Key::new(2)).into_data().try_to_vec().unwrap();
        let both = out.iter().zip(&other).filter(|&(&x, &y)| x != 0.0 && y != 0.0).count() as f64 / out.len() as f64;
        assert!((both - 0.49).abs() < 4.0 * 0.5 / 548.0, "kept under both keys {both}");
    }

    #[test]
    fn probability_zero_changes_nothing() {
        let x = Tensor::<2>::full([3, 5], 2.0, &Device::flex());
        assert_eq!(dropout(x.clone(), 0.0, Key::new(1)).into_data(), x.into_data());
    }
}
