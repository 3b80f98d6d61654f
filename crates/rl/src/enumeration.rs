//! Every estimator against the true gradient, by enumerating all sequences of a tiny language: three tokens, of which the last ends a
//! sequence, and at most two steps.

use crate::config::{Advantage, Algorithm, Normalisation, Parts};
use crate::objective::advantage::advantages;
use crate::objective::clipped_policy::{SampledToken, weights};
use crate::objective::ppo::generalised_advantages;

/// Logits of the first token, then of the second after each first.
type Policy = [[f64; 3]; 3];

const END: usize = 2;
const POLICY: Policy = [[0.3, -0.5, 0.1], [-0.2, 0.8, 0.4], [0.9, 0.0, -0.7]];
const REFERENCE: Policy = [[-0.4, 0.2, 0.5], [0.6, -0.3, 0.0], [0.1, 0.7, -0.2]];

/// All sequences: the end at once, or any token after another one.
fn sequences() -> Vec<Vec<usize>> {
    let two = (0..END).flat_map(|first| (0..3).map(move |second| vec![first, second]));
    std::iter::once(vec![END]).chain(two).collect()
}

/// The row of logits a token of a sequence is drawn from.
fn row(sequence: &[usize], t: usize) -> usize {
    if t == 0 { 0 } else { 1 + sequence[0] }
}

fn probabilities(logits: &[f64; 3]) -> [f64; 3] {
    let total: f64 = logits.iter().map(|z| z.exp()).sum();
    logits.map(|z| z.exp() / total)
}

fn log_probabilities(policy: &Policy, sequence: &[usize]) -> Vec<f64> {
    (0..sequence.len()).map(|t| probabilities(&policy[row(sequence, t)])[sequence[t]].ln()).collect()
}

fn probability(policy: &Policy, sequence: &[usize]) -> f64 {
    log_probabilities(policy, sequence).iter().sum::<f64>().exp()
}

fn reward(sequence: &[usize]) -> f64 {
    match sequence {
        [END] => 0.7,
        [0, second] => [1.5, -0.4, 0.9][*second],
        [_, second] => [0.2, 2.0, -1.0][*second],
        _ => unreachable!("a sequence has one or two tokens"),
    }
}

/// The expectation of `of` over the policy's sequences.
fn expectation(policy: &Policy, of: impl Fn(&[usize]) -> f64) -> f64 {
    sequences().iter().map(|sequence| probability(policy, sequence) * of(sequence)).sum()
}

/// The gradient of a function of the policy, by central differences.
fn gradient(of: impl Fn(&Policy) -> f64) -> Vec<f64> {
    let at = |index: usize, step: f64| {
        let mut policy = POLICY;
        policy[index / 3][index % 3] += step;
        of(&policy)
    };
    (0..9).map(|index| (at(index, 1e-5) - at(index, -1e-5)) / 2e-5).collect()
}

/// The gradient of the loss of a group, through the derivatives of its tokens' log-probabilities.
fn of_group(group: &[&[usize]], parts: &Parts, advantages: &[Vec<f64>], with_reference: bool) -> Vec<f64> {
    let lengths: Vec<usize> = group.iter().map(|sequence| sequence.len()).collect();
    let weights = weights(parts.normalisation, &lengths, 2);
    let mut gradient = vec![0.0; 9];
    for (index, sequence) in group.iter().enumerate() {
        let references = log_probabilities(&REFERENCE, sequence);
        for (t, l) in log_probabilities(&POLICY, sequence).into_iter().enumerate() {
            let reference = with_reference.then_some(references[t]);
            let token = SampledToken { old: l, reference, advantage: advantages[index][t], weight: weights[index] };
            let (row, slope) = (row(sequence, t), token.loss(parts, l).slope);
            for (class, p) in probabilities(&POLICY[row]).into_iter().enumerate() {
                gradient[3 * row + class] += slope * (f64::from(u8::from(class == sequence[t])) - p);
            }
        }
    }
    gradient
}

