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
    let mut judged = Vec::with_capacity(sentences.len());
    let (mut loss, mut n_words) = (0.0, 0);
    for batch in batches(sentences, |sentence| sentence.ids.len()) {
        let (packed, words) = pack(&batch);
        let found = cross_entropies(model.forward(&packed, &words.rows, None), &words.targets);
        loss += found.iter().map(|(_, cross_entropy)| cross_entropy).sum::<f64>();
        n_words += found.len();
        let mut found = found.into_iter();
        for sentence in batch {
            let [predicted, gold] = sentence.names(|| found.next().expect("an answer for each word with a token").0, label_names);
            judged.push(Sentence::new(&predicted, &gold, Reading::Strict).expect("labels were checked to be IOB2"));
        }
    }
    Evaluation::of_entities(judged, loss / n_words as f64, seed)
}
