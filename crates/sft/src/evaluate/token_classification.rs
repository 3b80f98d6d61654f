//! F1 of the entities that a token classifier finds.

use burn::module::Module;
use kiln_core::token_classifier::TokenClassifier;
use kiln_data::words::{Tagged, pack};
use kiln_eval::entities::{Reading, Sentence};
use kiln_eval::evaluation::Evaluation;
use kiln_train::evaluate::{batches, cross_entropies};

/// Strict F1 of the entities a model finds, with precision and recall per kind. A word without tokens counts as outside of all entities, so
/// that what was cut off is missed and not left out. `seed` draws the bootstrap's resamples of sentences.
pub fn token_classifier(model: &TokenClassifier, sentences: &[Tagged], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let found = batches(sentences, |sentence| sentence.ids.len()).flat_map(|batch| {
        let (packed, words) = pack(&batch);
        cross_entropies(model.forward(&packed, &words.rows, None), &words.targets)
    });
    let (mut loss, mut n_words) = (0.0, 0);
    let mut found = found.map(|(best, cross_entropy)| {
        loss += cross_entropy;
        n_words += 1;
        best
    });
    let judged = sentences.iter().map(|sentence| {
        let [predicted, gold] = sentence.names(|| found.next().expect("an answer for each word"), label_names);
        Sentence::new(&predicted, &gold, Reading::Strict).expect("labels were checked to be IOB2")
    });
    let judged = judged.collect();
    drop(found);
    Evaluation::of_entities(judged, loss / f64::from(n_words), seed)
}
