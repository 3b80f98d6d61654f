//! F1 of the entities that a token classifier finds.

use super::{Evaluation, batches, cross_entropies};
use crate::data::words::{Tagged, pack};
use burn::module::Module;
use kiln_core::token_classifier::TokenClassifier;
use kiln_data::tags::OUTSIDE;
use kiln_eval::entities::{EntityReport, Reading, Sentence, micro_f1};
use kiln_eval::figure::Figure;

/// Strict F1 of the entities a model finds, with precision and recall per kind. A word without tokens counts as outside of all entities, so
/// that what was cut off is missed and not left out. `seed` draws the bootstrap's resamples of sentences.
pub fn token_classifier(model: &TokenClassifier, sentences: &[Tagged], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let name = |tag: u32| label_names[tag as usize].as_str();
    let mut judged = Vec::with_capacity(sentences.len());
    let (mut loss, mut n_words) = (0.0, 0);
    for batch in batches(sentences, |sentence| sentence.ids.len()) {
        let (packed, words) = pack(&batch);
        let mut found = cross_entropies(model.forward(&packed, &words.rows, None), &words.targets).into_iter();
        for sentence in batch {
            let tag = |first: &Option<usize>| match first.and_then(|_| found.next()) {
                Some((best, cross_entropy)) => {
                    loss += cross_entropy;
                    n_words += 1;
                    name(best as u32)
                }
                None => OUTSIDE,
            };
            let predicted: Vec<&str> = sentence.firsts.iter().map(tag).collect();
            let gold: Vec<&str> = sentence.tags.iter().map(|&tag| name(tag)).collect();
            judged.push(Sentence::new(&predicted, &gold, Reading::Strict).expect("labels were checked to be IOB2"));
        }
    }
    let report = EntityReport::new(&judged.iter().collect::<Vec<_>>());
    let score = move |places: &[usize]| micro_f1(&places.iter().map(|&place| &judged[place]).collect::<Vec<_>>());
    let figure = Figure::of_places("entity F1", sentences.len(), score, seed);
    Evaluation { entities: Some(report), ..Evaluation::new(figure, loss / f64::from(n_words), sentences.len()) }
}
