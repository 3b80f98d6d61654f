//! Beam search: several continuations of a prompt grow side by side, the best of all their extensions stay.
//!
//! ```text
//! score of a beam = Σ log p(token)        score of a finished one = Σ log p(token) / lengthᵖᵉⁿᵃˡᵗʸ
//! ```
//!
//! Source: Graves, arXiv:1211.3711; length normalisation and the rule for stopping as in transformers with `early_stopping=False`: a prompt
//! is done once its worst finished beam is no worse than its best open one would be if it ended now.

use super::{Continuation, Sampling, Seen};
use crate::language_model::LanguageModel;
use crate::model::Model;
use crate::{Error, Result};
use kiln_kernels::sampling::best_rows;
use kiln_kernels::segments::Segments;

#[derive(Clone, Debug, Default)]
struct Beam {
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    score: f32,
}

impl Beam {
    fn extended(&self, id: u32, log_probability: f32) -> Self {
        let with = |values: &[f32]| [values, &[log_probability]].concat();
        Self {
            ids: [self.ids.as_slice(), &[id]].concat(),
            log_probabilities: with(&self.log_probabilities),
            score: log_probability + self.score,
        }
    }
}

/// The search from one prompt.
struct Search {
    /// Tokens a continuation may have.
    room: usize,
    open: Vec<Beam>,
    /// With their final scores, the best first.
    finished: Vec<(f32, Beam)>,
    is_done: bool,
}

impl Search {
    /// Extends the open beams by one token; which beam each new one comes from. `best` are the most probable tokens of each.
    fn step(&mut self, best: &[Vec<(u32, f32)>], n_candidates: usize, sampling: &Sampling, end_ids: &[u32]) -> Vec<usize> {
        let extended = |(parent, tokens): (usize, &Vec<(u32, f32)>)| {
            let open = &self.open;
            tokens
                .iter()
                .map(move |&(id, log_probability)| (parent, id, log_probability, log_probability + open[parent].score))
                .collect::<Vec<_>>()
        };
        let mut candidates: Vec<(usize, u32, f32, f32)> = best.iter().enumerate().flat_map(extended).collect();
        // Stable, so that of equals the earlier beam's and lower token comes first.
        candidates.sort_by(|a, b| b.3.total_cmp(&a.3));
        candidates.truncate(n_candidates);
        let n_tokens = self.open[0].ids.len() + 1;
        let (mut parents, mut open) = (Vec::new(), Vec::new());
        for (place, &(parent, id, log_probability, score)) in candidates.iter().enumerate() {
            if !end_ids.contains(&id) && n_tokens < self.room {
                if open.len() < sampling.n_beams {
                    open.push(self.open[parent].extended(id, log_probability));
                    parents.push(parent);
                }
            } else if place < sampling.n_beams {
                let score = score / (n_tokens as f32).powf(sampling.length_penalty as f32);
                self.finished.push((score, self.open[parent].extended(id, log_probability)));
            }
        }
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(sampling.n_beams);
        self.open = open;
        let could_improve = self.open.first().is_some_and(|best| {
            let possible = best.score / (n_tokens as f32).powf(sampling.length_penalty as f32);
            self.finished.len() < sampling.n_beams || self.finished.last().is_some_and(|(worst, _)| possible > *worst)
        });
        self.is_done = !could_improve;
        parents
    }
}

/// The `n_each` best continuations of each prompt.
///
/// # Errors
/// [`Error::Config`] if there are fewer beams than `n_each`, or the vocabulary is too small for as many.
pub(super) fn search(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    n_each: usize,
    sampling: &Sampling,
    end_ids: &[u32],
) -> Result<Vec<Vec<Continuation>>> {
    let (config, n_beams) = (model.config(), sampling.n_beams);
    // Enough that as many as there are beams go on, whatever ends.
    let n_candidates = n_beams * (1 + end_ids.len()).max(2);
    if n_each > n_beams {
        return Err(Error::config("sampling.n_beams", format!("found {n_beams} for {n_each} continuations, expected as many at least")));
    }
    if n_candidates > config.vocab_size {
        let message = format!("found {n_beams}, too many for a vocabulary of {}", config.vocab_size);
        return Err(Error::config("sampling.n_beams", message));
    }
    let room = |prompt: &Vec<u32>| sampling.max_new_tokens.min(config.max_positions - prompt.len());
    let mut searches: Vec<Search> = prompts
        .iter()
        .map(|prompt| Search { room: room(prompt), open: vec![Beam::default()], finished: Vec::new(), is_done: false })
        .collect();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let capacity = (longest + sampling.max_new_tokens).min(config.max_positions);
    let mut cache = model.trunk.cache(prompts.len(), longest, &model.device());
    let segments = Segments::from_lengths(prompts.iter().map(Vec::len));
    let mut logits = model.next_logits(&prompts.concat().into(), &segments, &mut cache);
    // Sequences of the cache by search; at first each has one.
    let mut n_slots = 1;
    loop {
        // Rows of logits are those of the open beams of the searches that go on, in order.
        let live: Vec<usize> = (0..searches.len()).filter(|&index| !searches[index].is_done).collect();
        let written =
            live.iter().flat_map(|&index| searches[index].open.iter().map(move |beam| [prompts[index].as_slice(), &beam.ids].concat()));
        let written: Vec<Vec<u32>> = if sampling.repetition_penalty == 1.0 { Vec::new() } else { written.collect() };
        let seen = Seen::new(sampling, written.iter().map(Vec::as_slice));
        let rows: Vec<usize> = (0..written.len()).collect();
        let best = best_rows(logits, n_candidates, sampling.repetition_penalty, &seen.of(&rows));
        let mut best = best.as_slice();
        // What each sequence of the next cache is a copy of; those of finished searches are of no account.
        let mut from: Vec<usize> = (0..searches.len()).flat_map(|index| std::iter::repeat_n(index * n_slots, n_beams)).collect();
        for index in live {
            let (own, rest) = best.split_at(searches[index].open.len());
            best = rest;
            let parents = searches[index].step(own, n_candidates, sampling, end_ids);
            parents.iter().enumerate().for_each(|(slot, parent)| from[index * n_beams + slot] = index * n_slots + parent);
        }
        if searches.iter().all(|search| search.is_done) {
            break;
        }
        cache = cache.copies(&from, capacity);
        n_slots = n_beams;
        let mut lengths = vec![0; searches.len() * n_beams];
        let mut ids = Vec::new();
        for (index, search) in searches.iter().enumerate().filter(|(_, search)| !search.is_done) {
            for (slot, beam) in search.open.iter().enumerate() {
                lengths[index * n_beams + slot] = 1;
                ids.push(beam.ids[beam.ids.len() - 1]);
            }
        }
        logits = model.next_logits(&ids.into(), &Segments::from_lengths(lengths), &mut cache);
    }
    let continuation = |(_, Beam { ids, log_probabilities, .. }): (f32, Beam)| Continuation {
        ended: ids.last().is_some_and(|id| end_ids.contains(id)),
        ids,
        log_probabilities,
        entropies: Vec::new(),
    };
    Ok(searches.into_iter().map(|search| search.finished.into_iter().take(n_each).map(continuation).collect()).collect())
}
