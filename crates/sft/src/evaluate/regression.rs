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
    let predictions = batches(rows, |row| row.ids.len()).flat_map(|batch| floats(model.forward(&packed(&batch), None)));
    Evaluation::of_numbers(predictions.zip(rows).map(|(prediction, row)| (f64::from(prediction), f64::from(row.label))).collect(), seed)
}
