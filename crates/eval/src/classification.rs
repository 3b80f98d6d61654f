//! Precision, recall and F1 of a single-label classifier.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How often each class was taken for each: `counts[gold][predicted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    counts: Vec<Vec<u64>>,
}

/// Precision, recall and F1 of one class, or their average over the classes.
///
/// ```text
/// precision = tp / (tp + fp)      recall = tp / (tp + fn)      f1 = 2 tp / (2 tp + fp + fn)
/// ```
///
/// with `tp` items of the class found, `fp` others taken for it, `fn` of its items missed. Where nothing is divided by nothing
/// (a class never predicted, a class without items) the score is 0, as in scikit-learn.
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

impl Confusion {
    /// Counts `predictions` against `golds`, both class indices below `n_classes`, item by item.
    ///
    /// # Panics
    /// If the lengths differ or an index is not below `n_classes`.
    pub fn new(predictions: &[usize], golds: &[usize], n_classes: usize) -> Self {
        let (n_predictions, n_golds) = (predictions.len(), golds.len());
        assert_eq!(n_predictions, n_golds, "{n_predictions} predictions for {n_golds} gold labels");
        let mut counts = vec![vec![0; n_classes]; n_classes];
        for (&predicted, &gold) in predictions.iter().zip(golds) {
            assert!(predicted < n_classes && gold < n_classes, "predicted {predicted}, gold {gold}, but {n_classes} classes");
            counts[gold][predicted] += 1;
        }
        Self { counts }
    }

    /// The table of counts, `[gold][predicted]`.
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Number of classes, the absent ones included.
    pub fn n_classes(&self) -> usize {
        self.counts.len()
    }

    /// Number of items counted.
    pub fn n_items(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Share of items predicted right; 0 without items.
    pub fn accuracy(&self) -> f64 {
        ratio((0..self.n_classes()).map(|class| self.counts[class][class]).sum(), self.n_items())
    }

    /// Scores of one class.
    pub fn class(&self, class: usize) -> Scores {
        let found = self.counts[class][class];
        let n_predicted = self.counts.iter().map(|row| row[class]).sum();
        let support = self.counts[class].iter().sum();
        Scores::from_counts(found, n_predicted, support)
    }

    /// Scores of every class, by class index.
    pub fn per_class(&self) -> Vec<Scores> {
        (0..self.n_classes()).map(|class| self.class(class)).collect()
    }

    /// Scores from the counts of all classes together. With one label per item and every class counted, precision, recall and
    /// F1 are all the accuracy.
    pub fn micro_average(&self) -> Scores {
        let found = (0..self.n_classes()).map(|class| self.counts[class][class]).sum();
        Scores::from_counts(found, self.n_items(), self.n_items())
    }

    /// Plain mean over all classes, each weighing the same however rare; absent classes count as 0.
    pub fn macro_average(&self) -> Scores {
        self.average(|_| 1)
    }

    /// Mean over the classes weighted by their support.
    pub fn weighted_average(&self) -> Scores {
        self.average(|scores| scores.support)
    }

    fn average(&self, weight: impl Fn(&Scores) -> u64) -> Scores {
        let classes = self.per_class();
        let weight_sum: u64 = classes.iter().map(&weight).sum();
        let mean = |score: fn(&Scores) -> f64| match weight_sum {
            0 => 0.0,
            _ => classes.iter().map(|scores| score(scores) * weight(scores) as f64).sum::<f64>() / weight_sum as f64,
        };
        Scores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1), support: self.n_items() }
    }
}

impl Scores {
    fn from_counts(found: u64, n_predicted: u64, support: u64) -> Self {
        Self { precision: ratio(found, n_predicted), recall: ratio(found, support), f1: ratio(2 * found, n_predicted + support), support }
    }
}

/// `part / whole`, and 0 for 0 / 0.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The scores of a classifier with the names of its classes; `Display` prints them as a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassificationReport {
    /// Number of items classified.
    pub n_items: u64,
    /// Share of items predicted right.
    pub accuracy: f64,
    /// Every class, in the order of its index.
    pub classes: Vec<ClassScores>,
    /// Mean over the classes, each weighing the same.
    pub macro_average: Scores,
    /// Mean over the classes weighted by support.
    pub weighted_average: Scores,
}

/// One class of a [`ClassificationReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub name: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

