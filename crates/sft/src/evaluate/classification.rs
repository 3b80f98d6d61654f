//! Accuracy of a classifier.

use burn::module::Module;
use burn::tensor::Tensor;
use kiln_core::classifier::SequenceClassifier;
use kiln_data::sequences::{Labelled, packed};
use kiln_eval::evaluation::Evaluation;
use kiln_train::evaluate::{batches, cross_entropies};

/// What a classifier says of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The likeliest class.
    pub class: usize,
    /// That of the right class, in nats.
    pub cross_entropy: f64,
    /// The probability of the positive class.
    pub score: f64,
}

/// What a classifier says of rows; `positive` is the class whose probability is wanted.
pub(crate) fn answers(model: &SequenceClassifier, rows: &[&Labelled<u32>], positive: u32) -> Vec<Answer> {
    let model = model.clone().valid();
    let of_batch = |batch: Vec<&&Labelled<u32>>| {
        let batch: Vec<&Labelled<u32>> = batch.into_iter().copied().collect();
        let labels: Vec<u32> = batch.iter().map(|row| row.label).collect();
        let logits: Tensor<2> = model.forward(&packed(&batch), None);
        let scores = cross_entropies(logits.clone(), &vec![positive; batch.len()]);
        let found = cross_entropies(logits, &labels).into_iter().zip(scores);
        found.map(|((class, cross_entropy), (_, score))| Answer { class, cross_entropy, score: (-score).exp() }).collect::<Vec<_>>()
    };
    batches(rows, |row| row.ids.len()).flat_map(of_batch).collect()
}

/// Accuracy of a classifier, with precision, recall and F1 per class. `seed` draws the bootstrap's resamples.
pub fn classifier(model: &SequenceClassifier, rows: &[Labelled<u32>], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let found = batches(rows, |row| row.ids.len()).flat_map(|batch| {
        let labels: Vec<u32> = batch.iter().map(|row| row.label).collect();
        cross_entropies(model.forward(&packed(&batch), None), &labels)
    });
    let golds: Vec<usize> = rows.iter().map(|row| row.label as usize).collect();
    Evaluation::of_classes(&found.collect::<Vec<_>>(), &golds, label_names, seed)
}
