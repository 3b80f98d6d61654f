//! What a model achieves at a task: the figure it is judged by, and whatever else belongs to it.

use crate::bootstrap::{mean, perplexity};
use crate::classification::{ClassificationReport, Confusion};
use crate::entities::{EntityReport, Sentence, micro_f1};
use crate::figure::{Difference, Figure};
use crate::perplexity::Perplexity;
use crate::regression::{mean_squared_error, pearson, spearman};
use serde::Serialize;

/// The figure a model is judged by, and whatever else belongs to it.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The figure, its interval over rows.
    #[serde(flatten)]
    pub figure: Figure,
    /// Mean loss: cross-entropy per row, word or token in nats, squared error per row, or preference loss per pair in nats.
    pub loss: f64,
    /// Rows evaluated.
    pub n_rows: usize,
    /// Further figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Figure>,
    /// Precision, recall and F1, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ClassificationReport>,
    /// The same by kind of entity, of a token classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<EntityReport>,
}

impl Evaluation {
    /// One figure alone.
    pub fn new(figure: Figure, loss: f64, n_rows: usize) -> Self {
        Self { figure, loss, n_rows, others: Vec::new(), report: None, entities: None }
    }

    /// Accuracy, with precision, recall and F1 per class. `found` is the class predicted for each row and the cross-entropy of the right one, in
    /// nats; `golds` the right ones; `seed` draws the bootstrap's resamples.
    ///
    /// # Panics
    /// If there are no rows, or not as many of both.
    pub fn of_classes(found: &[(usize, f64)], golds: &[usize], names: &[String], seed: u64) -> Self {
        let predictions: Vec<usize> = found.iter().map(|(class, _)| *class).collect();
        let loss = found.iter().map(|(_, cross_entropy)| cross_entropy).sum::<f64>() / found.len() as f64;
        let confusion = Confusion::new(&predictions, golds, names.len());
        let hits: Vec<f64> = predictions.iter().zip(golds).map(|(prediction, gold)| f64::from(u8::from(prediction == gold))).collect();
        let report = Some(ClassificationReport::new(&confusion, names));
        Self { report, ..Self::new(Figure::new("accuracy", hits, mean, seed), loss, golds.len()) }
    }

    /// Spearman's correlation of predicted numbers with the right ones, which come second; Pearson's; and the mean squared error. `seed` draws
    /// the bootstrap's resamples.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn of_numbers(pairs: Vec<(f64, f64)>, seed: u64) -> Self {
        let figure = |metric, statistic: fn(&[(f64, f64)]) -> f64| Figure::new(metric, pairs.clone(), statistic, seed);
        let others = vec![figure("pearson", pearson), figure("mean squared error", mean_squared_error).lower_is_better()];
        let loss = others[1].value;
        Self { others, ..Self::new(figure("spearman", spearman), loss, pairs.len()) }
    }

    /// Strict F1 of entities, with precision and recall per kind. `loss` is the mean cross-entropy per word in nats; `seed` draws the bootstrap's
    /// resamples of sentences.
    ///
    /// # Panics
    /// If there are no sentences.
    pub fn of_entities(sentences: Vec<Sentence>, loss: f64, seed: u64) -> Self {
        let n_rows = sentences.len();
        let entities = Some(EntityReport::new(&sentences.iter().collect::<Vec<_>>()));
        let score = move |places: &[usize]| micro_f1(&places.iter().map(|&place| &sentences[place]).collect::<Vec<_>>());
        Self { entities, ..Self::new(Figure::of_places("entity F1", n_rows, score, seed), loss, n_rows) }
    }

    /// Perplexity. `rows` are the negative log-likelihood of each in nats, and its tokens; `seed` draws the bootstrap's resamples of rows.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn of_tokens(rows: Vec<(f64, u64)>, seed: u64) -> Self {
        let (n_rows, loss) = (rows.len(), rows.iter().copied().collect::<Perplexity>().per_token_nats());
        Self::new(Figure::new("perplexity", rows, perplexity, seed).lower_is_better(), loss, n_rows)
    }

    /// By how much each figure is larger than in `before`, an evaluation on the same rows.
    pub fn minus(&self, before: &Self) -> Vec<Difference> {
        let figures = |evaluation: &Self| [vec![evaluation.figure.clone()], evaluation.others.clone()].concat();
        figures(self).iter().zip(&figures(before)).map(|(after, before)| after.minus(before)).collect()
    }
}
