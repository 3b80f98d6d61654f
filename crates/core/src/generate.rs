//! Continuing texts: greedy or sampled, all prompts in one ragged batch, with a key/value cache that the continuations of one prompt start
//! from together.

use crate::language_model::LanguageModel;
use crate::model::Model;
use crate::{Error, Result};
use burn::tensor::Tensor;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use kiln_kernels::sampling::draw_rows;
use kiln_kernels::segments::Segments;
use kiln_kernels::threads::awake;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the next token is chosen and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divisor of the logits; 0 takes the most probable token. Default 0.
    pub temperature: f32,
    /// Sample among this many most probable tokens only; 0 for all. Default 0.
    pub top_k: usize,
    /// Sample among the fewest tokens that together have this probability. Default 1.
    pub top_p: f32,
    /// The most tokens to add. Default 128.
    pub max_new_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, max_new_tokens: 128 }
    }
}

impl Sampling {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::config("sampling.temperature", format!("found {}, expected 0 or more", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::config("sampling.top_p", format!("found {}, expected more than 0 and at most 1", self.top_p)));
        }
        if self.max_new_tokens == 0 {
            return Err(Error::config("sampling.max_new_tokens", "found 0, expected at least 1"));
        }
        Ok(())
    }
}

/// Continues each prompt until a token of `end_ids` (kept in the result), `max_new_tokens`, or the model's last position; returns the new
/// tokens. A sequence's result depends on its own prompt, its index and `key` only, not on the batch it is in.
///
/// # Errors
/// [`Error::Config`] if a prompt is empty or leaves no room for a token, or the model is not a decoder.
pub fn generate(model: &LanguageModel, prompts: &[Vec<u32>], sampling: &Sampling, end_ids: &[u32], key: Key) -> Result<Vec<Vec<u32>>> {
    sampling.validate()?;
    let vocab_size = model.config().vocab_size;
    let pick = |logits: Tensor<2>, live: &[(usize, usize)]| {
        let logits: Vec<f32> = logits.into_data().try_to_vec().expect("logits are f32");
        let rows = logits.chunks_exact(vocab_size).zip(live);
        rows.map(|(row, &(sequence, step))| choose(row, sampling, key.fold(sequence as u64), step as u64)).collect()
    };
    awake(|| continue_each(model, prompts, 1, sampling.max_new_tokens, end_ids, pick))
}

/// A sampled continuation of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Continuation {
    /// The new tokens, with the one that ended it.
    pub ids: Vec<u32>,
    /// The log-probability of each under the distribution it was drawn from, in nats.
    pub log_probabilities: Vec<f32>,
    /// The entropy of that distribution, in nats.
    pub entropies: Vec<f32>,
    /// Whether a token of `end_ids` ended it, rather than the lack of room.
    pub ended: bool,
}

/// Draws continuations of each prompt from `softmax(logits / temperature)`, one for each of its `keys`; all prompts have as many. A prompt
/// is encoded once, whatever the number of its continuations, and a continuation depends on its prompt and its key only, not on the batch
/// it is in.
///
/// # Errors
/// As [`generate`].
///
/// # Panics
/// If the prompts have different numbers of keys, or the temperature is not above 0.
pub fn sample_groups(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    keys: &[Vec<Key>],
    temperature: f32,
    max_new_tokens: usize,
    end_ids: &[u32],
) -> Result<Vec<Vec<Continuation>>> {
    let n_each = keys.first().map_or(0, Vec::len);
    assert!(keys.len() == prompts.len() && keys.iter().all(|keys| keys.len() == n_each), "as many keys for every prompt");
    let mut all = vec![Continuation::default(); prompts.len() * n_each];
    let pick = |logits, live: &[(usize, usize)]| {
        let uniform = |&(sequence, step): &(usize, usize)| keys[sequence / n_each][sequence % n_each].uniform(step as u64);
        let drawn = draw_rows(logits, temperature, &live.iter().map(uniform).collect::<Vec<_>>());
        for (&(sequence, _), drawn) in live.iter().zip(&drawn) {
            let continuation = &mut all[sequence];
            continuation.ids.push(drawn.class);
            continuation.log_probabilities.push(drawn.log_probability);
            continuation.entropies.push(drawn.entropy);
            continuation.ended = end_ids.contains(&drawn.class);
        }
        drawn.into_iter().map(|drawn| drawn.class).collect()
    };
    awake(|| continue_each(model, prompts, n_each, max_new_tokens, end_ids, pick))?;
    let mut all = all.into_iter();
    Ok(prompts.iter().map(|_| all.by_ref().take(n_each).collect()).collect())
}

