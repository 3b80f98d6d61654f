//! Continuing texts: greedy, sampled or by beam search, all prompts in one ragged batch, with a key/value cache that the continuations of
//! one prompt start from together.

mod beam;
mod text;

pub use text::Growing;

use crate::language_model::{LanguageModel, OUTPUT};
use crate::model::Model;
use crate::{Error, Result};
use burn::module::Param;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use kiln_kernels::sampling::{Choice, choose_rows};
use kiln_kernels::segments::Segments;
use kiln_kernels::threads::awake;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
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
    /// Sample among tokens with this share of the largest probability. Default 0.
    pub min_p: f32,
    /// How much less likely a token of the prompt or the continuation becomes; 1 changes nothing. Default 1.
    pub repetition_penalty: f32,
    /// Beams of a beam search; 1 searches nothing. Default 1.
    pub n_beams: usize,
    /// The power of its length that a beam's log-probability is divided by: above 0 favours long ones. Default 1.
    pub length_penalty: f64,
    /// The most tokens to add. Default 128.
    pub max_new_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            n_beams: 1,
            length_penalty: 1.0,
            max_new_tokens: 128,
        }
    }
}

impl Sampling {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, message: String| Err(Error::config(format!("sampling.{key}"), message));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("temperature", format!("found {}, expected 0 or more", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("top_p", format!("found {}, expected more than 0 and at most 1", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad("min_p", format!("found {}, expected 0 to 1", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad("repetition_penalty", format!("found {}, expected more than 0", self.repetition_penalty));
        }
        if self.n_beams == 0 {
            return bad("n_beams", "found 0, expected at least 1".into());
        }
        if self.n_beams > 1 && self.temperature > 0.0 {
            return bad("n_beams", format!("found {} with a temperature: a beam search draws nothing, set one of the two", self.n_beams));
        }
        if !self.length_penalty.is_finite() {
            return bad("length_penalty", format!("found {}, expected a finite number", self.length_penalty));
        }
        if self.max_new_tokens == 0 {
            return bad("max_new_tokens", "found 0, expected at least 1".into());
        }
        Ok(())
    }

    fn choice(&self) -> Choice {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, .. } = *self;
        Choice { temperature, top_k, top_p, min_p, repetition_penalty }
    }
}

/// A continuation of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Continuation {
    /// The new tokens, with the one that ended it.
    pub ids: Vec<u32>,
    /// The log-probability of each under the distribution it was chosen from, in nats.
    pub log_probabilities: Vec<f32>,
    /// The entropy of that distribution, in nats; none in a beam search.
    pub entropies: Vec<f32>,
    /// Whether a token of `end_ids`, or who watched it, ended it, rather than the lack of room.
    pub ended: bool,
}

/// Continues each prompt until a token of `end_ids` (kept in the result), `max_new_tokens`, or the model's last position; returns the new
/// tokens. A sequence's result depends on its own prompt, its index and `key` only, not on the batch it is in.
///
/// # Errors
/// As [`continuations`].
pub fn generate(model: &LanguageModel, prompts: &[Vec<u32>], sampling: &Sampling, end_ids: &[u32], key: Key) -> Result<Vec<Vec<u32>>> {
    let keys: Vec<Vec<Key>> = (0..prompts.len() as u64).map(|sequence| vec![key.fold(sequence)]).collect();
    let groups = continuations(model, prompts, &keys, sampling, end_ids, &mut |_, _| true)?;
    Ok(groups.into_iter().flatten().map(|continuation| continuation.ids).collect())
}

/// Continuations of each prompt, one for each of its `keys`; all prompts have as many. A prompt is encoded once, whatever the number of its
/// continuations, and a continuation depends on its prompt and its key only, not on the batch it is in.
///
/// After every token `watch` sees the number of its sequence, counted through all prompts' continuations, and the continuation so far; a
/// sequence goes on while it says so. A beam search shows it nothing, and gives the best of its beams, the best first.
///
/// # Errors
/// [`Error::Config`] if a prompt is empty or leaves no room for a token, the model is not a decoder, or a setting makes no sense.
///
/// # Panics
/// If the prompts have different numbers of keys.
pub fn continuations(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    keys: &[Vec<Key>],
    sampling: &Sampling,
    end_ids: &[u32],
    watch: &mut dyn FnMut(usize, &Continuation) -> bool,
) -> Result<Vec<Vec<Continuation>>> {
    sampling.validate()?;
    let n_each = keys.first().map_or(0, Vec::len);
    assert!(keys.len() == prompts.len() && keys.iter().all(|keys| keys.len() == n_each), "as many keys for every prompt");
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
    if prompts.is_empty() || n_each == 0 {
        return Ok(prompts.iter().map(|_| Vec::new()).collect());
    }
    let model = unchanging(model);
    if sampling.n_beams > 1 {
        return awake(|| beam::search(&model, prompts, n_each, sampling, end_ids));
    }
    let mut all = awake(|| sample(&model, prompts, keys, sampling, end_ids, watch)).into_iter();
    Ok(prompts.iter().map(|_| all.by_ref().take(n_each).collect()).collect())
}

/// The model with everything computed that depends on its weights alone.
fn unchanging(model: &LanguageModel) -> Cow<'_, LanguageModel> {
    let mut fixed = model.clone();
    let mut is_changed = false;
    fixed.linears_mut(&mut |path, linear| {
        let Some(adapter) = &linear.adapter else { return };
        if path == OUTPUT {
            // What an adapter of the output costs is a copy of its weight.
            (linear.weight, linear.adapter) = (Param::from_tensor(linear.merged_weight()), None);
        } else if adapter.magnitude.is_some() {
            linear.fix_lengths(linear.weight.val());
        } else {
            return;
        }
        is_changed = true;
    });
    if is_changed { Cow::Owned(fixed) } else { Cow::Borrowed(model) }
}

/// The distinct tokens of each sequence, where a repetition penalty wants to know them.
struct Seen(Option<Vec<Vec<u32>>>);

impl Seen {
    fn new<'a>(sampling: &Sampling, sequences: impl Iterator<Item = &'a [u32]>) -> Self {
        let distinct = |ids: &[u32]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        Self((sampling.repetition_penalty != 1.0).then(|| sequences.map(distinct).collect()))
    }

