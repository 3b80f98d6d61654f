//! Precision, recall and F1 from counts, and their averages over classes or entity types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Precision, recall and F1 of one class, or their average over the classes.
///
/// ```text
/// precision = tp / (tp + fp)      recall = tp / (tp + fn)      f1 = 2 tp / (2 tp + fp + fn)
/// ```
///
/// with `tp` items of the class found, `fp` others taken for it, `fn` of its items missed. Where nothing is divided by nothing
/// (a class never predicted, a class without items) the score is 0, as in scikit-learn and seqeval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of the items predicted to be of the class that are of it.
    pub precision: f64,
    /// Share of the class's items that were found.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Gold items of the class; of all classes together for an average.
    pub support: u64,
}

/// The scores of one class or entity type, with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub name: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

impl Scores {
    /// The scores of `n_found` right ones among `n_predicted` predicted and `support` gold items.
    pub(crate) fn from_counts(n_found: u64, n_predicted: u64, support: u64) -> Self {
        let (precision, recall) = (ratio(n_found, n_predicted), ratio(n_found, support));
        Self { precision, recall, f1: ratio(2 * n_found, n_predicted + support), support }
    }

    /// Plain mean over the classes, each weighing the same however rare; 0 without classes.
    pub(crate) fn macro_average(classes: &[Scores]) -> Self {
        Self::average(classes, |_| 1)
    }

    /// Mean over the classes weighted by their support; 0 without gold items.
    pub(crate) fn weighted_average(classes: &[Scores]) -> Self {
        Self::average(classes, |scores| scores.support)
    }

    fn average(classes: &[Scores], weight: impl Fn(&Scores) -> u64) -> Self {
        let weight_sum: u64 = classes.iter().map(&weight).sum();
        let mean = |score: fn(&Scores) -> f64| match weight_sum {
            0 => 0.0,
            _ => classes.iter().map(|scores| score(scores) * weight(scores) as f64).sum::<f64>() / weight_sum as f64,
        };
        let support = classes.iter().map(|scores| scores.support).sum();
        Self { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1), support }
    }
}

/// `part / whole`, and 0 for 0 / 0.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The table of a report: a line per class, then one per average, the columns aligned. Returns the width of the names.
pub(crate) fn write_table(f: &mut fmt::Formatter<'_>, classes: &[ClassScores], averages: &[(&str, &Scores)]) -> Result<usize, fmt::Error> {
    let rows = || classes.iter().map(|class| (class.name.as_str(), &class.scores)).chain(averages.iter().copied());
    let width = rows().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    write!(f, "{:width$}  precision  recall      f1  support", "")?;
    for (name, Scores { precision, recall, f1, support }) in rows() {
        write!(f, "\n{name:width$}  {precision:9.4}  {recall:6.4}  {f1:6.4}  {support:7}")?;
    }
    Ok(width)
}
