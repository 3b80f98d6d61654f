//! Advantages: how much better a completion did than was to be expected of its prompt.
//!
//! ```text
//! moving baseline     A_i = r_i − b                       b: the moving mean of earlier steps' rewards
//! leave one out       A_i = r_i − mean_{j≠i} r_j = G/(G − 1) · (r_i − r̄)
//! group mean          A_i = r_i − r̄
//! group standardised  A_i = (r_i − r̄) / (s + 1e-4)        s² = Σ (r_j − r̄)² / (G − 1)
//! ```
//!
//! r: rewards of the G completions of one prompt. The first two leave the policy gradient unbiased; the group mean shrinks it by
//! (G − 1)/G, and the standard deviation weighs prompts by how alike their rewards are.
//! Source: Williams, "Simple statistical gradient-following algorithms" (1992), Eq. 11 with its reinforcement comparison; RLOO,
//! arXiv:2402.14740, Section 2.3; Dr. GRPO, arXiv:2503.20783, Section 3.1; GRPO, arXiv:2402.03300, Section 4.1.2.
//! Differs from the source: s and the 1e-4 are TRL's.

use crate::config::Advantage;

/// Added to a group's standard deviation, TRL's.
const EPSILON: f64 = 1e-4;

/// The share of the old baseline in the new one.
const DECAY: f64 = 0.9;

/// The advantage of each completion; `rewards` are those of groups of `group_size`, one after the other.
///
/// # Panics
/// For [`Advantage::Generalised`], which needs values.
pub fn advantages(kind: Advantage, rewards: &[f64], group_size: usize, baseline: f64) -> Vec<f64> {
    let of_group = |group: &[f64]| -> Vec<f64> {
        let n = group.len() as f64;
        let mean = group.iter().sum::<f64>() / n;
        let centred = group.iter().map(|reward| if is_dead(group) { 0.0 } else { reward - mean });
        match kind {
            Advantage::MovingBaseline => group.iter().map(|reward| reward - baseline).collect(),
            Advantage::LeaveOneOut => centred.map(|advantage| advantage * n / (n - 1.0)).collect(),
            Advantage::GroupMean => centred.collect(),
            Advantage::GroupStandardised => {
                let variance = group.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (n - 1.0);
                centred.map(|advantage| advantage / (variance.sqrt() + EPSILON)).collect()
            }
            Advantage::Generalised => panic!("generalised advantages are per token, see the file of PPO"),
        }
    };
    rewards.chunks(group_size).flat_map(of_group).collect()
}

/// Whether a group teaches nothing: all its rewards are the same.
pub fn is_dead(group: &[f64]) -> bool {
    group.iter().all(|reward| *reward == group[0])
}

/// The moving baseline after a step with these rewards.
pub fn moved_baseline(baseline: f64, rewards: &[f64]) -> f64 {
    DECAY * baseline + (1.0 - DECAY) * rewards.iter().sum::<f64>() / rewards.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Means 2 and 5; squared deviations 1 + 1 + 4 + 0 over 3.
        let rewards = [1.0, 3.0, 4.0, 0.0, 5.0, 5.0, 5.0, 5.0];
        let of = |kind| advantages(kind, &rewards, 4, 0.5);
        assert_eq!(of(Advantage::MovingBaseline), [0.5, 2.5, 3.5, -0.5, 4.5, 4.5, 4.5, 4.5]);
        assert_eq!(of(Advantage::GroupMean), [-1.0, 1.0, 2.0, -2.0, 0.0, 0.0, 0.0, 0.0]);
        // The others' means: 7/3, 5/3, 4/3, 8/3.
        let expected = [1.0 - 7.0 / 3.0, 3.0 - 5.0 / 3.0, 4.0 - 4.0 / 3.0, -8.0 / 3.0];
        assert!(of(Advantage::LeaveOneOut).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
        let deviation = (10.0f64 / 3.0).sqrt() + 1e-4;
        let standardised = of(Advantage::GroupStandardised);
        assert!(standardised.iter().zip([-1.0, 1.0, 2.0, -2.0]).all(|(a, b)| (a - b / deviation).abs() < 1e-12));
        assert_eq!(standardised[4..], [0.0; 4]);
        assert!((moved_baseline(2.0, &[4.0, 8.0]) - 2.4).abs() < 1e-12);
    }

    /// 0.1 three times does not average to 0.1.
    #[test]
    fn equal_rewards_are_no_advantage_to_the_last_bit() {
        for kind in [Advantage::LeaveOneOut, Advantage::GroupMean, Advantage::GroupStandardised] {
            assert_eq!(advantages(kind, &[0.1; 3], 3, 0.0), [0.0; 3]);
        }
        assert!(is_dead(&[0.1; 3]) && !is_dead(&[0.1, 0.1, 0.2]));
    }
}
