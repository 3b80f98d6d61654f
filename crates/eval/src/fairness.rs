//! Group fairness: how a classifier's answers differ between groups of people.
//!
//! For one class, the positive one, and each group g of rows with label y and prediction ŷ:
//!
//! ```text
//! selection rate       P(ŷ = 1 | g)
//! true positive rate   P(ŷ = 1 | y = 1, g)
//! false positive rate  P(ŷ = 1 | y = 0, g)
//! ```
//!
//! and of the groups' rates the largest less the smallest (difference, 0 is fair), and the smallest over the largest (ratio, 1 is fair):
//!
//! | | of | source |
//! |---|---|---|
//! | demographic parity | selection rates | Calders and Verwer (2010) |
//! | equal opportunity | true positive rates | Hardt, Price and Srebro, arXiv:1610.02413, Definition 2.2 |
//! | equalised odds | the worse of true and false positive rates | the same, Definition 2.1 |
//!
//! These are fairlearn's formulas. One thing differs: a rate that a group has no rows for, such as the true positive rate of a group without
//! positive rows, is left out of the comparison, where fairlearn takes it to be 0. A ratio of 0 to 0 is NaN.

use crate::bootstrap::{Bootstrap, Interval, permutation};
use serde::Serialize;

/// A row as fairness sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The group, counted from 0.
    pub group: usize,
    /// Whether the right class is the positive one.
    pub label: bool,
    /// Whether the predicted class is.
    pub prediction: bool,
}

/// Counts of a group, and its rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Positive rows predicted positive.
    pub true_positives: u64,
    /// Negative rows predicted positive.
    pub false_positives: u64,
    /// Positive rows.
    pub positives: u64,
    /// Rows.
    pub rows: u64,
}

impl Counts {
    /// The counts of each of `n_groups` groups.
    ///
    /// # Panics
    /// If a group is not below `n_groups`.
    pub fn by_group(outcomes: &[Outcome], n_groups: usize) -> Vec<Self> {
        let mut counts = vec![Self::default(); n_groups];
        for outcome in outcomes {
            let of = &mut counts[outcome.group];
            of.rows += 1;
            of.positives += u64::from(outcome.label);
            of.true_positives += u64::from(outcome.label && outcome.prediction);
            of.false_positives += u64::from(!outcome.label && outcome.prediction);
        }
        counts
    }

    /// Share of the rows predicted positive.
    pub fn selection_rate(&self) -> f64 {
        share(self.true_positives + self.false_positives, self.rows)
    }

    /// Share of the positive rows predicted positive: recall.
    pub fn true_positive_rate(&self) -> f64 {
        share(self.true_positives, self.positives)
    }

    /// Share of the negative rows predicted positive.
    pub fn false_positive_rate(&self) -> f64 {
        share(self.false_positives, self.rows - self.positives)
    }

    /// Share of the rows predicted right.
    pub fn accuracy(&self) -> f64 {
        share(self.true_positives + self.rows - self.positives - self.false_positives, self.rows)
    }
}

/// NaN of nothing.
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What is compared between groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// Equal selection rates.
    DemographicParity,
    /// Equal true positive rates.
    EqualOpportunity,
    /// Equal true and equal false positive rates.
    EqualizedOdds,
    /// Equal accuracies.
    Accuracy,
}

impl Criterion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DemographicParity, Self::EqualOpportunity, Self::EqualizedOdds, Self::Accuracy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DemographicParity => "demographic_parity",
            Self::EqualOpportunity => "equal_opportunity",
            Self::EqualizedOdds => "equalized_odds",
            Self::Accuracy => "accuracy",
        }
    }

    /// The largest difference between two groups.
    pub fn difference(self, counts: &[Counts]) -> f64 {
        let of = |rate: fn(&Counts) -> f64| {
            let (low, high) = range(counts, rate);
            high - low
        };
        self.worst(of, f64::max)
    }

    /// The smallest ratio of two groups.
    pub fn ratio(self, counts: &[Counts]) -> f64 {
        let of = |rate: fn(&Counts) -> f64| {
            let (low, high) = range(counts, rate);
            low / high
        };
        self.worst(of, f64::min)
    }

    fn worst(self, of: impl Fn(fn(&Counts) -> f64) -> f64, worse: fn(f64, f64) -> f64) -> f64 {
        match self {
            Self::DemographicParity => of(Counts::selection_rate),
            Self::EqualOpportunity => of(Counts::true_positive_rate),
            Self::EqualizedOdds => worse(of(Counts::true_positive_rate), of(Counts::false_positive_rate)),
            Self::Accuracy => of(Counts::accuracy),
        }
    }
}

