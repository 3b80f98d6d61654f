//! Perplexity of a language model.

use burn::module::Module;
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::{Example, pack};
use kiln_eval::evaluation::Evaluation;
use kiln_kernels::cross_entropy::HeadOptions;
use kiln_train::evaluate::{batches, floats};

/// Perplexity of a language model over the supervised tokens. `seed` draws the bootstrap's resamples.
pub fn language_model(model: &LanguageModel, rows: &[Example], seed: u64) -> Evaluation {
    let sums = log_probabilities(model, &rows.iter().collect::<Vec<_>>());
    let per_row: Vec<(f64, u64)> = sums.into_iter().zip(rows).map(|(sum, row)| (-sum, row.n_supervised() as u64)).collect();
    Evaluation::of_tokens(per_row, seed)
}

/// The summed log-probability of each row's supervised tokens, in nats.
pub fn log_probabilities(model: &LanguageModel, rows: &[&Example]) -> Vec<f64> {
    let model = model.clone().valid();
    let mut sums = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let batch: Vec<&Example> = batch.into_iter().copied().collect();
        let (packed, supervised) = pack(&batch);
        // Column 0; column 1 holds entropies.
        let both = floats(model.log_probabilities(&packed, &supervised, HeadOptions::default(), None));
        let mut log_probabilities = both.iter().step_by(2).map(|&log_probability| f64::from(log_probability));
        sums.extend(batch.iter().map(|row| log_probabilities.by_ref().take(row.n_supervised()).sum::<f64>()));
    }
    sums
}