/// The expected gradient over all groups of `size` sequences.
fn expected(size: usize, of: impl Fn(&[&[usize]]) -> Vec<f64>) -> Vec<f64> {
    let all = sequences();
    let mut sum = vec![0.0; 9];
    for code in 0..all.len().pow(size as u32) {
        let group: Vec<&[usize]> = (0..size as u32).map(|place| all[code / all.len().pow(place) % all.len()].as_slice()).collect();
        let p: f64 = group.iter().map(|sequence| probability(&POLICY, sequence)).product();
        sum.iter_mut().zip(of(&group)).for_each(|(sum, value)| *sum += p * value);
    }
    sum
}

/// The expected step of an algorithm, the loss's gradient turned round, for groups of `size` with these rewards.
fn step(parts: &Parts, size: usize, reward: impl Fn(&[usize]) -> f64) -> Vec<f64> {
    let of = |group: &[&[usize]]| {
        let rewards: Vec<f64> = group.iter().map(|sequence| reward(sequence)).collect();
        let of_sequences = advantages(parts.advantage, &rewards, size, 0.37);
        let of_tokens: Vec<Vec<f64>> = of_sequences.iter().zip(group).map(|(&a, sequence)| vec![a; sequence.len()]).collect();
        of_group(group, parts, &of_tokens, false)
    };
    expected(size, of).into_iter().map(|value| -value).collect()
}

fn assert_equal(what: &str, found: &[f64], expected: &[f64], factor: f64) {
    assert!(expected.iter().any(|value| value.abs() > 1e-2), "{what}: there is something to compare");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - factor * expected).abs() < 1e-8, "{what}[{index}]: found {found}, expected {}", factor * expected);
    }
}

#[test]
fn reinforce_and_leave_one_out_are_unbiased() {
    let truth = gradient(|policy| expectation(policy, reward));
    for size in [1, 2, 3] {
        assert_equal("REINFORCE", &step(&Algorithm::Reinforce.parts(), size, reward), &truth, 1.0);
    }
    for size in [2, 3] {
        assert_equal("RLOO", &step(&Algorithm::Rloo.parts(), size, reward), &truth, 1.0);
    }
}

#[test]
fn the_groups_mean_takes_a_share_of_the_gradient() {
    let truth = gradient(|policy| expectation(policy, reward));
    // Dr. GRPO divides by the 2 tokens there may be, and its mean includes the completion itself.
    for (size, share) in [(2, 0.5), (3, 2.0 / 3.0)] {
        assert_equal("Dr. GRPO", &step(&Algorithm::DrGrpo.parts(), size, reward), &truth, share / 2.0);
    }
}

/// Of two rewards of 0 or 1 that differ, each is half a unit from the mean, and 1/√2 is their deviation.
#[test]
fn the_deviation_scales_the_gradient_of_two_yes_or_no_rewards() {
    let is_good = |sequence: &[usize]| f64::from(u8::from(reward(sequence) > 0.5));
    let truth = gradient(|policy| expectation(policy, is_good));
    let parts = Parts { normalisation: Normalisation::Completion, ..Algorithm::Grpo.parts() };
    assert_equal("GRPO", &step(&parts, 2, is_good), &truth, 0.5 / (0.5f64.sqrt() + 1e-4));
}

/// Dividing by a completion's own length is following (1 − 1/G)·(∇E[r/|o|] − E[r]·∇E[1/|o|]): short good answers are worth more.
#[test]
fn a_mean_over_a_completions_tokens_is_biased_by_length() {
    let length = |sequence: &[usize]| sequence.len() as f64;
    let by_length = gradient(|policy| expectation(policy, |sequence| reward(sequence) / length(sequence)));
    let of_length = gradient(|policy| expectation(policy, |sequence| 1.0 / length(sequence)));
    let mean = expectation(&POLICY, reward);
    let biased: Vec<f64> = by_length.iter().zip(&of_length).map(|(a, b)| a - mean * b).collect();
    let parts = Parts { advantage: Advantage::GroupMean, ..Algorithm::Grpo.parts() };
    assert_equal("GRPO", &step(&parts, 3, reward), &biased, 2.0 / 3.0);
}

