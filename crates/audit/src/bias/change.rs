//! What training changed in how a classifier treats groups of people: the same figures of the model before and after, on the same rows.

use super::Swapped;
use crate::benchmarks::score::{Row, Score};
use kiln_eval::bootstrap::mean;
use kiln_eval::fairness::{Counts, Criterion, Outcome};

/// How far the groups of one column lie apart by each criterion; none if there are no rows to compare.
pub(super) fn of_groups(part: &str, n_groups: usize, after: &[Outcome], before: &[Outcome], seed: u64) -> Vec<Row> {
    if after.is_empty() {
        return Vec::new();
    }
    let scores = |outcomes: &[Outcome]| -> Vec<Score> {
        let score = |criterion: Criterion| {
            let difference = move |rows: &[Outcome]| criterion.difference(&Counts::by_group(rows, n_groups));
            Score::new(format!("{part}.{}", criterion.name()), Some(0.0), outcomes, difference, seed)
        };
        Criterion::ALL.map(score).into()
    };
    Row::all("", &scores(after), Some(&scores(before)))
}

/// How often answers flip, and how far they move, when words change places.
pub(super) fn of_swaps(after: &Swapped, before: &Swapped, seed: u64) -> Vec<Row> {
    let scores =
        |of: &Swapped| [("flips", &of.flips), ("shift", &of.shifts)].map(|(part, values)| Score::new(part, Some(0.0), values, mean, seed));
    Row::all("", &scores(after), Some(&scores(before)))
}
