//! Proximal policy optimisation: the clipped policy gradient with an advantage of each token's own, from a value head that learns what reward
//! to expect.
//!
//! ```text
//! δ_t = r_t + γ·V_{t+1} − V_t        A_t = δ_t + γ·λ·A_{t+1}        R_t = A_t + V_t
//! A ← (A − mean A) / (deviation of A + 1e-8), over all tokens of a step
//! value loss = Σ_t w_t · ½·max( (v_t − R_t)², (V_t + clip(v_t − V_t, ±ε_v) − R_t)² )
//! ```
//!
//! r_t: the completion's reward at its last token, less β·(log π − log ref) at every token; V: the value head's expectation of what is still to
//! come when the token was sampled, 0 after the last; v: its expectation now. The whole loss adds the value loss times its coefficient.
//! Source: arXiv:1707.06347, Eq. 7 and 9; generalised advantages: arXiv:1506.02438, Eq. 16; whitening, value clip and the divergence in the
//! rewards: Huang et al., arXiv:2403.17031, Sections 2 and 4.
//! Differs from the source: the value head is a linear layer on the policy's own last hidden states, not a model of its own.

use burn::tensor::{Tensor, TensorData};

/// Added to the deviation of the advantages.
const EPSILON: f64 = 1e-8;

/// The advantages of the tokens of one completion, and the returns their values should have been.
pub fn generalised_advantages(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        advantages[t] = delta + gamma * lambda * next_advantage;
        (next_value, next_advantage) = (values[t], advantages[t]);
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Advantages with mean 0 and variance 1; a single one is only centred.
pub fn whitened(advantages: &[f64]) -> Vec<f64> {
    let n = advantages.len() as f64;
    let mean = advantages.iter().sum::<f64>() / n;
    let variance = advantages.iter().map(|advantage| (advantage - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let scale = if advantages.len() > 1 { 1.0 / (variance.sqrt() + EPSILON) } else { 1.0 };
    advantages.iter().map(|advantage| (advantage - mean) * scale).collect()
}

/// What the value head is compared with at each token.
#[derive(Clone, Debug, Default)]
pub struct ValueTargets {
    /// What it said when the token was sampled.
    pub old: Vec<f32>,
    /// What it should have said.
    pub returns: Vec<f32>,
    /// Each token's share of the sum.
    pub weights: Vec<f32>,
}

/// The value loss, `[1]`.
///
/// # Shapes
/// `values`: `[tokens, 1]`; the targets: one per token.
pub fn value_loss(values: Tensor<2>, targets: &ValueTargets, clip: f64) -> Tensor<1> {
    let [n, _] = values.dims();
    let column = |data: &[f32]| Tensor::<2>::from_data(TensorData::new(data.to_vec(), [n, 1]), &values.device());
    let (old, returns, weights) = (column(&targets.old), column(&targets.returns), column(&targets.weights));
    let free = (values.clone() - returns.clone()).powi_scalar(2);
    let held = (old.clone() + (values - old).clamp(-clip, clip) - returns).powi_scalar(2);
    (free.max_pair(held) * weights).sum() * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn generalised_advantages_by_hand() {
        let (rewards, values) = ([0.0, -1.0, 2.0], [0.5, 1.0, -0.5]);
        let (advantages, returns) = generalised_advantages(&rewards, &values, 0.5, 0.5);
        // δ = 0 + 0.5 − 0.5, −1 − 0.25 − 1, 2 + 0.5; A₂ = 2.5, A₁ = −2.25 + 0.625, A₀ = 0 − 1.625/4.
        assert_eq!(advantages, [-0.40625, -1.625, 2.5]);
        assert_eq!(returns, [0.09375, -0.625, 2.0]);
    }

    /// λ = 1: what came less what was expected. λ = 0: one step ahead.
    #[test]
    fn the_limits_of_lambda() {
        let (rewards, values) = ([0.25, -1.0, 2.0], [0.5, 1.0, -0.5]);
        let (all, returns) = generalised_advantages(&rewards, &values, 1.0, 1.0);
        assert_eq!(all, [1.25 - 0.5, 1.0 - 1.0, 2.0 + 0.5]);
        assert_eq!(returns, [1.25, 1.0, 2.0]);
        let (one, _) = generalised_advantages(&rewards, &values, 1.0, 0.0);
        assert_eq!(one, [0.25 + 1.0 - 0.5, -1.0 - 0.5 - 1.0, 2.0 + 0.5]);
    }

    #[test]
    fn whitened_advantages_have_mean_0_and_variance_1() {
        let white = whitened(&[1.0, 2.0, 6.0]);
        assert!(white.iter().sum::<f64>().abs() < 1e-12);
        assert!((white.iter().map(|a| a * a).sum::<f64>() / 2.0 - 1.0).abs() < 1e-6);
        assert_eq!(whitened(&[3.0]), [0.0]);
        assert_eq!(whitened(&[2.0, 2.0]), [0.0, 0.0]);
    }

    #[test]
    fn a_value_that_has_moved_enough_is_left_alone() {
        let targets = ValueTargets { old: vec![0.0; 3], returns: vec![1.0; 3], weights: vec![1.0, 1.0, 2.0] };
        let values = [0.1, 0.5, -0.5];
        let values = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [3, 1]), &Device::flex().autodiff()).require_grad();
        let loss = value_loss(values.clone(), &targets, 0.2);
        // Inside: 0.9²; beyond, in the right direction: 0.8², and no gradient; in the wrong direction: 1.5² twice.
        assert!((loss.clone().into_scalar::<f32>() - 0.5 * (0.81 + 0.64 + 2.0 * 2.25)).abs() < 1e-6);
        let gradient: Vec<f32> = values.grad(&loss.backward()).unwrap().into_data().try_to_vec().unwrap();
        let expected = [-0.9, 0.0, -3.0];
        assert!(gradient.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{gradient:?}");
    }
}