/// DAPO's divisor depends on the sampled lengths too: with the same length for all it is a constant.
#[test]
fn a_mean_over_all_tokens_is_unbiased_where_lengths_agree() {
    let parts = Parts { advantage: Advantage::LeaveOneOut, ..Algorithm::Dapo.parts() };
    let two = |group: &[&[usize]]| {
        let rewards: Vec<f64> = group.iter().map(|sequence| reward(sequence)).collect();
        let of_tokens: Vec<Vec<f64>> =
            advantages(parts.advantage, &rewards, 2, 0.0).iter().zip(group).map(|(&a, sequence)| vec![a; sequence.len()]).collect();
        let whole = of_group(group, &parts, &of_tokens, false);
        let n_tokens: usize = group.iter().map(|sequence| sequence.len()).sum();
        // What is left of the divisor once that of the unbiased sum is taken out.
        whole.into_iter().map(|value| -value * n_tokens as f64 / 2.0).collect()
    };
    assert_equal("DAPO", &expected(2, two), &gradient(|policy| expectation(policy, reward)), 1.0);
}

/// Any value head leaves the gradient as it is when λ = 1: what it says of a state does not depend on what is drawn there.
#[test]
fn generalised_advantages_with_any_values_are_unbiased() {
    let parts = Parts { normalisation: Normalisation::Completion, ..Algorithm::Ppo.parts() };
    let values = |sequence: &[usize]| (0..sequence.len()).map(|t| [0.9, -0.3, 1.7][row(sequence, t)]).collect::<Vec<f64>>();
    let of = |group: &[&[usize]]| {
        let mut rewards = vec![0.0; group[0].len()];
        *rewards.last_mut().expect("a token") = reward(group[0]);
        let (advantages, _) = generalised_advantages(&rewards, &values(group[0]), 1.0, 1.0);
        of_group(group, &parts, &[advantages], false).into_iter().map(|value| -value).collect()
    };
    assert_equal("PPO", &expected(1, of), &gradient(|policy| expectation(policy, reward)), 1.0);
}

/// KL(π ‖ ref) of a row of logits.
fn divergence(policy: &Policy, row: usize) -> f64 {
    let references = probabilities(&REFERENCE[row]);
    probabilities(&policy[row]).iter().zip(references).map(|(p, reference)| p * (p / reference).ln()).sum()
}

#[test]
fn the_divergence_in_the_loss_has_the_gradient_of_each_tokens_divergence() {
    let parts = Parts { normalisation: Normalisation::Completion, kl_coefficient: 0.6, ..Algorithm::Reinforce.parts() };
    let of = |group: &[&[usize]]| of_group(group, &parts, &[vec![0.0; group[0].len()]], true);
    // How often a row is reached is not differentiated: the term knows nothing of the tokens after it.
    let reached =
        |row_index: usize| expectation(&POLICY, |sequence| f64::from(u8::from((0..sequence.len()).any(|t| row(sequence, t) == row_index))));
    let truth = gradient(|policy| (0..3).map(|row| reached(row) * divergence(policy, row)).sum());
    assert_equal("the loss", &expected(1, of), &truth, 0.6);
}

#[test]
fn the_divergence_in_the_reward_has_the_gradient_of_the_sequences_divergence() {
    let shaped = |sequence: &[usize]| {
        let own: f64 = log_probabilities(&POLICY, sequence).iter().sum();
        let reference: f64 = log_probabilities(&REFERENCE, sequence).iter().sum();
        reward(sequence) - 0.6 * (own - reference)
    };
    let truth = gradient(|policy| {
        let kl = expectation(policy, |sequence| (probability(policy, sequence) / probability(&REFERENCE, sequence)).ln());
        expectation(policy, reward) - 0.6 * kl
    });
    assert_equal("RLOO", &step(&Algorithm::Rloo.parts(), 2, shaped), &truth, 1.0);
}