    fn add(&mut self, sequence: usize, id: u32) {
        if let Some(seen) = self.0.as_mut().map(|seen| &mut seen[sequence])
            && let Err(place) = seen.binary_search(&id)
        {
            seen.insert(place, id);
        }
    }

    fn of(&self, sequences: &[usize]) -> Vec<&[u32]> {
        self.0.iter().flat_map(|seen| sequences.iter().map(|&sequence| seen[sequence].as_slice())).collect()
    }
}

/// A continuation for each key, prompt by prompt.
fn sample(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    keys: &[Vec<Key>],
    sampling: &Sampling,
    end_ids: &[u32],
    watch: &mut dyn FnMut(usize, &Continuation) -> bool,
) -> Vec<Continuation> {
    let (max_positions, n_each) = (model.config().max_positions, keys[0].len());
    let mut all = vec![Continuation::default(); prompts.len() * n_each];
    let mut seen = Seen::new(sampling, prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.as_slice(), n_each)));
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let capacity = (longest + sampling.max_new_tokens).min(max_positions);
    let mut cache = model.trunk.cache(prompts.len(), if n_each == 1 { capacity } else { longest }, &model.device());
    let segments = Segments::from_lengths(prompts.iter().map(Vec::len));
    let mut logits = model.next_logits(&prompts.concat().into(), &segments, &mut cache);
    let mut live: Vec<usize> = (0..all.len()).collect();
    if n_each > 1 {
        let prompt_of: Vec<usize> = live.iter().map(|sequence| sequence / n_each).collect();
        cache = cache.copies(&prompt_of, capacity);
        let rows: Arc<[u32]> = prompt_of.iter().map(|&prompt| prompt as u32).collect();
        logits = take_rows(logits, &rows);
    }
    let choice = sampling.choice();
    loop {
        let uniform = |&sequence: &usize| keys[sequence / n_each][sequence % n_each].uniform(all[sequence].ids.len() as u64);
        let uniforms: Vec<f32> = live.iter().map(uniform).collect();
        let drawn = choose_rows(logits, &choice, &seen.of(&live), &uniforms);
        for (&sequence, drawn) in live.iter().zip(&drawn) {
            let continuation = &mut all[sequence];
            continuation.ids.push(drawn.class);
            continuation.log_probabilities.push(drawn.log_probability);
            continuation.entropies.push(drawn.entropy);
            continuation.ended = end_ids.contains(&drawn.class);
            let goes_on = watch(sequence, continuation);
            continuation.ended |= !goes_on;
            seen.add(sequence, drawn.class);
        }
        live.retain(|&sequence| {
            let Continuation { ids, ended, .. } = &all[sequence];
            !ended && ids.len() < sampling.max_new_tokens && prompts[sequence / n_each].len() + ids.len() < max_positions
        });
        if live.is_empty() {
            return all;
        }
        let mut lengths = vec![0; all.len()];
        live.iter().for_each(|&sequence| lengths[sequence] = 1);
        let ids: Arc<[u32]> = live.iter().map(|&sequence| all[sequence].ids[all[sequence].ids.len() - 1]).collect();
        logits = model.next_logits(&ids, &Segments::from_lengths(lengths), &mut cache);
    }
}
