//! Perplexity of a language model.

use super::{Evaluation, batches};
use burn::module::Module;
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::{Example, pack};
use kiln_eval::bootstrap::Bootstrap;
use kiln_eval::perplexity::Perplexity;

/// Perplexity of a language model over the supervised tokens. `seed` draws the bootstrap's resamples.
pub fn language_model(model: &LanguageModel, rows: &[Example], seed: u64) -> Evaluation {
    let per_row: Vec<(f64, u64)> =
        log_probabilities(model, rows).into_iter().zip(rows).map(|(sum, row)| (-sum, row.n_supervised() as u64)).collect();
    let perplexity: Perplexity = per_row.iter().copied().collect();
    let interval = Bootstrap::new(seed).perplexity(&per_row);
    let loss = perplexity.per_token_nats();
    Evaluation { higher_is_better: false, ..Evaluation::new("perplexity", perplexity.value(), interval, loss, rows.len()) }
}

/// The summed log-probability of each row's supervised tokens, in nats.
pub fn log_probabilities(model: &LanguageModel, rows: &[Example]) -> Vec<f64> {
    let model = model.clone().valid();
    let mut sums = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let (packed, supervised) = pack(&batch);
        let mut log_probabilities = model.log_probabilities(&packed, &supervised).into_iter().map(f64::from);
        sums.extend(batch.iter().map(|row| log_probabilities.by_ref().take(row.n_supervised()).sum::<f64>()));
    }
    sums
}
