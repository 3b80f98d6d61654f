//! Rollouts: completions sampled from the policy, with the log-probabilities they were sampled with, and their rewards.

use crate::data::Prompt;
use crate::policy::Sequence;
use crate::reward::{Completion, Rewards};
use kiln_core::Result;
use kiln_core::generate::{Continuation, Sampling, continuations};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;

/// A completion and what became of it.
#[derive(Clone, Debug)]
pub struct Rollout<'a> {
    /// What it completes.
    pub prompt: &'a Prompt,
    /// Its tokens, with their log-probabilities.
    pub continuation: Continuation,
    /// Its text.
    pub text: String,
    /// What each part of the reward gave.
    pub parts: Vec<f64>,
    /// Their weighted sum.
    pub reward: f64,
}

impl Rollout<'_> {
    /// Its tokens and its prompt's.
    pub fn sequence(&self) -> Sequence<'_> {
        Sequence { prompt: &self.prompt.ids, completion: &self.continuation.ids }
    }
}

/// How completions are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// Completions per prompt.
    pub n_each: usize,
    /// Divisor of the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// The most tokens of a completion.
    pub max_new_tokens: usize,
    /// The randomness; a prompt's own is that of its line.
    pub key: Key,
}

/// Samples completions of each prompt, prompt by prompt, not yet rewarded. A completion depends on its prompt, the line of its row and `key`
/// only.
///
/// # Errors
/// As [`continuations`], or if a completion cannot be decoded.
pub fn sample<'a>(model: &LanguageModel, tokenizer: &Tokenizer, prompts: &[&'a Prompt], draws: Draws) -> Result<Vec<Rollout<'a>>> {
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let end_ids = &model.config().end_ids;
    let Draws { n_each, temperature, max_new_tokens, key } = draws;
    let sampling = Sampling { temperature, max_new_tokens, ..Sampling::default() };
    // Greedy completions of a prompt are all the same.
    let n_drawn = if temperature > 0.0 { n_each } else { n_each.min(1) };
    let of = |prompt: &&Prompt| (0..n_drawn as u64).map(|index| key.fold(prompt.line as u64).fold(index)).collect();
    let keys: Vec<Vec<Key>> = prompts.iter().map(of).collect();
    let groups = continuations(model, &ids, &keys, &sampling, end_ids, &mut |_, _| true)?;
    let mut rollouts = Vec::with_capacity(prompts.len() * n_each);
    for (&prompt, group) in prompts.iter().zip(groups) {
        let before = tokenizer.decode(&prompt.ids)?;
        for continuation in group.into_iter().cycle().take(n_each) {
            // Decoded behind its prompt, because some tokenizers take the space off the first word of a text.
            let whole = tokenizer.decode(&[prompt.ids.as_slice(), &continuation.ids].concat())?;
            let text = match whole.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => tokenizer.decode(&continuation.ids)?,
            };
            rollouts.push(Rollout { prompt, continuation, text, parts: Vec::new(), reward: 0.0 });
        }
    }
    Ok(rollouts)
}

/// Rewards every rollout.
///
/// # Errors
/// If a part of the reward fails.
pub fn score(rollouts: &mut [Rollout<'_>], rewards: &mut Rewards) -> Result<()> {
    let completions: Vec<Completion<'_>> = rollouts
        .iter()
        .map(|rollout| Completion {
            prompt: rollout.prompt,
            text: &rollout.text,
            n_tokens: rollout.continuation.ids.len(),
            ended: rollout.continuation.ended,
        })
        .collect();
    let scores = rewards.score(&completions)?;
    for (rollout, parts) in rollouts.iter_mut().zip(scores) {
        rollout.reward = rewards.total(&parts);
        rollout.parts = parts;
    }
    Ok(())
}
