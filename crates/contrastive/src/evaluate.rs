//! How good a model is on texts it was not trained on.

use crate::config::EvalConfig;
use crate::judge::{Judge, Search, judge};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::search::nearest;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Result, adapter};
use kiln_data::examples::{Counts, Limit};
use kiln_data::masking::Masking;
use kiln_data::source::fetched;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::{Difference, Figure};
use kiln_eval::perplexity::Perplexity;
use kiln_eval::regression::spearman;
use kiln_eval::retrieval::Ranking;
use kiln_kernels::random::Key;
use kiln_train::evaluate::batches;
use serde::Serialize;

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

impl Evaluation {
    /// By how much each figure is larger than in `before`, an evaluation on the same units.
    pub fn minus(&self, before: &Self) -> Vec<Difference> {
        self.figures.iter().zip(&before.figures).map(|(after, before)| after.minus(before)).collect()
    }
}

/// Evaluates the encoder, and the adapter, that `config` names. Also returns what became of the rows.
///
/// # Errors
/// If a setting, a file, a column or a row is bad.
pub fn evaluate(config: &EvalConfig, device: &Device) -> Result<(Evaluation, Counts)> {
    config.validate()?;
    let tokenizer = Tokenizer::for_model(&config.model, &ModelConfig::from_folder(&config.model)?)?;
    let (model, _) = SentenceEncoder::load(&config.model, device)?;
    let limit = Limit::new(model.head().max_tokens, config.overlong, &tokenizer)?;
    let (judge, counts) = judge(&fetched("data", &config.data, "test")?, &config.columns, &tokenizer, limit)?;
    let model = match &config.adapter {
        Some(folder) => adapter::load(model, folder, device)?,
        None => model,
    };
    Ok((encoder(&model, &judge, config.seed), counts))
}

/// How many of the documents found a search is judged by.
const DEPTH: usize = 10;

/// A sentence encoder: the rank correlation of cosines with scores, or how well queries find what answers them. `seed` draws the bootstrap's
/// resamples.
pub fn encoder(model: &SentenceEncoder, judge: &Judge, seed: u64) -> Evaluation {
    match judge {
        Judge::Scores(pairs) => {
            let texts: Vec<Vec<u32>> = pairs.iter().flat_map(|pair| pair.texts.clone()).collect();
            let vectors = model.embed(&texts);
            let scored = |(vectors, score): (&[Vec<f32>], f64)| (cosine(&vectors[0], &vectors[1]), score);
            let pairs: Vec<(f64, f64)> = vectors.chunks_exact(2).zip(pairs.iter().map(|pair| pair.score)).map(scored).collect();
            let n_units = pairs.len();
            Evaluation { figures: vec![Figure::new("spearman", pairs, spearman, seed)], unit: "pairs", n_units }
        }
        Judge::Search(Search { documents, queries, judgements }) => {
            let device = model.trunk.embeddings.token.weight.val().inner().device();
            let found = nearest(&model.embed(queries), &model.embed(documents), DEPTH, &device);
            let rankings: Vec<Ranking> = found.iter().zip(judgements).map(|(found, judged)| Ranking::new(found, judged)).collect();
            let of = |metric, score: fn(&Ranking, usize) -> f64| {
                Figure::new(metric, rankings.iter().map(|ranking| score(ranking, DEPTH)).collect(), mean, seed)
            };
            let figures = vec![of("nDCG@10", Ranking::ndcg), of("MRR@10", Ranking::reciprocal_rank), of("recall@10", Ranking::recall)];
            Evaluation { figures, unit: "queries", n_units: queries.len() }
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// The mean loss of a masked language model over hidden tokens, in nats. The same tokens are hidden at every evaluation with `seed`, which
/// also draws the bootstrap's resamples.
pub fn masked_language_model(model: &LanguageModel, texts: &[Text], masking: &Masking, seed: u64) -> Evaluation {
    let per_text = of_texts(model, &texts.iter().collect::<Vec<_>>(), masking, seed);
    Evaluation {
        figures: vec![Figure::new("masked loss", per_text, per_token, seed).lower_is_better()],
        unit: "texts",
        n_units: texts.len(),
    }
}

/// The same loss without its interval.
pub(crate) fn masked_loss(model: &LanguageModel, texts: &[&Text], masking: &Masking, seed: u64) -> f64 {
    per_token(&of_texts(model, texts, masking, seed))
}

/// The summed loss of each text, and of how many tokens.
fn of_texts(model: &LanguageModel, texts: &[&Text], masking: &Masking, seed: u64) -> Vec<(f64, u64)> {
    let model = model.clone().valid();
    let mut per_text = Vec::with_capacity(texts.len());
    for batch in batches(texts, |text| text.ids.len()) {
        let batch: Vec<&Text> = batch.into_iter().copied().collect();
        let (batch, supervised) = masking.pack(&batch, Key::new(seed), per_text.len());
        per_text.extend(model.sequence_losses(&batch, &supervised));
    }
    per_text
}

fn per_token(texts: &[(f64, u64)]) -> f64 {
    texts.iter().copied().collect::<Perplexity>().per_token_nats()
}
