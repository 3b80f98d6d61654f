//! The softmax of one row of logits: what losses read from it, and what their gradients make of it.

use super::HeadOptions;
use crate::math::{exp, simd, tanh};
use crate::reduce::{max, sum, sum_pairs};

/// Elements summed in f32 before the f64 total takes over: a vocabulary is too long for f32.
const BLOCK: usize = 4096;

/// Σ f(z) of a long row.
#[inline(always)]
fn long_sum(logits: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for block in logits.chunks(BLOCK) {
        total += f64::from(sum_pairs(
            block,
            block,
            #[inline(always)]
            |z, _| f(z),
        ));
    }
    total
}

/// `p_v = exp(z_v − max) / sum`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softmax {
    /// The largest logit.
    pub(super) max: f32,
    /// Σ exp(z − max).
    pub(super) sum: f64,
}

impl Softmax {
    pub(super) fn new(logits: &[f32]) -> Self {
        simd(
            #[inline(always)]
            || {
                let max = max(logits);
                let sum = long_sum(
                    logits,
                    #[inline(always)]
                    |z| exp(z - max),
                );
                Self { max, sum }
            },
        )
    }

    /// ln p of a logit.
    pub(super) fn log_probability(self, logit: f32) -> f64 {
        f64::from(logit) - f64::from(self.max) - self.sum.ln()
    }

    /// −Σ p·ln p.
    pub(super) fn entropy(self, logits: &[f32]) -> f64 {
        let weighted = simd(
            #[inline(always)]
            || {
                long_sum(
                    logits,
                    #[inline(always)]
                    |z| (z - self.max) * exp(z - self.max),
                )
            },
        );
        self.sum.ln() - weighted / self.sum
    }
}

/// Mean of a row.
pub(super) fn mean(logits: &[f32]) -> f64 {
    let total: f64 = simd(
        #[inline(always)]
        || logits.chunks(BLOCK).map(|block| f64::from(sum(block))).sum(),
    );
    total / logits.len() as f64
}

/// A gradient with respect to the logits z: `p_v·(by_p + by_p_ln_p·ln p_v) + to_all + [v = target]·to_target`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gradient {
    pub(super) by_p: f32,
    pub(super) by_p_ln_p: f32,
    pub(super) to_all: f32,
    pub(super) to_target: f32,
}

impl Gradient {
    /// Replaces the logits of a row, as [`HeadOptions::shape`] left them, by the gradient with respect to what they were before it.
    pub(super) fn replace(self, logits: &mut [f32], target: usize, softmax: Softmax, options: &HeadOptions) {
        let (max, share, log_sum) = (softmax.max, (1.0 / softmax.sum) as f32, softmax.sum.ln() as f32);
        let slope = options.slope();
        let to_target = self.to_target * slope(logits[target]);
        simd(
            #[inline(always)]
            || {
                if options.soft_cap.is_some() {
                    logits.iter_mut().for_each(|z| *z = self.at(*z - max, share, log_sum) * slope(*z));
                } else if self.by_p_ln_p == 0.0 && self.to_all == 0.0 {
                    let share = share * self.by_p / options.temperature;
                    logits.iter_mut().for_each(|z| *z = share * exp(*z - max));
                } else {
                    let scale = 1.0 / options.temperature;
                    logits.iter_mut().for_each(|z| *z = self.at(*z - max, share, log_sum) * scale);
                }
            },
        );
        logits[target] += to_target;
    }

    /// The gradient, apart from the target's own, of a logit x below the largest.
    #[inline(always)]
    fn at(self, x: f32, share: f32, log_sum: f32) -> f32 {
        share * exp(x) * (self.by_p + self.by_p_ln_p * (x - log_sum)) + self.to_all
    }
}

impl HeadOptions {
    /// Raw logits r to `z = cap·tanh(r / cap) / temperature`.
    pub(super) fn shape(&self, logits: &mut [f32]) {
        if self.soft_cap.is_none() && self.temperature == 1.0 {
            return;
        }
        let scale = 1.0 / self.temperature;
        simd(
            #[inline(always)]
            || match self.soft_cap {
                Some(cap) => logits.iter_mut().for_each(|z| *z = cap * scale * tanh(*z / cap)),
                None => logits.iter_mut().for_each(|z| *z *= scale),
            },
        );
    }

    /// dz/dr as a function of z.
    #[inline(always)]
    fn slope(&self) -> impl Fn(f32) -> f32 + use<> {
        let (temperature, per_cap) = (self.temperature, self.soft_cap.map_or(0.0, |cap| self.temperature / cap));
        #[inline(always)]
        move |z| (1.0 - (z * per_cap) * (z * per_cap)) / temperature
    }
}