/// `n_each` continuations of each prompt, prompt by prompt. `pick` gets the logits of those sequences that go on, with each one's index and
/// the number of its new tokens so far, and returns a token for each.
fn continue_each(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    n_each: usize,
    max_new_tokens: usize,
    end_ids: &[u32],
    mut pick: impl FnMut(Tensor<2>, &[(usize, usize)]) -> Vec<u32>,
) -> Result<Vec<Vec<u32>>> {
    let config = model.config();
    if !config.causal {
        return Err(Error::config("model", "an encoder cannot continue a text; generation needs a decoder"));
    }
    for prompt in prompts {
        if prompt.is_empty() || prompt.len() >= config.max_positions {
            let message = format!("found {} tokens, expected 1 to {} for this model", prompt.len(), config.max_positions - 1);
            return Err(Error::config("prompt", message));
        }
    }
    let mut new: Vec<Vec<u32>> = vec![Vec::new(); prompts.len() * n_each];
    if new.is_empty() {
        return Ok(new);
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let capacity = (longest + max_new_tokens).min(config.max_positions);
    let mut cache = model.trunk.cache(prompts.len(), if n_each == 1 { capacity } else { longest }, &model.device());
    let segments = Segments::from_lengths(prompts.iter().map(Vec::len));
    let mut logits = model.next_logits(&prompts.concat().into(), &segments, &mut cache);
    let mut live: Vec<usize> = (0..new.len()).collect();
    if n_each > 1 {
        cache = cache.copies(n_each, capacity);
        let rows: Arc<[u32]> = live.iter().map(|sequence| (sequence / n_each) as u32).collect();
        logits = take_rows(logits, &rows);
    }
    loop {
        let steps: Vec<(usize, usize)> = live.iter().map(|&sequence| (sequence, new[sequence].len())).collect();
        for (&sequence, token) in live.iter().zip(pick(logits, &steps)) {
            new[sequence].push(token);
        }
        live.retain(|&sequence| {
            let tokens = &new[sequence];
            let room = prompts[sequence / n_each].len() + tokens.len() < config.max_positions;
            room && tokens.len() < max_new_tokens && !end_ids.contains(&tokens[tokens.len() - 1])
        });
        if live.is_empty() {
            return Ok(new);
        }
        let mut lengths = vec![0; new.len()];
        live.iter().for_each(|&sequence| lengths[sequence] = 1);
        let ids: Arc<[u32]> = live.iter().map(|&sequence| new[sequence][new[sequence].len() - 1]).collect();
        logits = model.next_logits(&ids, &Segments::from_lengths(lengths), &mut cache);
    }
}

/// One token from a row of logits; ties go to the lower id. The nucleus is that of Holtzman et al., arXiv:1904.09751, Section 3.1.
fn choose(logits: &[f32], sampling: &Sampling, key: Key, step: u64) -> u32 {
    let by_logit = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if sampling.temperature == 0.0 {
        return (0..logits.len()).min_by(by_logit).expect("a vocabulary is not empty") as u32;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(by_logit);
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let best = logits[order[0]];
    let weights: Vec<f64> = order.iter().map(|&id| f64::from((logits[id] - best) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut mass = 0.0;
    let is_short = |weight: &&f64| {
        let short = mass < f64::from(sampling.top_p) * total;
        mass += **weight;
        short
    };
    let n_kept = weights.iter().take_while(is_short).count();
    let kept_total: f64 = weights[..n_kept].iter().sum();
    let mut remaining = f64::from(key.uniform(step)) * kept_total;
    for (&id, &weight) in order.iter().zip(&weights[..n_kept]) {
        remaining -= weight;
        if remaining < 0.0 {
            return id as u32;
        }
    }
    order[n_kept - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 3.0, -1.0];

    fn shares(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for step in 0..20_000 {
            counts[choose(&LOGITS, sampling, Key::new(5), step) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(choose(&LOGITS, &Sampling::default(), Key::new(0), 0), 1);
    }

    #[test]
    fn samples_follow_the_softmax() {
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit / 2.0).exp()).sum();
        let found = shares(&Sampling { temperature: 2.0, ..Sampling::default() });
        for (share, logit) in found.into_iter().zip(LOGITS) {
            assert!((share - f64::from(logit / 2.0).exp() / total).abs() < 0.012, "{found:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let k = shares(&Sampling { temperature: 1.0, top_k: 3, ..Sampling::default() });
        assert!(k[3] == 0.0 && k[0] > 0.0);
        let p = shares(&Sampling { temperature: 1.0, top_p: 0.9, ..Sampling::default() });
        assert!(p[0] == 0.0 && p[3] == 0.0 && p[1] > 0.4 && p[2] > 0.4, "{p:?}");
    }
}
