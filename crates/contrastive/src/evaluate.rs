//! How good a model is on texts it was not trained on.

use crate::data::Text;
use crate::objective::masked_language_model::Masking;
use burn::module::Module;
use kiln_core::language_model::LanguageModel;
use kiln_data::pack::parts;
use kiln_eval::bootstrap::{Bootstrap, Interval};
use kiln_eval::perplexity::Perplexity;
use kiln_kernels::random::Key;
use serde::Serialize;

/// Tokens per forward pass of an evaluation; results do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// One figure with its uncertainty.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name.
    pub metric: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The figure.
    pub value: f64,
    /// Its 95 % bootstrap interval over rows.
    pub interval: Interval,
}

/// What a model achieves.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The figures; the first is the one a run is judged by.
    pub figures: Vec<Figure>,
    /// What the interval is over.
    pub unit: &'static str,
    /// How many of them were evaluated.
    pub n_units: usize,
}

/// The mean loss of a masked language model over hidden tokens, in nats. The same tokens are hidden at every evaluation with `seed`, which
/// also draws the bootstrap's resamples.
pub fn masked_language_model(model: &LanguageModel, texts: &[Text], masking: &Masking, seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
    let all: Vec<usize> = (0..texts.len()).collect();
    let mut per_text = Vec::with_capacity(texts.len());
    for part in parts(&all, &lengths, BATCH_TOKENS) {
        let hidden: Vec<&Text> = part.iter().map(|&index| &texts[index]).collect();
        let (batch, supervised) = masking.pack(&hidden, Key::new(seed), part[0]);
        let log_probabilities = model.log_probabilities(&batch, &supervised);
        let rows = supervised.rows.iter().zip(log_probabilities);
        let mut rows = rows.map(|(&row, log_probability)| (row as usize, -f64::from(log_probability))).peekable();
        for range in batch.segments.ranges() {
            let (mut nll, mut n_tokens) = (0.0, 0);
            while let Some((_, loss)) = rows.next_if(|(row, _)| *row < range.end) {
                nll += loss;
                n_tokens += 1;
            }
            per_text.push((nll, n_tokens));
        }
    }
    let loss = |texts: &[(f64, u64)]| texts.iter().copied().collect::<Perplexity>().per_token_nats();
    let interval = Bootstrap::new(seed).interval(&per_text, loss);
    let figures = vec![Figure { metric: "masked loss", higher_is_better: false, value: loss(&per_text), interval }];
    Evaluation { figures, unit: "texts", n_units: texts.len() }
}
