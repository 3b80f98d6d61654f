//! What a step's completions teach: each token's advantage and share of the loss, and the loss of any of the completions.

use crate::config::{Advantage, KlPlace, Normalisation, Parts, RlConfig, Unfinished};
use crate::objective::advantage::{advantages, is_dead};
use crate::objective::clipped_policy::{SampledToken, k3, weights};
use crate::objective::ppo::{ValueTargets, generalised_advantages, value_loss, whitened};
use crate::policy::{Policy, Sequence, log_probabilities, pack, values};
use crate::rollout::Rollout;
use burn::tensor::Tensor;
use kiln_core::language_model::LanguageModel;
use kiln_kernels::cross_entropy::HeadOptions;
use std::sync::Arc;

/// The completions of a step as the update needs them.
#[derive(Debug)]
pub struct Lesson<'a> {
    sequences: Vec<Sequence<'a>>,
    /// The tokens of each sequence.
    tokens: Vec<Vec<SampledToken>>,
    /// What the value head said of each sequence's tokens and should have said, with PPO.
    values: Option<Vec<ValueTargets>>,
    /// The sequences whose loss has a gradient.
    pub trained: Vec<usize>,
    /// The tokens of each sequence that pass through the model, if its prompt does so for it alone.
    pub lengths: Vec<usize>,
    /// The share of groups whose rewards are all the same.
    pub dead_groups: f64,
    /// The divergence from the reference in nats per token, where it is part of the loss or the reward.
    pub kl: Option<f64>,
}

impl<'a> Lesson<'a> {
    /// Compares the rewards of `rollouts`, groups of `config.group_size` one after the other, with what was to be expected. The reference is
    /// asked only if it counts.
    pub fn new(policy: &Policy, reference: Option<&LanguageModel>, rollouts: &'a [Rollout<'_>], config: &RlConfig, baseline: f64) -> Self {
        let parts = config.parts();
        let sequences: Vec<Sequence<'a>> = rollouts.iter().map(Rollout::sequence).collect();
        let olds: Vec<&Vec<f32>> = rollouts.iter().map(|rollout| &rollout.continuation.log_probabilities).collect();
        let references = reference
            .filter(|_| parts.kl_coefficient > 0.0)
            .map(|reference| log_probabilities(reference, &sequences, config.sampling.temperature));
        let pairs = |index: usize| {
            let references = references.iter().flat_map(move |references| &references[index]);
            olds[index].iter().zip(references).map(|(&old, &reference)| (f64::from(old), f64::from(reference)))
        };
        let all_pairs = || (0..sequences.len()).flat_map(pairs);
        let kl =
            references.as_ref().map(|_| all_pairs().map(|(old, reference)| k3(reference, old)).sum::<f64>() / all_pairs().count() as f64);
        let rewards: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward).collect();
        let n_groups = rewards.len().div_ceil(config.group_size);
        let n_dead = rewards.chunks(config.group_size).filter(|group| is_dead(group)).count();

        let is_trained = |rollout: &Rollout<'_>| config.unfinished == Unfinished::Keep || rollout.continuation.ended;
        let trained_lengths: Vec<usize> =
            rollouts.iter().map(|rollout| if is_trained(rollout) { rollout.continuation.ids.len() } else { 0 }).collect();
        let weights = weights(parts.normalisation, &trained_lengths, config.sampling.max_new_tokens);
        let penalty = |index: usize, parts: &Parts| -> Vec<f64> {
            match parts.kl_place {
                KlPlace::Reward => pairs(index).map(|(old, reference)| parts.kl_coefficient * (old - reference)).collect(),
                KlPlace::Loss => Vec::new(),
            }
        };
        let (of_tokens, value_targets) = if parts.advantage == Advantage::Generalised {
            let value_weights = crate::objective::clipped_policy::weights(Normalisation::Token, &trained_lengths, 0);
            let found = values(policy, &sequences);
            generalised(&rewards, &found, &trained_lengths, &value_weights, config, |index| penalty(index, &parts))
        } else {
            let shaped: Vec<f64> =
                rewards.iter().enumerate().map(|(index, reward)| reward - penalty(index, &parts).iter().sum::<f64>()).collect();
            let of_completions = advantages(parts.advantage, &shaped, config.group_size, baseline);
            (of_completions.iter().zip(&olds).map(|(&advantage, old)| vec![advantage; old.len()]).collect::<Vec<_>>(), None)
        };
        let in_loss = references.as_ref().filter(|_| parts.kl_place == KlPlace::Loss);
        let tokens: Vec<Vec<SampledToken>> = (0..sequences.len())
            .map(|index| {
                let token = |(t, &old): (usize, &f32)| SampledToken {
                    old: f64::from(old),
                    reference: in_loss.map(|references| f64::from(references[index][t])),
                    advantage: of_tokens[index][t],
                    weight: weights[index],
                };
                olds[index].iter().enumerate().map(token).collect()
            })
            .collect();
        // What has no advantage, no reference and no value to learn has no gradient either: it need not pass through the model.
        let teaches = |token: &SampledToken| token.advantage != 0.0 || token.reference.is_some() || value_targets.is_some();
        let trained = (0..sequences.len()).filter(|&index| trained_lengths[index] > 0 && tokens[index].iter().any(teaches)).collect();
        let lengths = sequences.iter().map(Sequence::n_tokens).collect();
        Self { sequences, tokens, values: value_targets, trained, lengths, dead_groups: n_dead as f64 / n_groups as f64, kl }
    }

    /// The loss of the sequences at `indices`, `[1]`, and how many of their tokens the clip holds back. The losses of all add up to the loss
    /// of the step.
    pub fn loss(&self, policy: &Policy, indices: &[usize], config: &RlConfig) -> (Tensor<1>, usize) {
        let parts = config.parts();
        let sequences: Vec<Sequence<'_>> = indices.iter().map(|&index| self.sequences[index]).collect();
        let tokens: Arc<[SampledToken]> = indices.iter().flat_map(|&index| &self.tokens[index]).copied().collect();
        let (packed, rows, targets) = pack(&sequences);
        let hidden = policy.model.trunk.forward_branches(&packed, &rows, None);
        let options = HeadOptions { temperature: config.sampling.temperature, ..HeadOptions::default() };
        let losses = {
            let tokens = tokens.clone();
            Arc::new(move |row: usize, l| tokens[row].loss(&parts, l))
        };
        let (mut loss, found) = policy.model.token_loss(hidden.clone(), &targets, options, losses);
        if let (Some(head), Some(targets)) = (&policy.value, &self.values) {
            let joined = indices.iter().fold(ValueTargets::default(), |mut joined, &index| {
                joined.old.extend_from_slice(&targets[index].old);
                joined.returns.extend_from_slice(&targets[index].returns);
                joined.weights.extend_from_slice(&targets[index].weights);
                joined
            });
            loss = loss + value_loss(head.forward(hidden), &joined, config.ppo.value_clip) * config.ppo.value_coefficient;
        }
        let n_clipped = tokens.iter().zip(&found).filter(|(token, l)| token.is_clipped(&parts, f64::from(**l))).count();
        (loss, n_clipped)
    }

    /// Tokens of the completions at `indices`.
    pub fn n_tokens(&self, indices: &[usize]) -> usize {
        indices.iter().map(|&index| self.tokens[index].len()).sum()
    }

    /// The share of the returns' variance that the value head had foreseen, with PPO.
    pub fn explained_variance(&self) -> Option<f64> {
        let targets = self.values.as_ref()?;
        let all = || self.trained.iter().flat_map(|&index| targets[index].returns.iter().zip(&targets[index].old));
        let n = all().count() as f64;
        let variance = |values: &dyn Fn((&f32, &f32)) -> f64| {
            let mean = all().map(values).sum::<f64>() / n;
            all().map(|pair| (values(pair) - mean).powi(2)).sum::<f64>() / n
        };
        let of_returns = variance(&|(returned, _)| f64::from(*returned));
        Some(if of_returns > 0.0 { 1.0 - variance(&|(returned, old)| f64::from(*returned) - f64::from(*old)) / of_returns } else { 0.0 })
    }
}

