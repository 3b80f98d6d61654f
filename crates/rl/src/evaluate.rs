//! How good a policy is on prompts it was not trained on.

use crate::config::RlConfig;
use crate::data::Prompt;
use crate::policy::log_probabilities;
use crate::reward::Rewards;
use crate::rollout::{Draws, Rollout, sample, score};
use burn::module::Module;
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Figure;
use kiln_kernels::random::Key;
use serde::Serialize;

/// Sequences sampled at a time; results do not depend on it.
const BATCH_SEQUENCES: usize = 64;

/// The stream of randomness that evaluations sample from.
const EVALUATION: u64 = 4;

/// What a part of the reward gives.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What the part is called.
    pub name: String,
    /// What it gives a completion, before its weight.
    pub reward: Figure,
}

/// What a policy's completions of the held-out prompts are worth.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The reward of a completion.
    pub reward: Figure,
    /// Its parts.
    pub parts: Vec<Part>,
    /// The share of completions that end, their tokens, and where it is known the divergence from the reference in nats per completion.
    pub others: Vec<Figure>,
    /// Prompts completed.
    pub n_prompts: usize,
    /// Completions of each.
    pub n_samples: usize,
}

/// The means over the completions of each held-out prompt: each part of the reward, then the share that ends, tokens, divergence from the
/// reference, and the reward.
pub type Scores = Vec<Vec<f64>>;

/// Samples, or with a temperature of 0 takes the likeliest completions of `prompts` and rewards them. With a reference, the divergence from it
/// is estimated: `Σ_t log π − log ref`, which is unbiased where completions are sampled.
///
/// # Errors
/// If a part of the reward fails.
pub fn scores(
    model: &LanguageModel,
    reference: Option<&LanguageModel>,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    rewards: &mut Rewards,
    config: &RlConfig,
) -> Result<Scores> {
    let model = model.clone().valid();
    let (n_samples, temperature) = (config.evaluation.samples, config.evaluation.temperature);
    let key = Key::new(config.seed).fold(EVALUATION);
    let draws = Draws { n_each: n_samples, temperature, max_new_tokens: config.sampling.max_new_tokens, key };
    let all: Vec<&Prompt> = prompts.iter().collect();
    let n_parts = rewards.names().len();
    let mut columns: Scores = vec![Vec::with_capacity(prompts.len()); n_parts + 4];
    for part in all.chunks((BATCH_SEQUENCES / n_samples).max(1)) {
        let mut rollouts = sample(&model, tokenizer, part, draws)?;
        score(&mut rollouts, rewards)?;
        let divergences = match reference.filter(|_| temperature > 0.0) {
            Some(reference) => divergences(reference, &rollouts, temperature),
            None => vec![0.0; rollouts.len()],
        };
        for (group, divergences) in rollouts.chunks(n_samples).zip(divergences.chunks(n_samples)) {
            let of = |value: &dyn Fn(&Rollout<'_>) -> f64| group.iter().map(value).sum::<f64>() / n_samples as f64;
            let parts = (0..n_parts).map(|index| of(&|rollout| rollout.parts[index]));
            let values = parts.chain([
                of(&|rollout| f64::from(u8::from(rollout.continuation.ended))),
                of(&|rollout| rollout.continuation.ids.len() as f64),
                mean(divergences),
                of(&|rollout| rollout.reward),
            ]);
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
    }
    Ok(columns)
}

/// The figures of a policy on `prompts`, see [`scores`].
///
/// # Errors
/// If a part of the reward fails.
pub fn evaluate(
    model: &LanguageModel,
    reference: Option<&LanguageModel>,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    rewards: &mut Rewards,
    config: &RlConfig,
) -> Result<Evaluation> {
    Ok(evaluation(scores(model, reference, tokenizer, prompts, rewards, config)?, rewards.names(), reference.is_some(), config))
}

/// The figures of scores, with those of the divergence if there was a reference. `names` are those of the reward's parts.
///
/// # Panics
/// If the scores are not those of a reward of so many parts.
pub fn evaluation(scores: Scores, names: Vec<String>, has_reference: bool, config: &RlConfig) -> Evaluation {
    let n_prompts = scores[0].len();
    let mut columns = scores.into_iter();
    let mut figure = |metric| Figure::new(metric, columns.next().expect("a column for each figure"), mean, config.seed);
    let parts = names.into_iter().map(|name| Part { name, reward: figure("reward") }).collect();
    let (ended, n_tokens, kl, reward) = (figure("ended"), figure("completion_tokens"), figure("kl").lower_is_better(), figure("reward"));
    let mut others = vec![ended, n_tokens];
    others.extend((has_reference && config.evaluation.temperature > 0.0).then_some(kl));
    Evaluation { reward, parts, others, n_prompts, n_samples: config.evaluation.samples }
}

/// `Σ_t log π − log ref` of each rollout, in nats.
fn divergences(reference: &LanguageModel, rollouts: &[Rollout<'_>], temperature: f32) -> Vec<f64> {
    let sequences: Vec<_> = rollouts.iter().map(Rollout::sequence).collect();
    let references = log_probabilities(reference, &sequences, temperature);
    let of = |(rollout, references): (&Rollout<'_>, &Vec<f32>)| {
        rollout.continuation.log_probabilities.iter().zip(references).map(|(l, reference)| f64::from(*l) - f64::from(*reference)).sum()
    };
    rollouts.iter().zip(&references).map(of).collect()
}
