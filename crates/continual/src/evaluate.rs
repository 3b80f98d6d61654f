//! How well a model knows each domain at each point of the stream, and what the domains did to each other.

use crate::data::Objective;
use burn::module::Module;
use kiln_core::language_model::LanguageModel;
use kiln_data::store::Sequence as _;
use kiln_eval::bootstrap::{mean, perplexity};
use kiln_eval::figure::Figure;
use kiln_eval::perplexity::Perplexity;
use kiln_kernels::random::Key;
use kiln_train::evaluate::batches;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use std::ops::Range;

/// The summed loss of each row in nats, and over how many tokens.
pub type Losses = Vec<(f64, u64)>;

/// The losses of `rows`. The same tokens of a masked objective are hidden at every evaluation with `seed`.
pub fn losses<O: Objective>(model: &LanguageModel, objective: &O, rows: &[&O::Row], seed: u64) -> Losses {
    let model = model.clone().valid();
    let mut losses = Losses::with_capacity(rows.len());
    for batch in batches(rows, |row| row.n_tokens()) {
        let batch: Vec<&O::Row> = batch.into_iter().copied().collect();
        let (packed, supervised) = objective.pack(&batch, Key::new(seed), losses.len());
        losses.extend(model.sequence_losses(&packed, &supervised));
    }
    losses
}

/// The mean loss per token, in nats.
fn loss(rows: impl IntoIterator<Item = (f64, u64)>) -> f64 {
    rows.into_iter().collect::<Perplexity>().per_token_nats()
}

/// The mean loss of `rows` per token, in nats.
pub fn mean_loss<O: Objective>(model: &LanguageModel, objective: &O, rows: &[&O::Row], seed: u64) -> f64 {
    loss(losses(model, objective, rows, seed))
}

/// By how much the perplexity rises from `before` to `after`, as a share, over the same rows.
pub fn rise(before: &Losses, after: &Losses, seed: u64) -> Figure {
    let rows: Vec<[(f64, u64); 2]> = before.iter().zip(after).map(|(&before, &after)| [before, after]).collect();
    let of = |rows: &[[(f64, u64); 2]]| (loss(rows.iter().map(|row| row[1])) - loss(rows.iter().map(|row| row[0]))).exp_m1();
    Figure::new("general rise", rows, of, seed).lower_is_better()
}

/// The perplexity of each corpus at each point of the stream.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The names of the corpora: general text, if there is any, and then the domains.
    pub columns: Vec<String>,
    /// How many of them are general text: 0 or 1.
    pub n_general: usize,
    /// The points: before the first domain, after each, and perhaps the model kept in the end.
    pub stages: Vec<Stage>,
    seed: u64,
}

/// What was measured at one point of the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// After what.
    pub after: String,
    /// The losses of each corpus.
    pub losses: Vec<Losses>,
}

/// One point of the stream.
#[derive(Clone, Debug)]
pub struct Stage {
    /// After what.
    pub after: String,
    /// The losses of each corpus.
    pub losses: Vec<Losses>,
    /// The perplexity of each corpus.
    pub perplexities: Vec<Figure>,
}

impl Matrix {
    /// Without a stage yet. `seed` draws the bootstrap's resamples.
    pub fn new(columns: Vec<String>, n_general: usize, seed: u64) -> Self {
        Self { columns, n_general, stages: Vec::new(), seed }
    }

    /// Adds the stage after what the name says.
    pub fn add(&mut self, after: &str, losses: Vec<Losses>) {
        let figure = |rows: &Losses| Figure::new("perplexity", rows.clone(), perplexity, self.seed).lower_is_better();
        let perplexities = losses.iter().map(figure).collect();
        self.stages.push(Stage { after: after.to_owned(), losses, perplexities });
    }

    /// The latest stage.
    ///
    /// # Panics
    /// If there is none.
    pub fn last(&self) -> &Stage {
        self.stages.last().expect("a stage")
    }

    /// How many domains there are.
    fn n_domains(&self) -> usize {
        self.columns.len() - self.n_general
    }

    /// What the domains did to each other. The matrix has a stage before the first domain and one after each; the last stage is the model
    /// that is kept.
    pub fn transfer(&self) -> Transfer {
        let (n, last) = (self.n_domains(), self.stages.len() - 1);
        Transfer {
            gain: self.over("gain", 0..n, move |loss, _| loss(0) - loss(last)).expect("a domain"),
            learnt: self.over("learnt", 0..n, |loss, domain| loss(0) - loss(domain + 1)).expect("a domain"),
            backward: self.over("backward", 0..n - 1, move |loss, domain| loss(domain + 1) - loss(last)),
            forward: self.over("forward", 1..n, |loss, domain| loss(0) - loss(domain)),
            forgetting: self
                .over("forgetting", 0..n - 1, move |loss, _| loss(last) - (0..last).map(loss).fold(f64::INFINITY, f64::min))
                .map(Figure::lower_is_better),
            general_rise: (self.n_general > 0).then(|| rise(&self.stages[0].losses[0], &self.stages[last].losses[0], self.seed)),
        }
    }

