//! Which held-out rows a run is judged by: of general text one half is the probe a budget is kept by, and the other half is reported.

use crate::config::ContinualConfig;
use crate::data::{Corpus, Objective};
use crate::evaluate::{Losses, losses};
use kiln_core::language_model::LanguageModel;
use kiln_core::{Error, Result};
use kiln_data::split::split;
use kiln_eval::bootstrap::perplexity;

/// Rows that the probe needs for its interval to mean something.
const MIN_PROBE_ROWS: usize = 20;

/// The held-out rows of a run and how to lose on them.
#[derive(Debug)]
pub struct Judges<'a, O: Objective> {
    objective: &'a O,
    /// Of each corpus, what is reported.
    report: Vec<Vec<&'a O::Row>>,
    /// Of general text, what a budget is kept by; nothing without a budget.
    probe: Vec<&'a O::Row>,
    curves: Vec<String>,
    seed: u64,
}

impl<'a, O: Objective> Judges<'a, O> {
    /// For these corpora, of which the first `n_general` are general text. Its halves do not depend on whether there is a budget.
    ///
    /// # Errors
    /// [`Error::Config`] if general text has too few held-out rows.
    pub fn new(config: &ContinualConfig, objective: &'a O, corpora: &'a [Corpus<O::Row>], n_general: usize) -> Result<Self> {
        let mut report: Vec<Vec<&O::Row>> = corpora.iter().map(|corpus| corpus.rows.held_out.iter().collect()).collect();
        let mut probe = Vec::new();
        if n_general > 0 {
            let n_rows = report[0].len();
            let least = if config.budget.is_some() { 2 * MIN_PROBE_ROWS } else { 2 };
            if n_rows < least {
                let message = format!(
                    "found {n_rows} held-out rows, expected at least {least}: half of them are reported{}; raise \
                     general.held_out_share or name a larger general.held_out; blocks of running text get more with a smaller block_tokens",
                    if config.budget.is_some() { ", the other half is what the budget is kept by" } else { "" }
                );
                return Err(Error::config("general", message));
            }
            let (reported, probed) = split(n_rows, 0.5, config.seed);
            let pick = |rows: Vec<usize>| rows.into_iter().map(|row| &corpora[0].rows.held_out[row]).collect();
            report[0] = pick(reported);
            if config.budget.is_some() {
                probe = pick(probed);
            }
        }
        let curves = corpora.iter().map(|corpus| format!("perplexity of {}", corpus.name)).collect();
        Ok(Self { objective, report, probe, curves, seed: config.seed })
    }

    /// The losses that are reported, of each corpus.
    pub fn report(&self, model: &LanguageModel) -> Vec<Losses> {
        self.report.iter().map(|rows| losses(model, self.objective, rows, self.seed)).collect()
    }

    /// The losses of the probe.
    pub fn probe(&self, model: &LanguageModel) -> Losses {
        losses(model, self.objective, &self.probe, self.seed)
    }

    /// The perplexities to log for reported losses.
    pub fn curve(&self, losses: &[Losses]) -> Vec<(&str, f64)> {
        self.curves.iter().map(String::as_str).zip(losses.iter().map(|losses| perplexity(losses))).collect()
    }
}
