//! Weighting by uncertainty: a task whose loss stays large counts less, by a variance that is learnt with the model.
//!
//! ```text
//! loss = Σ_i c_i·e^(−s_i)·L_i + s_i/2        c_i = 1, of a regression ½
//! ∂loss/∂s_i = −c_i·e^(−s_i)·L_i + ½
//! ```
//!
//! L_i: the mean loss of task i in the batch; s_i = ln σ_i²: the logarithm of its variance, at first 0. Where L_i is constant, s_i comes to rest
//! at ln(2·c_i·L_i), and every task then weighs one half over its loss.
//! Source: Kendall, Gal and Cipolla, arXiv:1705.07115, Eq. 7 for regression and Eq. 10 for classification, with s as in their Section 3.2.
//! Differs from the source: s has a learning rate of its own, and no decay.

use super::adam::Adam;
use burn::tensor::Device;

/// The variances of the tasks.
#[derive(Clone, Debug)]
pub struct Uncertainty {
    pub(crate) log_variances: Adam,
    /// c.
    factors: Vec<f64>,
}

impl Uncertainty {
    /// One variance for each task, which is a regression or not.
    pub fn new(is_regression: &[bool], learning_rate: f64, device: &Device) -> Self {
        let factors: Vec<f64> = is_regression.iter().map(|&is_regression| if is_regression { 0.5 } else { 1.0 }).collect();
        Self { log_variances: Adam::new(factors.len(), learning_rate, device), factors }
    }

    /// s.
    pub fn log_variances(&self) -> Vec<f64> {
        self.log_variances.values()
    }

    /// The factor of each task's loss, `c_i·e^(−s_i)`.
    pub fn weights(&self) -> Vec<f64> {
        self.log_variances().into_iter().zip(&self.factors).map(|(s, factor)| factor * (-s).exp()).collect()
    }

    /// Learns from the mean losses of a batch; a task without rows in it has none.
    pub fn learn(&mut self, losses: &[Option<f64>]) {
        let gradient = |(weight, loss): (f64, &Option<f64>)| loss.map_or(0.0, |loss| 0.5 - weight * loss);
        let gradient: Vec<f64> = self.weights().into_iter().zip(losses).map(gradient).collect();
        self.log_variances.step(&gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_step_by_hand() {
        let mut uncertainty = Uncertainty::new(&[false, true, false], 0.1, &Device::flex());
        assert_eq!(uncertainty.weights(), [1.0, 0.5, 1.0]);
        // ½ − 2 < 0, ½ − ½·0.5 > 0, no rows: Adam's first step has the size of the learning rate.
        uncertainty.learn(&[Some(2.0), Some(0.5), None]);
        let found = uncertainty.log_variances();
        assert!([0.1, -0.1, 0.0].iter().zip(&found).all(|(expected, found)| (expected - found).abs() < 1e-6), "{found:?}");
        let weights = uncertainty.weights();
        assert!([(-0.1f64).exp(), 0.5 * 0.1f64.exp(), 1.0].iter().zip(&weights).all(|(expected, found)| (expected - found).abs() < 1e-6));
    }

    #[test]
    fn constant_losses_come_to_weigh_the_same() {
        let mut uncertainty = Uncertainty::new(&[false, true], 0.02, &Device::flex());
        (0..600).for_each(|_| uncertainty.learn(&[Some(3.0), Some(0.2)]));
        let weighed: Vec<f64> = uncertainty.weights().into_iter().zip([3.0, 0.2]).map(|(weight, loss)| weight * loss).collect();
        assert!(weighed.iter().all(|weighed| (weighed - 0.5).abs() < 1e-2), "{weighed:?}");
    }
}