/// The smallest and the largest rate; NaN if no group has one.
fn range(counts: &[Counts], rate: fn(&Counts) -> f64) -> (f64, f64) {
    // `min` and `max` prefer numbers to NaN.
    counts.iter().map(rate).fold((f64::NAN, f64::NAN), |(low, high), rate| (low.min(rate), high.max(rate)))
}

/// A number and its 95 % bootstrap interval over rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

impl Estimate {
    /// The `statistic` of `items`, of which there is at least one. `seed` draws the resamples.
    pub fn new<T: Copy>(items: &[T], seed: u64, statistic: impl Fn(&[T]) -> f64) -> Self {
        Self { value: statistic(items), interval: Bootstrap::new(seed).interval(items, statistic) }
    }
}

/// The rates of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// Its rows.
    pub rows: usize,
    /// Share predicted right.
    pub accuracy: Estimate,
    /// Share predicted positive.
    pub selection_rate: Estimate,
    /// Share of the positive rows predicted positive; NaN without such rows.
    pub true_positive_rate: Estimate,
    /// Share of the other rows predicted positive; NaN without such rows.
    pub false_positive_rate: Estimate,
    /// Whether it has enough rows to be compared.
    pub compared: bool,
}

impl Group {
    /// The groups with these names, each of which has rows among `outcomes`; those of fewer than `fewest_rows` are not to be compared. `seed`
    /// draws the resamples.
    ///
    /// # Panics
    /// If a group has no row.
    pub fn all(outcomes: &[Outcome], names: &[String], fewest_rows: usize, seed: u64) -> Vec<Self> {
        let group = |(index, name): (usize, &String)| {
            let of_group: Vec<Outcome> =
                outcomes.iter().filter(|outcome| outcome.group == index).map(|row| Outcome { group: 0, ..*row }).collect();
            let of = |rate: fn(&Counts) -> f64| Estimate::new(&of_group, seed, |rows| rate(&Counts::by_group(rows, 1)[0]));
            Self {
                group: name.clone(),
                rows: of_group.len(),
                accuracy: of(Counts::accuracy),
                selection_rate: of(Counts::selection_rate),
                true_positive_rate: of(Counts::true_positive_rate),
                false_positive_rate: of(Counts::false_positive_rate),
                compared: of_group.len() >= fewest_rows,
            }
        };
        names.iter().enumerate().map(group).collect()
    }
}

/// How far groups lie apart by one criterion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// The criterion.
    pub criterion: Criterion,
    /// The largest difference between two groups.
    pub difference: Estimate,
    /// The smallest ratio of two groups.
    pub ratio: Estimate,
    /// The difference that chance alone stays below 19 times out of 20: groups that do not matter, drawn anew, lie that far apart. A maximum over
    /// groups is never 0, and grows with their number.
    pub difference_by_chance: f64,
    /// The share of such draws with a difference at least as large: the p-value of the permutation test.
    pub p: f64,
}

/// How often groups are drawn anew to learn what chance does.
const N_PERMUTATIONS: usize = 1000;

