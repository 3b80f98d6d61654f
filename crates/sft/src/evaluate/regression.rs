//! Correlation of predicted with given numbers.

use burn::module::Module;
use kiln_core::classifier::SequenceClassifier;
use kiln_data::sequences::{Labelled, packed};
use kiln_eval::evaluation::Evaluation;
use kiln_train::evaluate::{batches, floats};

/// Spearman's correlation of a model's numbers with those of the rows, Pearson's, and the mean squared error. `seed` draws the bootstrap's
/// resamples.
pub fn regression(model: &SequenceClassifier, rows: &[Labelled<f32>], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut pairs = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let predictions = floats(model.forward(&packed(&batch), None));
        pairs.extend(predictions.into_iter().zip(batch).map(|(prediction, row)| (f64::from(prediction), f64::from(row.label))));
    }
    Evaluation::of_numbers(pairs, seed)
}
