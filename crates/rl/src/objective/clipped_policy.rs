//! The clipped policy gradient: follows the advantage, but ignores gains from moving a token's probability further than the clip range from
//! the policy that sampled it.
//!
//! ```text
//! loss = Σ_t w_t · ( −min(ρ_t·A_t, clip(ρ_t, 1 − ε_low, 1 + ε_high)·A_t) + β·ρ_t·k_t )
//! ρ_t  = exp(l_t − old_t)        k_t = exp(ref_t − l_t) − (ref_t − l_t) − 1
//! d/dl_t = w_t · ( −ρ_t·A_t, or 0 where the clip holds;  + β·ρ_t·(l_t − ref_t) )
//! ```
//!
//! l, old, ref: log-probabilities of a sampled token under the policy, under the policy when it was sampled, and under the reference; A: the
//! completion's advantage, with PPO the token's; w: what the sum is divided by, see [`weights`]. At ρ = 1 the gradient is that of
//! REINFORCE. k is the estimator k3; times ρ its expected gradient is that of KL(π ‖ ref) after the tokens before, while k alone would have
//! the gradient of KL(ref ‖ π).
//! Source: PPO, arXiv:1707.06347, Eq. 7; GRPO, arXiv:2402.03300, Eq. 3 and 4; Dr. GRPO, arXiv:2503.20783, Section 3.2; DAPO,
//! arXiv:2503.14476, Eq. 8 to 12; ρ·k: DeepSeek-V3.2, arXiv:2512.02556, Section 3.1.
//! Differs from the source: RLOO's and REINFORCE's ratios are per token too, which is the same where they are 1.

use crate::config::{Normalisation, Parts};
use kiln_kernels::cross_entropy::TokenLoss;

/// What one sampled token brings to the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    /// Its log-probability when it was sampled, in nats.
    pub old: f64,
    /// That under the reference model, where the divergence is a term of the loss.
    pub reference: Option<f64>,
    /// Its advantage.
    pub advantage: f64,
    /// Its share of the sum.
    pub weight: f64,
}

impl SampledToken {
    /// Its loss and derivative at the log-probability `l`.
    pub fn loss(&self, parts: &Parts, l: f64) -> TokenLoss {
        let &Self { old, reference, advantage, weight } = self;
        let ratio = (l - old).exp();
        let clipped = ratio.clamp(1.0 - parts.clip_low, 1.0 + parts.clip_high);
        let is_clipped = clipped * advantage < ratio * advantage;
        let (mut loss, mut slope) = (-(ratio * advantage).min(clipped * advantage), if is_clipped { 0.0 } else { -ratio * advantage });
        if let Some(reference) = reference {
            loss += parts.kl_coefficient * ratio * k3(reference, l);
            slope += parts.kl_coefficient * ratio * (l - reference);
        }
        TokenLoss { loss: weight * loss, slope: weight * slope }
    }

    /// Whether the clip holds it back at the log-probability `l`.
    pub fn is_clipped(&self, parts: &Parts, l: f64) -> bool {
        let ratio = (l - self.old).exp();
        ratio.clamp(1.0 - parts.clip_low, 1.0 + parts.clip_high) * self.advantage < ratio * self.advantage
    }
}

/// The estimate k3 of the divergence of a policy from the reference at a token sampled from the policy, in nats: never below 0, and unbiased.
///
/// Source: Schulman, "Approximating KL divergence" (2020).
pub fn k3(reference: f64, l: f64) -> f64 {
    let d = reference - l;
    d.exp_m1() - d
}

/// The weight of a token of each completion, given the completions' lengths; one of length 0 does not train and is not counted.
pub fn weights(normalisation: Normalisation, lengths: &[usize], max_new_tokens: usize) -> Vec<f64> {
    let n = lengths.iter().filter(|&&length| length > 0).count().max(1) as f64;
    let n_tokens = lengths.iter().sum::<usize>().max(1) as f64;
    let of = |&length: &usize| match normalisation {
        Normalisation::Completion => 1.0 / n,
        Normalisation::CompletionMean => 1.0 / (n * length.max(1) as f64),
        Normalisation::Token => 1.0 / n_tokens,
        Normalisation::MaxTokens => 1.0 / (n * max_new_tokens as f64),
    };
    lengths.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Algorithm;

    fn token(advantage: f64, reference: Option<f64>) -> SampledToken {
        SampledToken { old: -1.0, reference, advantage, weight: 0.5 }
    }

    #[test]
    fn the_slope_is_the_derivative_and_vanishes_where_the_clip_holds() {
        let parts = Parts { kl_coefficient: 0.3, ..Algorithm::Dapo.parts() };
        for advantage in [2.0, -2.0, 0.0] {
            for reference in [None, Some(-1.7)] {
                for l in [-1.6, -1.1, -1.0, -0.9, -0.5] {
                    let token = token(advantage, reference);
                    let at = |l| token.loss(&parts, l).loss;
                    let expected = (at(l + 1e-6) - at(l - 1e-6)) / 2e-6;
                    assert!((token.loss(&parts, l).slope - expected).abs() < 1e-6, "{advantage} {reference:?} {l}");
                    let held = (advantage > 0.0 && l == -0.5) || (advantage < 0.0 && l == -1.6);
                    assert_eq!(token.is_clipped(&parts, l), held);
                    assert_eq!(
                        reference.is_none() && token.loss(&parts, l).slope == 0.0,
                        reference.is_none() && (held || advantage == 0.0)
                    );
                }
            }
        }
    }

    #[test]
    fn by_hand() {
        let parts = Algorithm::Grpo.parts();
        // Half as likely again: 1.2 counts. Half as likely: all of it counts.
        let at = |ratio: f64, advantage| token(advantage, None).loss(&parts, ratio.ln() - 1.0).loss;
        assert!((at(1.5, 2.0) + 0.5 * 1.2 * 2.0).abs() < 1e-12);
        assert!((at(0.5, 2.0) + 0.5 * 0.5 * 2.0).abs() < 1e-12);
        assert!((at(0.5, -2.0) - 0.5 * 0.8 * 2.0).abs() < 1e-12);
        assert!((at(1.5, -2.0) - 0.5 * 1.5 * 2.0).abs() < 1e-12);
        // Without a clip any ratio counts.
        let free = token(2.0, None).loss(&Algorithm::Rloo.parts(), 3.0f64.ln() - 1.0);
        assert!((free.loss + 3.0).abs() < 1e-12 && (free.slope + 3.0).abs() < 1e-12);
        // Twice as likely under the reference: 2 − ln 2 − 1.
        assert!((k3(2.0f64.ln() - 1.0, -1.0) - (1.0 - 2.0f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn weights_by_hand() {
        let of = |normalisation| weights(normalisation, &[2, 0, 6], 10);
        assert_eq!(of(Normalisation::Completion), [0.5; 3]);
        assert_eq!([of(Normalisation::CompletionMean)[0], of(Normalisation::CompletionMean)[2]], [0.25, 1.0 / 12.0]);
        assert_eq!(of(Normalisation::Token), [0.125; 3]);
        assert_eq!(of(Normalisation::MaxTokens), [0.05; 3]);
    }
}
