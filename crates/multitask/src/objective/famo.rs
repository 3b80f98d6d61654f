//! FAMO: weights under which the losses of all tasks fall at one rate, from the losses alone.
//!
//! ```text
//! z = softmax(ξ)        c = 1 / Σ_i z_i/L_i
//! loss = c·Σ_i z_i·ln L_i        ∂loss/∂θ = Σ_i (c·z_i/L_i)·∂L_i/∂θ
//! δ_i = ln L_i(before the update) − ln L_i(after it)
//! ∂/∂ξ = Σ_i δ_i·∂z_i/∂ξ + γ·ξ        by Adam
//! ```
//!
//! L_i: the mean loss of task i in the batch, before and after the update on the same rows under the same dropout; ξ: the logits of the weights,
//! at first 0; γ = 0.001, the decay of ξ. A task that fell faster than the others weighs less from then on.
//! Source: Liu, Feng, Stone and Liu, arXiv:2306.03792, Algorithm 1.
//! Differs from the source: ξ is learnt by Adam, as in the authors' program, which also adds the 10⁻⁸ to each loss. A task without rows in the
//! batch leaves ξ as it is. Losses after the update take a second forward pass over the batch.

use super::adam::Adam;
use burn::tensor::Device;

/// γ.
const DECAY: f64 = 1e-3;
/// Keeps the logarithm of a loss finite.
const SMALLEST_LOSS: f64 = 1e-8;

/// The weights of the tasks.
#[derive(Clone, Debug)]
pub struct Famo {
    pub(crate) logits: Adam,
}

impl Famo {
    /// Equal weights for `n` tasks.
    pub fn new(n: usize, learning_rate: f64, device: &Device) -> Self {
        Self { logits: Adam::new(n, learning_rate, device) }
    }

    /// z.
    pub fn shares(&self) -> Vec<f64> {
        let logits = self.logits.values();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    /// The factor of each task's loss, `c·z_i/L_i`, where its rows are in the batch; they sum to 1.
    pub fn weights(&self, losses: &[Option<f64>]) -> Vec<f64> {
        let over = |(share, loss): (f64, &Option<f64>)| loss.map_or(0.0, |loss| share / (loss + SMALLEST_LOSS));
        let ratios: Vec<f64> = self.shares().into_iter().zip(losses).map(over).collect();
        let sum: f64 = ratios.iter().sum();
        ratios.iter().map(|ratio| ratio / sum).collect()
    }

    /// Learns from the mean losses of a batch before and after an update.
    pub fn learn(&mut self, before: &[Option<f64>], after: &[Option<f64>]) {
        let fall = |(before, after): (&Option<f64>, &Option<f64>)| {
            Some((before.as_ref()? + SMALLEST_LOSS).ln() - (after.as_ref()? + SMALLEST_LOSS).ln())
        };
        let falls: Vec<Option<f64>> = before.iter().zip(after).map(fall).collect();
        let shares = self.shares();
        let (mut weighed, mut seen) = (0.0, 0.0);
        for (share, fall) in shares.iter().zip(&falls) {
            weighed += share * fall.unwrap_or(0.0);
            seen += fall.map_or(0.0, |_| *share);
        }
        let mean = weighed / seen;
        let of_task = |((share, fall), logit): ((&f64, &Option<f64>), f64)| fall.map_or(0.0, |fall| share * (fall - mean)) + DECAY * logit;
        let gradient: Vec<f64> = shares.iter().zip(&falls).zip(self.logits.values()).map(of_task).collect();
        self.logits.step(&gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn weights_by_hand() {
        let famo = Famo::new(3, 0.1, &Device::flex());
        assert_close(&famo.shares(), &[1.0 / 3.0; 3]);
        // In proportion to 1/2, 1 and 1/4, and so that they sum to 1.
        assert_close(&famo.weights(&[Some(2.0), Some(1.0), Some(4.0)]), &[2.0 / 7.0, 4.0 / 7.0, 1.0 / 7.0]);
        assert_close(&famo.weights(&[Some(2.0), None, Some(4.0)]), &[2.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_close(&famo.weights(&[None, Some(5.0), None]), &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_task_that_fell_faster_weighs_less() {
        let mut famo = Famo::new(2, 0.1, &Device::flex());
        famo.learn(&[Some(2.0), Some(2.0)], &[Some(1.0), Some(1.9)]);
        // Adam's first step: −0.1 for the one, 0.1 for the other.
        let low = 1.0 / (1.0 + 0.2f64.exp());
        assert_close(&famo.shares(), &[low, 1.0 - low]);
    }

    #[test]
    fn a_task_without_rows_keeps_its_place() {
        let mut famo = Famo::new(3, 0.1, &Device::flex());
        famo.learn(&[Some(2.0), None, Some(2.0)], &[Some(1.0), None, Some(2.0)]);
        let shares = famo.shares();
        assert!(
            shares[0] < shares[1] && shares[1] < shares[2] && (shares[0] * shares[2] - shares[1] * shares[1]).abs() < 1e-6,
            "{shares:?}"
        );
        // One task alone has nothing to be weighed against.
        let mut famo = Famo::new(1, 0.1, &Device::flex());
        famo.learn(&[Some(2.0)], &[Some(1.0)]);
        assert_eq!((famo.shares(), famo.weights(&[Some(0.3)])), (vec![1.0], vec![1.0]));
    }
}