/// The whitened advantages of the tokens of each completion, and what the value head should have said of them.
fn generalised(
    rewards: &[f64],
    values: &[Vec<f32>],
    trained_lengths: &[usize],
    weights: &[f64],
    config: &RlConfig,
    penalty: impl Fn(usize) -> Vec<f64>,
) -> (Vec<Vec<f64>>, Option<Vec<ValueTargets>>) {
    let mut of_tokens = Vec::with_capacity(rewards.len());
    let mut targets = Vec::with_capacity(rewards.len());
    for (index, (reward, values)) in rewards.iter().zip(values).enumerate() {
        let mut token_rewards = vec![0.0; values.len()];
        token_rewards.iter_mut().zip(penalty(index)).for_each(|(reward, penalty)| *reward -= penalty);
        *token_rewards.last_mut().expect("a completion has a token") += reward;
        let floats: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        let (advantages, returns) = generalised_advantages(&token_rewards, &floats, config.ppo.gamma, config.ppo.lambda);
        of_tokens.push(advantages);
        targets.push(ValueTargets {
            old: values.clone(),
            returns: returns.iter().map(|&value| value as f32).collect(),
            weights: vec![weights[index] as f32; values.len()],
        });
    }
    let trained: Vec<f64> = of_tokens.iter().zip(trained_lengths).filter(|(_, length)| **length > 0).flat_map(|(a, _)| a.clone()).collect();
    if !trained.is_empty() {
        let mut white = whitened(&trained).into_iter();
        for (advantages, _) in of_tokens.iter_mut().zip(trained_lengths).filter(|(_, length)| **length > 0) {
            advantages.iter_mut().zip(white.by_ref()).for_each(|(advantage, white)| *advantage = white);
        }
    }
    (of_tokens, Some(targets))
}
