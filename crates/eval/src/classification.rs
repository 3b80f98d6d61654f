//! Precision, recall, F1 and Matthews correlation of a single-label classifier.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scores::{ClassScores, Scores, ratio, write_table};

/// How often each class was taken for each: `counts[gold][predicted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts `predictions` against `golds`, both class indices below `n_classes`, item by item.
    ///
    /// # Panics
    /// If the lengths differ or an index is not below `n_classes`.
    pub fn new(predictions: &[usize], golds: &[usize], n_classes: usize) -> Self {
        let (n_predictions, n_golds) = (predictions.len(), golds.len());
        assert_eq!(n_predictions, n_golds, "{n_predictions} predictions for {n_golds} gold labels");
        Self::count(predictions.iter().copied().zip(golds.iter().copied()), n_classes)
    }

    /// Counts pairs `(prediction, gold)`, so that a score of the table can be a statistic of the
    /// [`Bootstrap`](crate::bootstrap::Bootstrap): `|pairs| Confusion::of_pairs(pairs, 3).macro_average().f1`.
    ///
    /// # Panics
    /// If an index is not below `n_classes`.
    pub fn of_pairs(pairs: &[(usize, usize)], n_classes: usize) -> Self {
        Self::count(pairs.iter().copied(), n_classes)
    }

    fn count(pairs: impl Iterator<Item = (usize, usize)>, n_classes: usize) -> Self {
        let mut counts = vec![vec![0; n_classes]; n_classes];
        for (predicted, gold) in pairs {
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
        Scores::macro_average(&self.per_class())
    }

    /// Mean over the classes weighted by their support.
    pub fn weighted_average(&self) -> Scores {
        Scores::weighted_average(&self.per_class())
    }

    /// Matthews correlation coefficient: 1 for perfect predictions, about 0 for guesses whatever the classes' shares, -1 at worst
    /// (and only with two classes).
    ///
    /// ```text
    /// mcc = (n·Σ_k counts[k][k] - Σ_k p_k·g_k) / √( (n² - Σ_k p_k²)·(n² - Σ_k g_k²) )
    /// ```
    ///
    /// with `p_k` items predicted and `g_k` gold of class `k`, `n` in all. 0 where all predictions or all golds are one class, as
    /// in scikit-learn.
    ///
    /// Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004), Eq. 8; for two
    /// classes it is the coefficient of Matthews (1975).
    pub fn matthews_correlation(&self) -> f64 {
        let n = self.n_items() as f64;
        let (mut found, mut both, mut predicted, mut gold) = (0.0, 0.0, 0.0, 0.0);
        for class in 0..self.n_classes() {
            let n_predicted = self.counts.iter().map(|row| row[class]).sum::<u64>() as f64;
            let n_gold = self.counts[class].iter().sum::<u64>() as f64;
            found += self.counts[class][class] as f64;
            both += n_predicted * n_gold;
            predicted += n_predicted * n_predicted;
            gold += n_gold * n_gold;
        }
        let variances = (n * n - predicted) * (n * n - gold);
        if variances == 0.0 { 0.0 } else { (n * found - both) / variances.sqrt() }
    }
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
        let width = write_table(f, &self.classes, &averages)?;
        writeln!(f)?;
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
    fn matthews_correlation_by_hand() {
        // Two classes, tp 3, fp 1, fn 2, tn 4: (3·4 - 1·2) / √(4·5·5·6) = 10 / √600.
        let pairs = [vec![(1, 1); 3], vec![(1, 0); 1], vec![(0, 1); 2], vec![(0, 0); 4]].concat();
        assert!((Confusion::of_pairs(&pairs, 2).matthews_correlation() - 10.0 / 600f64.sqrt()).abs() < 1e-15);
        // Predicted 3, 4, 1; gold 3, 2, 3; 5 of 8 right: (8·5 - (9 + 8 + 3)) / √((64 - 26)·(64 - 22)).
        let confusion = Confusion::new(&PREDICTIONS, &GOLDS, 3);
        assert!((confusion.matthews_correlation() - 20.0 / (38f64 * 42.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn matthews_correlation_has_its_limits() {
        let of = |predictions: &[usize]| Confusion::new(predictions, &GOLDS, 3).matthews_correlation();
        assert!((of(&GOLDS) - 1.0).abs() < 1e-15);
        assert_eq!(of(&[2; 8]), 0.0);
        let (golds, swapped) = ([0, 1, 1, 0, 1], [1, 0, 0, 1, 0]);
        assert!((Confusion::new(&swapped, &golds, 2).matthews_correlation() + 1.0).abs() < 1e-15);
        // The names of the classes do not matter, nor which side is gold.
        let rename = |classes: [usize; 8]| classes.map(|class| (class + 1) % 3);
        let renamed = Confusion::new(&rename(PREDICTIONS), &rename(GOLDS), 3).matthews_correlation();
        assert!((renamed - of(&PREDICTIONS)).abs() < 1e-15);
        assert_eq!(Confusion::new(&GOLDS, &PREDICTIONS, 3).matthews_correlation(), of(&PREDICTIONS));
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
