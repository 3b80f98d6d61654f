//! How often a model prefers what should be preferred.

use crate::config::PreferenceConfig;
use crate::data::preferences::{Pair, margins};
use crate::objective::preference::of_pair;
use kiln_core::language_model::LanguageModel;
use kiln_eval::bootstrap::mean;
use kiln_eval::evaluation::Evaluation;
use kiln_eval::figure::Figure;

/// Share of the pairs whose chosen completion gained more probability over the reference model's than the rejected one, a tie counting half;
/// and the mean of `β` times by how much, in nats. `seed` draws the bootstrap's resamples.
pub fn preference(model: &LanguageModel, pairs: &[Pair], config: &PreferenceConfig, seed: u64) -> Evaluation {
    let gained = margins(model, pairs).into_iter().zip(pairs).map(|(margin, pair)| config.beta * (margin - pair.reference_margin));
    let gained: Vec<f64> = gained.collect();
    let right: Vec<f64> = gained.iter().map(|&gain| if gain == 0.0 { 0.5 } else { f64::from(u8::from(gain > 0.0)) }).collect();
    let losses: Vec<f64> = gained.iter().map(|&gain| of_pair(gain, config.label_smoothing)).collect();
    let others = vec![Figure::new("margin", gained, mean, seed)];
    Evaluation { others, ..Evaluation::new(Figure::new("preference accuracy", right, mean, seed), mean(&losses), pairs.len()) }
}
