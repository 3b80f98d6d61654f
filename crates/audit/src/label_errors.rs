//! Label errors by confident learning: rows whose label a classifier that has not seen them is confident is another.
//!
//! A class's threshold is how sure the classifier is of it on average, among the rows labelled so. A row counts as truly j where its probability
//! of j reaches the threshold of j; of several classes that do, the likeliest. Counted by given label i and true class j, and scaled so that
//! each label's total is its number of rows, that is the confident joint. Off its diagonal it says how many labels are wrong, and which way:
//!
//! ```text
//! threshold_j = mean of p(j | x) over rows labelled j
//! joint[i][j] ∝ number of rows labelled i with p(j | x) ≥ threshold_j, and j the likeliest of those
//! ```
//!
//! For each i and j ≠ i the `joint[i][j]` rows labelled i with the largest margin p(j | x) - p(i | x) are taken to be wrong (pruning by noise
//! rate), but for those whose label the classifier finds likeliest after all.
//!
//! Source: Northcutt, Jiang and Chuang, arXiv:1911.00068, Eq. 1 and 2, Section 3.2. Rounding, and what is done for a class that would lose all of
//! its rows, are those of cleanlab 2.9, whose `find_label_issues` this equals.

/// Probabilities of the classes for each row, and the label each row has.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Out-of-sample probabilities, `[rows, classes]` in row-major order: of each row by a classifier that was not trained on it.
    pub probabilities: &'a [f32],
    /// The label of each row, below `n_classes`.
    pub labels: &'a [usize],
    /// Number of classes.
    pub n_classes: usize,
}

/// How much below its threshold a probability still counts as there: what rounding may take away.
const ROUNDING: f64 = 1e-6;