/// How far the groups lie apart, by each criterion. `seed` draws the resamples.
///
/// # Panics
/// If there is no row, or a group is not below `n_groups`.
pub fn gaps(outcomes: &[Outcome], n_groups: usize, seed: u64) -> Vec<Gap> {
    let whole = Counts::by_group(outcomes, n_groups);
    let mut drawn = outcomes.to_vec();
    let permuted: Vec<Vec<Counts>> = (0..N_PERMUTATIONS)
        .map(|draw| {
            let order = permutation(seed, draw as u64, outcomes.len());
            drawn.iter_mut().zip(order).for_each(|(row, other)| row.group = outcomes[other].group);
            Counts::by_group(&drawn, n_groups)
        })
        .collect();
    let gap = |criterion: Criterion| {
        let difference = criterion.difference(&whole);
        let mut by_chance: Vec<f64> = permuted.iter().map(|counts| criterion.difference(counts)).collect();
        by_chance.retain(|difference| difference.is_finite());
        by_chance.sort_by(f64::total_cmp);
        let as_large = by_chance.iter().filter(|other| **other >= difference - 1e-12).count();
        let of = |score: fn(Criterion, &[Counts]) -> f64| {
            Estimate::new(outcomes, seed, |rows| score(criterion, &Counts::by_group(rows, n_groups)))
        };
        Gap {
            criterion,
            difference: of(Criterion::difference),
            ratio: of(Criterion::ratio),
            difference_by_chance: by_chance.get(by_chance.len() * 95 / 100).copied().unwrap_or(f64::NAN),
            p: (1 + as_large) as f64 / (1 + by_chance.len()) as f64,
        }
    };
    Criterion::ALL.map(gap).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::draw;

    fn rows(group: usize, label: bool, prediction: bool, count: usize) -> Vec<Outcome> {
        vec![Outcome { group, label, prediction }; count]
    }

    /// Group 0: 4 of 5 positive and 1 of 5 negative rows selected; group 1: 2 of 4 and 3 of 6.
    fn two_groups() -> Vec<Outcome> {
        [
            rows(0, true, true, 4),
            rows(0, true, false, 1),
            rows(0, false, true, 1),
            rows(0, false, false, 4),
            rows(1, true, true, 2),
            rows(1, true, false, 2),
            rows(1, false, true, 3),
            rows(1, false, false, 3),
        ]
        .concat()
    }

    #[test]
    fn two_groups_by_hand() {
        let counts = Counts::by_group(&two_groups(), 2);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        // Selected: 5 of 10 and 5 of 10. Recall 0.8 and 0.5, false positives 0.2 and 0.5. Right: 8 and 5 of 10.
        close(Criterion::DemographicParity.difference(&counts), 0.0);
        close(Criterion::DemographicParity.ratio(&counts), 1.0);
        close(Criterion::EqualOpportunity.difference(&counts), 0.3);
        close(Criterion::EqualOpportunity.ratio(&counts), 0.625);
        close(Criterion::EqualizedOdds.difference(&counts), 0.3);
        close(Criterion::EqualizedOdds.ratio(&counts), 0.4);
        close(Criterion::Accuracy.difference(&counts), 0.3);
    }

    #[test]
    fn groups_without_rows_and_rates_of_nothing() {
        let outcomes = [rows(0, true, true, 3), rows(0, false, false, 1), rows(2, false, false, 2)].concat();
        let counts = Counts::by_group(&outcomes, 3);
        assert_eq!(Criterion::DemographicParity.difference(&counts), 0.75, "of groups 0 and 2");
        assert_eq!(Criterion::EqualOpportunity.difference(&counts), 0.0, "only one group has positive rows");
        assert_eq!(Criterion::EqualOpportunity.ratio(&counts), 1.0);
        let unselected = Counts::by_group(&[rows(0, false, false, 3), rows(1, true, false, 2)].concat(), 2);
        assert!(Criterion::DemographicParity.ratio(&unselected).is_nan(), "0 to 0");
    }

    #[test]
    fn the_names_of_groups_do_not_matter_and_the_seed_decides() {
        let outcomes = two_groups();
        let found = gaps(&outcomes, 2, 3);
        let swapped: Vec<Outcome> = outcomes.iter().map(|row| Outcome { group: 1 - row.group, ..*row }).collect();
        for (gap, other) in found.iter().zip(gaps(&swapped, 2, 3)) {
            assert!((gap.difference.value - other.difference.value).abs() < 1e-12 && (gap.ratio.value - other.ratio.value).abs() < 1e-12);
            assert!(gap.difference.interval.contains(gap.difference.value), "{gap:?}");
        }
        assert_eq!(found, gaps(&outcomes, 2, 3));
        assert_ne!(found, gaps(&outcomes, 2, 4));
    }

    #[test]
    fn a_real_gap_is_told_from_chance() {
        // Four groups alike, but for the draw of 100 rows each; then one selected less.
        let drawn = |p: [f64; 4]| -> Vec<Outcome> {
            let uniform = |seed, index| draw(seed, index, 1 << 30) as f64 / f64::from(1 << 30);
            let row = |index: u64| {
                let group = (index % 4) as usize;
                Outcome { group, label: uniform(6, index) < 0.5, prediction: uniform(5, index) < p[group] }
            };
            (0..400).map(row).collect()
        };
        let fair = &gaps(&drawn([0.5; 4]), 4, 1)[0];
        assert!(fair.difference.value > 0.0 && fair.p > 0.05 && fair.difference.value <= fair.difference_by_chance, "{fair:?}");
        let unfair = &gaps(&drawn([0.5, 0.5, 0.5, 0.2]), 4, 1)[0];
        assert!(unfair.p < 0.01 && unfair.difference.interval.low > fair.difference_by_chance / 2.0, "{unfair:?}");
    }
}
