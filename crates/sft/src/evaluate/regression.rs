//! Correlation of predicted with given numbers.

use super::{Evaluation, batches, floats};
use crate::data::sequences::{Labelled, packed};
use burn::module::Module;
use kiln_core::classifier::SequenceClassifier;
use kiln_eval::figure::Figure;
use kiln_eval::regression::{mean_squared_error, pearson, spearman};

/// Spearman's correlation of a model's numbers with those of the rows, Pearson's, and the mean squared error. `seed` draws the bootstrap's
/// resamples.
pub fn regression(model: &SequenceClassifier, rows: &[Labelled<f32>], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut pairs = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let predictions = floats(model.forward(&packed(&batch), None));
        pairs.extend(predictions.into_iter().zip(batch).map(|(prediction, row)| (f64::from(prediction), f64::from(row.label))));
    }
    let figure = |metric, statistic: fn(&[(f64, f64)]) -> f64| Figure::new(metric, pairs.clone(), statistic, seed);
    let others = vec![figure("pearson", pearson), figure("mean squared error", mean_squared_error).lower_is_better()];
    let loss = others[1].value;
    Evaluation { others, ..Evaluation::new(figure("spearman", spearman), loss, rows.len()) }
}
