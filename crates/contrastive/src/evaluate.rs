//! How good a model is on texts it was not trained on.

use crate::judge::{Judge, Search};
use crate::search::nearest;
use burn::module::Module;
use kiln_core::language_model::LanguageModel;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Text;
use kiln_data::masking::Masking;
use kiln_data::pack::parts;
use kiln_eval::bootstrap::{Bootstrap, Interval, mean};
use kiln_eval::perplexity::Perplexity;
use kiln_eval::regression::spearman;
use kiln_eval::retrieval::Ranking;
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

/// How many of the documents found a search is judged by.
const DEPTH: usize = 10;

/// A sentence encoder: the rank correlation of cosines with scores, or how well queries find what answers them. `seed` draws the bootstrap's
/// resamples.
pub fn encoder(model: &SentenceEncoder, judge: &Judge, seed: u64) -> Evaluation {
    let figure = |metric, value, interval| Figure { metric, higher_is_better: true, value, interval };
    match judge {
        Judge::Scores(pairs) => {
            let texts: Vec<Vec<u32>> = pairs.iter().flat_map(|pair| pair.texts.clone()).collect();
            let vectors = model.embed(&texts);
            let scored = |(vectors, score): (&[Vec<f32>], f64)| (cosine(&vectors[0], &vectors[1]), score);
            let pairs: Vec<(f64, f64)> = vectors.chunks_exact(2).zip(pairs.iter().map(|pair| pair.score)).map(scored).collect();
            let interval = Bootstrap::new(seed).interval(&pairs, spearman);
            Evaluation { figures: vec![figure("spearman", spearman(&pairs), interval)], unit: "pairs", n_units: pairs.len() }
        }
        Judge::Search(Search { documents, queries, judgements }) => {
            let device = model.trunk.embeddings.token.weight.val().inner().device();
            let found = nearest(&model.embed(queries), &model.embed(documents), DEPTH, &device);
            let rankings: Vec<Ranking> = found.iter().zip(judgements).map(|(found, judged)| Ranking::new(found, judged)).collect();
            let of = |metric, score: fn(&Ranking, usize) -> f64| {
                let scores: Vec<f64> = rankings.iter().map(|ranking| score(ranking, DEPTH)).collect();
                figure(metric, mean(&scores), Bootstrap::new(seed).interval(&scores, mean))
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
    let model = model.clone().valid();
    let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
    let all: Vec<usize> = (0..texts.len()).collect();
    let mut per_text = Vec::with_capacity(texts.len());
    for part in parts(&all, &lengths, BATCH_TOKENS) {
        let hidden: Vec<&Text> = part.iter().map(|&index| &texts[index]).collect();
        let (batch, supervised) = masking.pack(&hidden, Key::new(seed), part[0]);
        per_text.extend(model.sequence_losses(&batch, &supervised));
    }
    let loss = |texts: &[(f64, u64)]| texts.iter().copied().collect::<Perplexity>().per_token_nats();
    let interval = Bootstrap::new(seed).interval(&per_text, loss);
    let figures = vec![Figure { metric: "masked loss", higher_is_better: false, value: loss(&per_text), interval }];
    Evaluation { figures, unit: "texts", n_units: texts.len() }
}
