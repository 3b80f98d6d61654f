//! Group DRO: the group with the highest loss counts most.
//!
//! ```text
//! q_g ← q_g·exp(η·(ℓ_g + C/√n_g)) / Σ_h q_h·exp(η·(ℓ_h + C/√n_h))        loss = Σ_g q_g·ℓ_g
//! ```
//!
//! ℓ_g: the mean cross-entropy of the rows of group g in the batch, 0 if it has none there; q_g: the weight of the group, at first the same for
//! all; η: the step size; n_g: training rows of the group; C: by how much the loss of small groups, which are learnt by heart sooner, is taken to
//! be too low. Rows of one group have one label and, as far as is known, one attribute.
//! Source: Sagawa, Koh, Hashimoto and Liang, arXiv:1911.08731, Algorithm 1 and Section 3.3.  Differs from the source: a batch has rows of several
//! groups, drawn so that all groups come as often in an epoch, as in the authors' code.

use std::iter::zip;

/// What is added to the loss of each group, C/√n; of groups without rows nothing, which have no weight either.
pub fn adjustments(counts: &[usize], adjustment: f64) -> Vec<f64> {
    counts.iter().map(|&count| if count == 0 { 0.0 } else { adjustment / (count as f64).sqrt() }).collect()
}

/// The weights of groups after a batch with these losses, and how much each of its rows counts; the weights of the rows sum up to those of the
/// groups that are there.
///
/// # Shapes
/// `weights`: one for each group, which sum up to 1; `losses` and `groups`: one for each row; `adjustments`: one for each group.
pub fn step(weights: &mut [f64], losses: &[f64], groups: &[usize], step_size: f64, adjustments: &[f64]) -> Vec<f32> {
    let mut sums = vec![(0.0, 0_usize); weights.len()];
    for (&loss, &group) in zip(losses, groups) {
        let (sum, count) = sums[group];
        sums[group] = (sum + loss, count + 1);
    }
    for ((weight, &(sum, count)), adjustment) in zip(zip(weights.iter_mut(), &sums), adjustments) {
        *weight *= (step_size * (sum / count.max(1) as f64 + adjustment)).exp();
    }
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    groups.iter().map(|&group| (weights[group] / sums[group].1 as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of losses 1 and 3, a third without rows, η = ln 2: q is multiplied by 2, 8 and 1.
    #[test]
    fn a_step_by_hand() {
        let mut weights = vec![0.25, 0.25, 0.5];
        let rows = step(&mut weights, &[0.5, 3.0, 1.5], &[0, 1, 0], 2.0_f64.ln(), &[0.0; 3]);
        for (found, expected) in zip(&weights, [0.5 / 3.0, 2.0 / 3.0, 0.5 / 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{weights:?}");
        }
        for (found, expected) in zip(&rows, [0.25 / 3.0, 2.0 / 3.0, 0.25 / 3.0]) {
            assert!((found - expected).abs() < 1e-6, "{rows:?}");
        }
    }

    /// Groups of 4 and 16 rows with the same loss, C = 2: the first has 1 more, the second ½, so that with η = ln 4 their weights are as 2 to 1.
    #[test]
    fn small_groups_count_more_by_the_adjustment() {
        let adjustments = adjustments(&[4, 16, 0], 2.0);
        assert_eq!(adjustments, [1.0, 0.5, 0.0]);
        let mut weights = vec![0.5, 0.5, 0.0];
        step(&mut weights, &[0.7, 0.7], &[0, 1], 4.0_f64.ln(), &adjustments);
        assert!(zip(&weights, [2.0 / 3.0, 1.0 / 3.0, 0.0]).all(|(found, expected)| (found - expected).abs() < 1e-12), "{weights:?}");
    }

    #[test]
    fn equal_losses_change_nothing_and_the_highest_wins_in_the_end() {
        let mut weights = vec![0.2, 0.3, 0.5];
        step(&mut weights, &[0.7, 0.7, 0.7], &[0, 1, 2], 0.3, &[0.0; 3]);
        assert!(zip(&weights, [0.2, 0.3, 0.5]).all(|(found, expected)| (found - expected).abs() < 1e-12));
        (0..2000).for_each(|_| drop(step(&mut weights, &[0.9, 1.0, 0.8], &[0, 1, 2], 0.1, &[0.0; 3])));
        assert!(weights[1] > 0.999, "{weights:?}");
    }
}
