//! Accuracy of a classifier.

use super::{Evaluation, batches, cross_entropies};
use crate::data::sequences::{Labelled, packed};
use burn::module::Module;
use kiln_core::classifier::SequenceClassifier;
use kiln_eval::bootstrap::mean;
use kiln_eval::classification::{ClassificationReport, Confusion};
use kiln_eval::figure::Figure;

/// Accuracy of a classifier, with precision, recall and F1 per class. `seed` draws the bootstrap's resamples.
pub fn classifier(model: &SequenceClassifier, rows: &[Labelled<u32>], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut predictions = Vec::with_capacity(rows.len());
    let mut loss = 0.0;
    for batch in batches(rows, |row| row.ids.len()) {
        let labels: Vec<u32> = batch.iter().map(|row| row.label).collect();
        for (best, cross_entropy) in cross_entropies(model.forward(&packed(&batch), None), &labels) {
            predictions.push(best);
            loss += cross_entropy;
        }
    }
    let golds: Vec<usize> = rows.iter().map(|row| row.label as usize).collect();
    let confusion = Confusion::new(&predictions, &golds, label_names.len());
    let hits: Vec<f64> = predictions.iter().zip(&golds).map(|(prediction, gold)| f64::from(u8::from(prediction == gold))).collect();
    Evaluation {
        report: Some(ClassificationReport::new(&confusion, label_names)),
        ..Evaluation::new(Figure::new("accuracy", hits, mean, seed), loss / rows.len() as f64, rows.len())
    }
}
