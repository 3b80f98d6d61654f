//! TIES: what several fine-tuned models learnt, added up where they agree.
//!
//! ```text
//! τ_k = θ_k − θ⁰, all but the `density` largest of its elements set to 0        γ_i = sign(Σ_k τ_ki)
//! θ_i = θ⁰_i + Σ_{k: sign τ_ki = γ_i} w_k·τ_ki / |{k: sign τ_ki = γ_i}|
//! ```
//!
//! Source: Yadav et al., arXiv:2306.01708, Algorithm 1; per tensor, with weights w_k and γ_i = 1 where the sum is 0, as PEFT's `ties`.
//! Differs from the source: each tensor is trimmed by itself; λ is in the weights.

use rayon::prelude::*;

/// `base` with what the `tuned` models have learnt; one weight for each. `density` is the share of each model's changes that is kept.
///
/// # Panics
/// If the lengths differ.
pub fn merge(base: &[f32], tuned: &[Vec<f32>], weights: &[f64], density: f64) -> Vec<f32> {
    assert_eq!(tuned.len(), weights.len(), "a weight for each model");
    assert!(tuned.iter().all(|tuned| tuned.len() == base.len()), "every model has the tensor in the same shape");
    let changes: Vec<Vec<f32>> = tuned.par_iter().map(|tuned| trimmed(base, tuned, density)).collect();
    let element = |(index, &base): (usize, &f32)| {
        let sum: f32 = changes.iter().map(|change| change[index]).sum();
        let agrees = |change: f32| if sum >= 0.0 { change > 0.0 } else { change < 0.0 };
        let (mut learnt, mut n_agreeing) = (0.0, 0.0);
        for (change, &weight) in changes.iter().zip(weights) {
            if agrees(change[index]) {
                learnt += weight * f64::from(change[index]);
                n_agreeing += 1.0;
            }
        }
        (f64::from(base) + learnt / f64::max(n_agreeing, 1.0)) as f32
    };
    base.par_iter().enumerate().with_min_len(4096).map(element).collect()
}

/// `tuned − base`, of which the `⌊density·n⌋` elements furthest from 0 are kept, among equals the first, and the others 0.
fn trimmed(base: &[f32], tuned: &[f32], density: f64) -> Vec<f32> {
    let mut change: Vec<f32> = tuned.iter().zip(base).map(|(tuned, base)| tuned - base).collect();
    let n_kept = (density * change.len() as f64) as usize;
    if n_kept < change.len() {
        let mut order: Vec<u32> = (0..change.len() as u32).collect();
        let further = |a: &u32, b: &u32| change[*b as usize].abs().total_cmp(&change[*a as usize].abs()).then(a.cmp(b));
        order.select_nth_unstable_by(n_kept, further);
        let dropped = order.split_off(n_kept);
        dropped.into_iter().for_each(|index| change[index as usize] = 0.0);
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let base = [1.0, 1.0, 1.0, 1.0];
        // Changes (3, -1, 0.5, -2) and (1, 2, -4, 0.25); half are kept: (3, 0, 0, -2) and (0, 2, -4, 0).
        let tuned = [vec![4.0, 0.0, 1.5, -1.0], vec![2.0, 3.0, -3.0, 1.25]];
        assert_eq!(merge(&base, &tuned, &[1.0, 1.0], 0.5), [4.0, 3.0, -3.0, -1.0]);
        // All are kept: sums (4, 1, -3.5, -1.75) elect +, +, -, -.
        assert_eq!(merge(&base, &tuned, &[1.0, 1.0], 1.0), [3.0, 3.0, -3.0, -1.0]);
        assert_eq!(merge(&base, &tuned, &[0.5, 2.0], 1.0), [1.0 + (1.5 + 2.0) / 2.0, 5.0, -7.0, 0.0]);
    }

    #[test]
    fn one_model_kept_whole_is_itself_and_none_of_it_the_base() {
        let (base, tuned) = (vec![0.5, -1.0, 2.0, 0.0], vec![0.75, -3.0, 2.0, 1.0]);
        assert_eq!(merge(&base, std::slice::from_ref(&tuned), &[1.0], 1.0), tuned);
        assert_eq!(merge(&base, std::slice::from_ref(&tuned), &[1.0], 0.0), base);
        assert_eq!(merge(&base, &[tuned.clone(), tuned.clone()], &[1.0, 1.0], 1.0), tuned);
    }
}
