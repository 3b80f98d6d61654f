//! What a model achieves at a task: the figure it is judged by, and whatever else belongs to it.

use crate::bootstrap::{mean, perplexity};
use crate::classification::{ClassificationReport, Confusion};
use crate::entities::{EntityReport, Sentence, micro_f1};
use crate::fairness::{Counts, Criterion, Estimate, Group, Outcome};
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
    /// The rates of groups of people, of a classifier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// A classified row that is about one of several groups of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The group, counted from 0.
    pub group: usize,
    /// The right class.
    pub label: usize,
    /// The predicted one.
    pub prediction: usize,
}

/// Groups of fewer rows are shown, but not compared.
pub const FEWEST_ROWS: usize = 10;

/// How far groups lie apart, as figures.
const GAPS: [(&str, Criterion); 4] = [
    ("demographic parity gap", Criterion::DemographicParity),
    ("equal opportunity gap", Criterion::EqualOpportunity),
    ("equalized odds gap", Criterion::EqualizedOdds),
    ("accuracy gap", Criterion::Accuracy),
];

impl Evaluation {
    /// One figure alone.
    pub fn new(figure: Figure, loss: f64, n_rows: usize) -> Self {
        Self { figure, loss, n_rows, others: Vec::new(), report: None, entities: None, groups: Vec::new() }
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

    /// The same of a classifier with the rates of the groups that its `rows` are about, and as further figures how far the groups lie apart: by
    /// each [`Criterion`] the largest difference, of several `positives`, the classes that are counted, that of the worst. `groups` and
    /// `classes` are the names.
    ///
    /// # Panics
    /// If a group or a class has no name.
    pub fn with_groups(mut self, rows: &[Classified], groups: &[String], positives: &[usize], classes: &[String], seed: u64) -> Self {
        let present: Vec<usize> = (0..groups.len()).filter(|&group| rows.iter().any(|row| row.group == group)).collect();
        let place = |group: usize| present.binary_search(&group).expect("a group with rows");
        let outcomes = |positive: usize| -> Vec<Outcome> {
            let is = |class: usize| class == positive;
            rows.iter().map(|row| Outcome { group: place(row.group), label: is(row.label), prediction: is(row.prediction) }).collect()
        };
        let mut compared = vec![false; present.len()];
        for &positive in positives {
            let name = |&group: &usize| match positives {
                [_] => groups[group].clone(),
                _ => format!("{}, class {:?}", groups[group], classes[positive]),
            };
            let found = Group::all(&outcomes(positive), &present.iter().map(name).collect::<Vec<_>>(), FEWEST_ROWS, seed);
            for (place, mut group) in found.into_iter().enumerate() {
                compared[place] = group.compared;
                // Right is the right one of all classes.
                let hits: Vec<f64> = rows
                    .iter()
                    .filter(|row| row.group == present[place])
                    .map(|row| f64::from(u8::from(row.label == row.prediction)))
                    .collect();
                group.accuracy = Estimate::new(&hits, seed, mean);
                self.groups.push(group);
            }
        }
        let n_groups = present.len();
        let rows: Vec<Classified> =
            rows.iter().filter(|row| compared[place(row.group)]).map(|row| Classified { group: place(row.group), ..*row }).collect();
        if compared.iter().filter(|compared| **compared).count() < 2 {
            return self;
        }
        for (metric, criterion) in GAPS {
            let positives = positives.to_vec();
            let largest = move |rows: &[Classified]| {
                let of = |outcome: &dyn Fn(&Classified) -> [bool; 2]| {
                    let outcome = |row: &Classified| {
                        let [label, prediction] = outcome(row);
                        Outcome { group: row.group, label, prediction }
                    };
                    criterion.difference(&Counts::by_group(&rows.iter().map(outcome).collect::<Vec<_>>(), n_groups))
                };
                match criterion {
                    Criterion::Accuracy => of(&|row| [true, row.label == row.prediction]),
                    _ => positives.iter().map(|&class| of(&|row| [row.label == class, row.prediction == class])).fold(f64::NAN, f64::max),
                }
            };
            self.others.push(Figure::new(metric, rows.clone(), largest, seed).lower_is_better());
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn evaluation(rows: &[Classified], n_classes: usize, positives: &[usize]) -> Evaluation {
        let classes = names(&["a", "b", "c"][..n_classes]);
        let found: Vec<(usize, f64)> = rows.iter().map(|row| (row.prediction, 0.5)).collect();
        let golds: Vec<usize> = rows.iter().map(|row| row.label).collect();
        Evaluation::of_classes(&found, &golds, &classes, 3).with_groups(rows, &names(&["f", "m", "x", "none"]), positives, &classes, 3)
    }

    fn rows(group: usize, label: usize, prediction: usize, count: usize) -> Vec<Classified> {
        vec![Classified { group, label, prediction }; count]
    }

    /// Of f 6 of 10 positive rows are found and 2 of 10 others taken for positive, of m all and none; x has too few rows.
    #[test]
    fn gaps_by_hand() {
        let before = [
            rows(0, 1, 1, 6),
            rows(0, 1, 0, 4),
            rows(0, 0, 1, 2),
            rows(0, 0, 0, 8),
            rows(1, 1, 1, 10),
            rows(1, 0, 0, 10),
            rows(2, 1, 0, 1),
        ]
        .concat();
        let found = evaluation(&before, 2, &[1]);
        let groups: Vec<(&str, f64, bool)> =
            found.groups.iter().map(|group| (group.group.as_str(), group.accuracy.value, group.compared)).collect();
        assert_eq!(groups, [("f", 0.7, true), ("m", 1.0, true), ("x", 0.0, false)]);
        let gaps: Vec<f64> = found.others.iter().map(|figure| (1e6 * figure.value).round() / 1e6).collect();
        assert_eq!(gaps, [0.1, 0.4, 0.4, 0.3]);
        // Beside a model that treats all alike, the gap is less by all of it.
        let fair: Vec<Classified> = before.iter().map(|row| Classified { prediction: row.label, ..*row }).collect();
        let gain = evaluation(&fair, 2, &[1]).minus(&found);
        assert_eq!(gain.iter().map(|gain| gain.metric).collect::<Vec<_>>()[..2], ["accuracy", "demographic parity gap"]);
        assert!((gain[2].value + 0.4).abs() < 1e-12 && gain[2].interval.high < 0.0, "{gain:?}");
    }

    #[test]
    fn of_several_classes_the_worst_counts() {
        let all =
            [rows(0, 0, 0, 10), rows(0, 1, 1, 10), rows(0, 2, 2, 10), rows(1, 0, 0, 10), rows(1, 1, 2, 10), rows(1, 2, 2, 10)].concat();
        let found = evaluation(&all, 3, &[0, 1, 2]);
        assert_eq!(found.groups.len(), 6);
        assert_eq!(found.groups[1].group, "m, class \"a\"");
        let gaps: Vec<f64> = found.others.iter().map(|figure| figure.value).collect();
        assert!((gaps[0] - 1.0 / 3.0).abs() < 1e-12 && gaps[1] == 1.0 && (gaps[3] - 1.0 / 3.0).abs() < 1e-12, "{gaps:?}");
    }

    #[test]
    fn a_single_group_is_not_compared() {
        let found = evaluation(&rows(0, 1, 1, 20), 2, &[1]);
        assert!(found.others.is_empty() && found.groups.len() == 1);
    }
}
