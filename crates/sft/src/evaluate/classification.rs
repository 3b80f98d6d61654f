//! Accuracy of a classifier.

use burn::module::Module;
use kiln_core::classifier::SequenceClassifier;
use kiln_data::sequences::{Labelled, packed};
use kiln_eval::evaluation::Evaluation;
use kiln_train::evaluate::{batches, cross_entropies};

/// Accuracy of a classifier, with precision, recall and F1 per class. `seed` draws the bootstrap's resamples.
pub fn classifier(model: &SequenceClassifier, rows: &[Labelled<u32>], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut found = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let labels: Vec<u32> = batch.iter().map(|row| row.label).collect();
        found.extend(cross_entropies(model.forward(&packed(&batch), None), &labels));
    }
    let golds: Vec<usize> = rows.iter().map(|row| row.label as usize).collect();
    Evaluation::of_classes(&found, &golds, label_names, seed)
}