impl<'a> Given<'a> {
    /// The probabilities of a row.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.probabilities[row * self.n_classes..][..self.n_classes]
    }

    /// The probability of a row's label: the self-confidence, by which label errors are ranked, the lowest first.
    pub fn self_confidence(&self, row: usize) -> f32 {
        self.row(row)[self.labels[row]]
    }

    /// `(p(label) - p(likeliest other class) + 1) / 2`, from 0 to 1.
    pub fn normalised_margin(&self, row: usize) -> f32 {
        (self.self_confidence(row) - self.largest_other(row) + 1.0) / 2.0
    }

    fn largest_other(&self, row: usize) -> f32 {
        let others = self.row(row).iter().enumerate().filter(|(class, _)| *class != self.labels[row]);
        others.map(|(_, &p)| p).fold(f32::NEG_INFINITY, f32::max)
    }

    fn is_other_likelier(&self, row: usize) -> bool {
        f64::from(self.largest_other(row)) > f64::from(self.self_confidence(row)) + ROUNDING
    }

    /// The likeliest class of a row, of equal ones the first.
    pub fn likeliest(&self, row: usize) -> usize {
        first_largest(self.row(row).iter().copied().enumerate()).unwrap_or(0)
    }

    /// How sure the classifier is of each class, on average over the rows labelled so; more than a probability can be, where there are none.
    pub fn thresholds(&self) -> Vec<f64> {
        let (mut sums, mut counts) = (vec![0.0; self.n_classes], vec![0_usize; self.n_classes]);
        for (row, &label) in self.labels.iter().enumerate() {
            sums[label] += f64::from(self.self_confidence(row));
            counts[label] += 1;
        }
        let mean = |(sum, count): (f64, usize)| if count == 0 { 2.0 } else { (sum / count as f64).max(2.0 * ROUNDING) };
        sums.into_iter().zip(counts).map(mean).collect()
    }

    /// The confident joint: how many rows with each given label (first index) have each true class, scaled to the number of rows of each label
    /// and rounded.
    pub fn confident_joint(&self) -> Vec<Vec<i64>> {
        let thresholds = self.thresholds();
        let mut joint = vec![vec![0.0_f64; self.n_classes]; self.n_classes];
        for (row, &label) in self.labels.iter().enumerate() {
            let reached = self.row(row).iter().copied().enumerate().filter(|&(class, p)| f64::from(p) >= thresholds[class] - ROUNDING);
            let reached: Vec<(usize, f32)> = reached.collect();
            // Of several that reach their threshold the likeliest class counts, even one that does not reach its own.
            let truth = if reached.len() > 1 { Some(self.likeliest(row)) } else { reached.first().map(|(class, _)| *class) };
            if let Some(truth) = truth {
                joint[label][truth] += 1.0;
            }
        }
        // At least one row of each class is right.
        (0..self.n_classes).for_each(|class| joint[class][class] = joint[class][class].max(1.0));
        let mut n_labelled = vec![0.0; self.n_classes];
        self.labels.iter().for_each(|&label| n_labelled[label] += 1.0);
        for (row, &n_labelled) in joint.iter_mut().zip(&n_labelled) {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|count| *count = *count / sum * n_labelled);
        }
        let total: f64 = joint.iter().flatten().sum();
        let n_rows = self.labels.len() as f64;
        joint.iter_mut().flatten().for_each(|count| *count = *count / total * n_rows);
        joint.iter().map(|row| rounded(row)).collect()
    }

    /// The rows whose label is taken to be wrong, the least self-confident first.
    pub fn errors(&self) -> Vec<usize> {
        let counts = self.prune_counts(&self.confident_joint());
        let mut is_wrong = vec![false; self.labels.len()];
        for (label, counts) in counts.iter().enumerate() {
            let labelled: Vec<usize> = (0..self.labels.len()).filter(|&row| self.labels[row] == label).collect();
            if labelled.len() <= 1 {
                continue;
            }
            for (truth, &count) in counts.iter().enumerate().filter(|&(truth, &count)| truth != label && count > 0) {
                let margin = |row: usize| self.row(row)[truth] - self.row(row)[label];
                let mut order = labelled.clone();
                order.sort_by(|&a, &b| margin(b).total_cmp(&margin(a)));
                order.truncate(count as usize);
                order.into_iter().filter(|&row| self.is_other_likelier(row)).for_each(|row| is_wrong[row] = true);
            }
        }
        let mut wrong: Vec<usize> = (0..self.labels.len()).filter(|&row| is_wrong[row]).collect();
        wrong.sort_by(|&a, &b| self.self_confidence(a).total_cmp(&self.self_confidence(b)));
        wrong
    }

    /// How many rows of each label (first index) and each true class are to be taken out: the joint, but so that each label keeps a row; what
    /// that takes is spread over the true classes.
    fn prune_counts(&self, joint: &[Vec<i64>]) -> Vec<Vec<i64>> {
        let classes = 0..self.n_classes;
        let mut counts: Vec<Vec<f64>> = joint.iter().map(|row| row.iter().map(|&count| count as f64).collect()).collect();
        for label in classes.clone() {
            let missing = (1.0 - counts[label][label]).max(0.0);
            let n_filled = counts[label].iter().filter(|count| **count != 0.0).count() as f64;
            let less = missing / (n_filled - 1.0).max(1.0);
            counts[label].iter_mut().for_each(|count| *count = (*count - less).max(0.0));
            counts[label][label] = joint[label][label].max(1) as f64;
        }
        // Rounded by true class.
        let columns: Vec<Vec<i64>> =
            classes.clone().map(|truth| rounded(&classes.clone().map(|label| counts[label][truth]).collect::<Vec<_>>())).collect();
        classes.clone().map(|label| classes.clone().map(|truth| columns[truth][label]).collect()).collect()
    }
}

/// The place of the largest value, of equal ones the first.
fn first_largest(values: impl Iterator<Item = (usize, f32)>) -> Option<usize> {
    values.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(place, _)| place)
}