impl ClassificationReport {
    /// The report of `confusion`, with one name per class. The micro average is left out: it equals the accuracy.
    ///
    /// # Panics
    /// If there are not as many names as classes.
    pub fn new<S: AsRef<str>>(confusion: &Confusion, names: &[S]) -> Self {
        let (n_names, n_classes) = (names.len(), confusion.n_classes());
        assert_eq!(n_names, n_classes, "{n_names} names for {n_classes} classes");
        let named = |(name, scores): (&S, Scores)| ClassScores { name: name.as_ref().to_owned(), scores };
        Self {
            n_items: confusion.n_items(),
            accuracy: confusion.accuracy(),
            classes: names.iter().zip(confusion.per_class()).map(named).collect(),
            macro_average: confusion.macro_average(),
            weighted_average: confusion.weighted_average(),
        }
    }
}

impl fmt::Display for ClassificationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let averages = [("macro average", &self.macro_average), ("weighted average", &self.weighted_average)];
        let rows = || self.classes.iter().map(|class| (class.name.as_str(), &class.scores)).chain(averages);
        let width = rows().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        writeln!(f, "{:width$}  precision  recall      f1  support", "")?;
        for (name, Scores { precision, recall, f1, support }) in rows() {
            writeln!(f, "{name:width$}  {precision:9.4}  {recall:6.4}  {f1:6.4}  {support:7}")?;
        }
        write!(f, "{:width$}  {:9}  {:6}  {:6.4}  {:7}", "accuracy", "", "", self.accuracy, self.n_items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDS: [usize; 8] = [0, 0, 0, 1, 1, 2, 2, 2];
    const PREDICTIONS: [usize; 8] = [0, 1, 0, 1, 1, 0, 2, 1];

    #[test]
    fn the_order_of_the_items_changes_nothing() {
        let confusion = Confusion::new(&PREDICTIONS, &GOLDS, 3);
        for shift in 1..GOLDS.len() {
            let (mut predictions, mut golds) = (PREDICTIONS, GOLDS);
            predictions.rotate_left(shift);
            golds.rotate_left(shift);
            assert_eq!(Confusion::new(&predictions, &golds, 3), confusion);
        }
    }

    #[test]
    fn perfect_predictions_score_one() {
        let confusion = Confusion::new(&GOLDS, &GOLDS, 3);
        assert_eq!(confusion.accuracy(), 1.0);
        let averages = [confusion.micro_average(), confusion.macro_average(), confusion.weighted_average()];
        for Scores { precision, recall, f1, .. } in confusion.per_class().into_iter().chain(averages) {
            assert_eq!((precision, recall, f1), (1.0, 1.0, 1.0));
        }
    }

    #[test]
    fn swapping_predictions_and_golds_swaps_precision_and_recall() {
        let (one, other) = (Confusion::new(&PREDICTIONS, &GOLDS, 3), Confusion::new(&GOLDS, &PREDICTIONS, 3));
        for (a, b) in one.per_class().iter().zip(other.per_class()) {
            assert_eq!((a.precision, a.recall, a.f1), (b.recall, b.precision, b.f1));
        }
    }

    #[test]
    fn nothing_divided_by_nothing_is_zero() {
        let empty = Confusion::new(&[], &[], 2);
        assert_eq!(empty.accuracy(), 0.0);
        let zero = Scores { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 };
        assert_eq!([empty.class(0), empty.micro_average(), empty.macro_average(), empty.weighted_average()], [zero; 4]);
    }

    #[test]
    fn the_table_is_aligned_and_the_report_survives_json() {
        let report = ClassificationReport::new(&Confusion::new(&PREDICTIONS, &GOLDS, 3), &["bad", "mixed", "good"]);
        let table = "                  precision  recall      f1  support
bad                  0.6667  0.6667  0.6667        3
mixed                0.5000  1.0000  0.6667        2
good                 1.0000  0.3333  0.5000        3
macro average        0.7222  0.6667  0.6111        8
weighted average     0.7500  0.6250  0.6042        8
accuracy                             0.6250        8";
        assert_eq!(report.to_string(), table);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ClassificationReport>(&json).unwrap(), report);
    }

    #[test]
    #[should_panic(expected = "2 predictions for 3 gold labels")]
    fn lengths_that_differ_panic_with_both() {
        Confusion::new(&[0, 1], &[0, 1, 1], 2);
    }
}
