//! Log-probabilities of tokens under a language model, of many sequences in few passes.

use burn::module::Module as _;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_kernels::cross_entropy::HeadOptions;
use kiln_train::evaluate::{batches, floats};
use std::ops::Range;

/// A sequence, and which tokens are predicted from which of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The sequence.
    pub ids: Vec<u32>,
    /// Rows that predict, in rising order.
    pub rows: Vec<u32>,
    /// What each should predict.
    pub targets: Vec<u32>,
}

impl Query {
    /// The tokens at `places` of `ids`, each predicted from the one before it, as decoders do. The first token, which nothing predicts, is not
    /// asked for.
    pub fn next_tokens(ids: &[u32], places: Range<usize>) -> Self {
        let places = places.start.max(1)..places.end;
        Self { ids: ids.to_vec(), rows: places.clone().map(|place| place as u32 - 1).collect(), targets: ids[places].to_vec() }
    }

    /// For each of `places` a copy of `ids` with `hidden` in its place, which the token there is predicted from, as encoders do.
    pub fn hidden_tokens(ids: &[u32], places: impl IntoIterator<Item = usize>, hidden: u32) -> Vec<Self> {
        let copy = |place: usize| {
            let mut copy = ids.to_vec();
            copy[place] = hidden;
            Self { ids: copy, rows: vec![place as u32], targets: vec![ids[place]] }
        };
        places.into_iter().map(copy).collect()
    }
}

/// The log-probability of every target of every query, in nats. Sequences are laid end to end, without padding, as many as fit a pass; only
/// the rows that predict meet the output head.
pub fn log_probabilities(model: &LanguageModel, queries: &[Query]) -> Vec<Vec<f64>> {
    let model = model.clone().valid();
    let of_batch = |batch: Vec<&Query>| {
        let packed = Packed::new(batch.iter().map(|query| query.ids.as_slice()));
        let starts = packed.segments.ranges().map(|range| range.start as u32);
        let rows: Vec<u32> = batch.iter().zip(starts).flat_map(|(query, start)| query.rows.iter().map(move |row| start + row)).collect();
        let targets: Vec<u32> = batch.iter().flat_map(|query| query.targets.iter().copied()).collect();
        if targets.is_empty() {
            return vec![Vec::new(); batch.len()];
        }
        let supervised = Supervised { weights: vec![1.0; rows.len()].into(), rows: rows.into(), targets: targets.into() };
        let columns = floats(model.log_probabilities(&packed, &supervised, HeadOptions::default(), None));
        // Column 1 holds entropies.
        let mut values = columns.iter().step_by(2).map(|&value| f64::from(value));
        batch.iter().map(|query| values.by_ref().take(query.targets.len()).collect()).collect()
    };
    batches(queries, |query| query.ids.len()).flat_map(of_batch).collect()
}