/// Whole numbers near `values` with the same sum: what is missing goes to those that were rounded down most, what is too much is taken from those
/// rounded up most; half goes to even.
fn rounded(values: &[f64]) -> Vec<i64> {
    let mut whole: Vec<f64> = values.iter().map(|value| value.round_ties_even()).collect();
    let missing = values.iter().sum::<f64>().round_ties_even() - whole.iter().sum::<f64>();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| (values[a] - whole[a]).total_cmp(&(values[b] - whole[b])));
    if missing > 0.0 {
        order.reverse();
    }
    order.into_iter().take(missing.abs() as usize).for_each(|place| whole[place] += missing.signum());
    whole.into_iter().map(|value| value as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_case_by_hand() {
        // Thresholds: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.7 + 0.9 + 0.2 ) / 3 = 0.6.
        let probabilities = [0.9, 0.1, 0.8, 0.2, 0.1, 0.9, 0.3, 0.7, 0.1, 0.9, 0.8, 0.2];
        let given = Given { probabilities: &probabilities, labels: &[0, 0, 0, 1, 1, 1], n_classes: 2 };
        for threshold in given.thresholds() {
            assert!((threshold - 0.6).abs() < 1e-7);
        }
        assert_eq!(given.confident_joint(), [[2, 1], [1, 2]]);
        assert_eq!(given.errors(), [2, 5]);
        assert_eq!((given.self_confidence(5), given.likeliest(5)), (0.2, 0));
        assert!((given.normalised_margin(5) - 0.2).abs() < 1e-7);
    }

    #[test]
    fn right_labels_are_left_alone_and_a_label_that_is_likeliest_never_is_an_error() {
        let probabilities: Vec<f32> = (0..40).flat_map(|row| if row % 2 == 0 { [0.95, 0.05] } else { [0.02, 0.98] }).collect();
        let labels: Vec<usize> = (0..40).map(|row| row % 2).collect();
        assert!(Given { probabilities: &probabilities, labels: &labels, n_classes: 2 }.errors().is_empty());
        let unsure: Vec<f32> = (0..40).flat_map(|row| [0.51 + 0.01 * (row % 3) as f32, 0.49 - 0.01 * (row % 3) as f32]).collect();
        let given = Given { probabilities: &unsure, labels: &labels, n_classes: 2 };
        assert!(given.errors().iter().all(|&row| labels[row] == 1));
    }

    #[test]
    fn renaming_the_classes_and_moving_the_rows_changes_nothing_else() {
        // Fractions that no two rows share.
        let p = |row: usize, class: usize| ((row * 7 + class * 13 + 3) % 29 + 1) as f32;
        let (n_rows, n_classes) = (60, 3);
        let of = |row: usize, class: usize| p(row, class) / (0..n_classes).map(|class| p(row, class)).sum::<f32>();
        let labels: Vec<usize> = (0..n_rows).map(|row| row * row % n_classes).collect();
        let probabilities: Vec<f32> = (0..n_rows).flat_map(|row| (0..n_classes).map(move |class| of(row, class))).collect();
        let errors = Given { probabilities: &probabilities, labels: &labels, n_classes }.errors();
        assert!(!errors.is_empty());
        let mut sorted = errors.clone();
        sorted.sort_unstable();
        // Row r is now at place n-1-r, class c is now n-1-c.
        let reversed: Vec<f32> = probabilities.iter().rev().copied().collect();
        let relabelled: Vec<usize> = labels.iter().rev().map(|&label| n_classes - 1 - label).collect();
        let mut other: Vec<usize> = Given { probabilities: &reversed, labels: &relabelled, n_classes }.errors();
        other.iter_mut().for_each(|row| *row = n_rows - 1 - *row);
        other.sort_unstable();
        assert_eq!(other, sorted);
    }

    #[test]
    fn rounding_keeps_the_sum() {
        assert_eq!(rounded(&[1.4, 1.4, 1.2]), [1, 2, 1]);
        assert_eq!(rounded(&[0.6, 0.6, 0.8]), [0, 1, 1]);
        assert_eq!(rounded(&[0.5, 1.5, 2.0]), [0, 2, 2]);
    }
}