    /// The mean over `domains` of a difference between losses of the domain; it is handed the loss at a stage and the domain's number.
    fn over(
        &self,
        metric: &'static str,
        domains: Range<usize>,
        difference: impl Fn(AtStage<'_>, usize) -> f64 + Send + Sync + 'static,
    ) -> Option<Figure> {
        if domains.is_empty() {
            return None;
        }
        // Of each domain, by number, the losses at each stage.
        let of_domain = |domain: usize| self.stages.iter().map(|stage| stage.losses[self.n_general + domain].clone()).collect();
        let losses: Vec<(usize, Vec<Losses>)> = domains.map(|domain| (domain, of_domain(domain))).collect();
        let sizes = losses.iter().map(|(_, stages)| stages[0].len()).collect();
        let score = move |places: &[usize]| {
            let mut places = places;
            let of_domain = |(domain, stages): &(usize, Vec<Losses>)| {
                let (drawn, rest) = places.split_at(stages[0].len());
                places = rest;
                difference(&|stage| loss(drawn.iter().map(|&row| stages[stage][row])), *domain)
            };
            mean(&losses.iter().map(of_domain).collect::<Vec<_>>())
        };
        Some(Figure::of_strata(metric, sizes, score, self.seed))
    }
}

/// The loss of a domain at a stage.
type AtStage<'a> = &'a dyn Fn(usize) -> f64;

// A list of rows with one key for each column, which reads as a table.
impl Serialize for Matrix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Row<'a>(&'a Stage, &'a [String]);

        impl Serialize for Row<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(self.1.len() + 1))?;
                map.serialize_entry("after", &self.0.after)?;
                for (name, figure) in self.1.iter().zip(&self.0.perplexities) {
                    map.serialize_entry(name, figure)?;
                }
                map.end()
            }
        }

        let mut rows = serializer.serialize_seq(Some(self.stages.len()))?;
        self.stages.iter().try_for_each(|stage| rows.serialize_element(&Row(stage, &self.columns)))?;
        rows.end()
    }
}

/// What the domains of a stream did to each other, in nats per token, means over domains.
///
/// Source: Lopez-Paz and Ranzato, arXiv:1706.08840, Section 2 (backward and forward transfer); Chaudhry et al., arXiv:1801.10112, Section 3
/// (forgetting).
/// Differs from the source: losses instead of accuracies, signed so that more is better, but for forgetting.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// How much better each domain is known in the end than before the first.
    pub gain: Figure,
    /// How much better each domain was known right after it was learnt.
    pub learnt: Figure,
    /// How much better each domain but the last is known in the end than right after it was learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backward: Option<Figure>,
    /// How much better each domain but the first was known just before it was learnt than before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Figure>,
    /// How much worse each domain but the last is known in the end than at its best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgetting: Option<Figure>,
    /// By how much the perplexity of general text rose, as a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_rise: Option<Figure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column whose rows all have this mean loss.
    fn column(loss: f64) -> Losses {
        (1..30).map(|n| (loss * n as f64, n)).collect()
    }

    fn matrix(stages: &[[f64; 4]]) -> Matrix {
        let mut matrix = Matrix::new(["general", "a", "b", "c"].map(str::to_owned).to_vec(), 1, 3);
        stages.iter().for_each(|stage| matrix.add("x", stage.iter().map(|&loss| column(loss)).collect()));
        matrix
    }

    #[test]
    fn a_worked_example() {
        let stages = [[1.0, 5.0, 6.0, 7.0], [1.2, 2.0, 5.5, 7.0], [1.4, 2.5, 3.0, 6.0], [1.5, 3.0, 3.25, 4.0]];
        let transfer = matrix(&stages).transfer();
        let close = |figure: &Figure, expected: f64| {
            assert!((figure.value - expected).abs() < 1e-12, "{} {expected}", figure.value);
            assert!((figure.interval.high - expected).abs() < 1e-9, "no row differs from another");
        };
        close(&transfer.gain, (2.0 + 2.75 + 3.0) / 3.0);
        close(&transfer.learnt, (3.0 + 3.0 + 3.0) / 3.0);
        close(transfer.backward.as_ref().expect("three domains"), -(1.0 + 0.25) / 2.0);
        close(transfer.forward.as_ref().expect("three domains"), (0.5 + 1.0) / 2.0);
        close(transfer.forgetting.as_ref().expect("three domains"), (1.0 + 0.25) / 2.0);
        close(transfer.general_rise.as_ref().expect("general text"), 0.5f64.exp() - 1.0);
        // The model that is kept is another one.
        let kept = [&stages[..], &[[1.1, 4.0, 5.0, 6.0]]].concat();
        let transfer = matrix(&kept).transfer();
        close(&transfer.gain, 1.0);
        close(&transfer.learnt, 3.0);
        close(transfer.general_rise.as_ref().expect("general text"), 0.1f64.exp() - 1.0);
    }

    #[test]
    fn one_domain_has_nothing_to_transfer_to() {
        let mut matrix = Matrix::new(vec!["a".into()], 0, 3);
        matrix.add("start", vec![column(5.0)]);
        matrix.add("a", vec![column(2.0)]);
        let transfer = matrix.transfer();
        assert_eq!(transfer.gain.value, 3.0);
        assert!(transfer.backward.is_none() && transfer.forward.is_none() && transfer.general_rise.is_none());
    }

    #[test]
    fn a_rise_of_nothing_is_exactly_none() {
        let same = rise(&column(1.25), &column(1.25), 0);
        assert_eq!((same.value, same.interval.low, same.interval.high), (0.0, 0.0, 0.0));
    }
}
