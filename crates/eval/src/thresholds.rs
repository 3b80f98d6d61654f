//! A threshold of its own for each group, so that a classifier of two classes treats groups alike.
//!
//! A row is taken for positive if its score reaches the threshold of its group. For a rate r, each group gets the threshold that brings its own
//! rate nearest to r, of several the one with the most rows right; of all r that of the most rows right in total is taken:
//!
//! ```text
//! t_g(r) = argmin_t |rate_g(t) - r|        r* = argmax_r Σ_g right_g(t_g(r)),  r = 0, 1/1000, .., 1
//! ```
//!
//! rate: the share predicted positive, of all rows (demographic parity) or of the positive ones (equal opportunity).
//! Source: Hardt, Price and Srebro, arXiv:1610.02413, Section 3.2.  Differs from the source: no threshold is drawn at random between two, so that
//! the same text gets the same answer, and rates are equal to within half the weight of a row.

use crate::fairness::Criterion;

/// A row as thresholds see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The group, counted from 0.
    pub group: usize,
    /// Whether the right class is the positive one.
    pub label: bool,
    /// The probability of the positive class.
    pub score: f64,
}

/// Steps of the rate that is tried.
const N_RATES: usize = 1000;

/// The threshold of each group that makes groups alike by `criterion`, demographic parity or equal opportunity, and of those the one with the
/// most rows right. A group without rows has ½; one without a rate, such as the true positive rate of a group without positive rows, the
/// threshold with most of its rows right.
///
/// ```
/// use kiln_eval::fairness::Criterion;
/// use kiln_eval::thresholds::{Scored, choose};
///
/// // The scores of group 1 are as good as those of group 0, but all lower by 0.4.
/// let row = |group, label, score| Scored { group, label, score };
/// let rows = [row(0, true, 0.9), row(0, true, 0.7), row(0, false, 0.5), row(0, false, 0.4), row(1, true, 0.5), row(1, true, 0.3), row(1, false, 0.1)];
/// assert_eq!(choose(&rows, 2, Criterion::EqualOpportunity), [0.6, 0.2]);
/// ```
///
/// # Panics
/// If the criterion is another one, or a group is not below `n_groups`.
pub fn choose(rows: &[Scored], n_groups: usize, criterion: Criterion) -> Vec<f64> {
    assert!(matches!(criterion, Criterion::DemographicParity | Criterion::EqualOpportunity), "thresholds for {}", criterion.name());
    let mut of_groups = vec![Vec::new(); n_groups];
    rows.iter().for_each(|row| of_groups[row.group].push(*row));
    let cuts: Vec<Vec<Cut>> = of_groups.into_iter().map(|rows| cuts(rows, criterion)).collect();
    let at = |rate: f64| -> Vec<Cut> { cuts.iter().map(|cuts| nearest(cuts, rate)).collect() };
    let right = |chosen: &[Cut]| chosen.iter().map(|cut| cut.right).sum::<usize>();
    let mut best = at(0.0);
    for step in 1..=N_RATES {
        let other = at(step as f64 / N_RATES as f64);
        if right(&other) > right(&best) {
            best = other;
        }
    }
    best.into_iter().map(|cut| cut.threshold).collect()
}

/// What a threshold does to a group.
#[derive(Clone, Copy, Debug)]
struct Cut {
    threshold: f64,
    /// NaN of no rows.
    rate: f64,
    /// Rows predicted right.
    right: usize,
}

/// Every threshold that makes a difference, the highest first.
fn cuts(mut rows: Vec<Scored>, criterion: Criterion) -> Vec<Cut> {
    rows.sort_by(|a, b| b.score.total_cmp(&a.score));
    let n_positive = rows.iter().filter(|row| row.label).count();
    let (mut n_selected, mut n_true) = (0, 0);
    let mut cuts = Vec::with_capacity(rows.len() + 1);
    loop {
        let (above, below) = (rows[..n_selected].last().map(|row| row.score), rows.get(n_selected).map(|row| row.score));
        let threshold = match (above, below) {
            (None, None) => 0.5,
            // Above all scores, also above 1.
            (None, Some(below)) if below >= 1.0 => below.next_up(),
            (None, Some(below)) => 0.5 * (below + 1.0),
            (Some(above), Some(below)) => 0.5 * (above + below),
            (Some(_), None) => 0.0,
        };
        let (part, whole) = match criterion {
            Criterion::DemographicParity => (n_selected, rows.len()),
            _ => (n_true, n_positive),
        };
        let n_false = n_selected - n_true;
        cuts.push(Cut { threshold, rate: part as f64 / whole as f64, right: n_true + (rows.len() - n_positive) - n_false });
        let Some(next) = below else { return cuts };
        // Rows of one score are selected together.
        for row in rows[n_selected..].iter().take_while(|row| row.score == next) {
            n_selected += 1;
            n_true += usize::from(row.label);
        }
    }
}

/// The cut whose rate is nearest, of two such rates the lower one; of several cuts of a rate the one with most rows right, of these the highest
/// threshold.
fn nearest(cuts: &[Cut], rate: f64) -> Cut {
    let distance = |cut: &Cut| if cut.rate.is_nan() { 0.0 } else { (cut.rate - rate).abs() };
    let better = |best: Cut, cut: &Cut| match distance(cut).total_cmp(&distance(&best)) {
        std::cmp::Ordering::Less => *cut,
        std::cmp::Ordering::Equal if cut.right > best.right && (cut.rate == best.rate || cut.rate.is_nan()) => *cut,
        _ => best,
    };
    cuts[1..].iter().fold(cuts[0], better)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::draw;
    use crate::fairness::{Counts, Outcome};

    fn row(group: usize, label: bool, score: f64) -> Scored {
        Scored { group, label, score }
    }

    fn counts(rows: &[Scored], thresholds: &[f64]) -> Vec<Counts> {
        let outcome = |row: &Scored| Outcome { group: row.group, label: row.label, prediction: row.score >= thresholds[row.group] };
        Counts::by_group(&rows.iter().map(outcome).collect::<Vec<_>>(), thresholds.len())
    }

    /// Group 0 has 3 positive rows of 4, group 1 has 1 of 4, and the scores are perfect. Right are 8 rows with ½, of which 3 and 1 are selected.
    /// At equal rates: with 1 of 4 each 4 - 2 and 4 are right, with 2 of 4 each 3 and 3, with 3 of 4 each 4 and 2. The first is the lowest.
    #[test]
    fn parity_of_perfect_scores_by_hand() {
        let group = |group, n_positive| {
            [0.9, 0.8, 0.7, 0.1].into_iter().enumerate().map(move |(place, score)| row(group, place < n_positive, score))
        };
        let rows: Vec<Scored> = group(0, 3).chain(group(1, 1)).collect();
        let found = choose(&rows, 2, Criterion::DemographicParity);
        let of = counts(&rows, &found);
        assert_eq!(of.iter().map(Counts::selection_rate).collect::<Vec<_>>(), [0.25, 0.25]);
        assert!((found[0] - 0.85).abs() < 1e-12 && (found[1] - 0.85).abs() < 1e-12, "{found:?}");
        // Equal opportunity asks nothing of perfect scores.
        let of = counts(&rows, &choose(&rows, 2, Criterion::EqualOpportunity));
        assert!(of.iter().all(|counts| counts.accuracy() == 1.0 && counts.true_positive_rate() == 1.0), "{of:?}");
    }

    #[test]
    fn one_group_gets_its_best_threshold_and_an_empty_one_a_half() {
        let rows = [row(1, true, 0.4), row(1, true, 0.3), row(1, false, 0.35), row(1, false, 0.1)];
        let found = choose(&rows, 2, Criterion::DemographicParity);
        assert_eq!(found[0], 0.5);
        assert_eq!(counts(&rows, &found)[1].accuracy(), 0.75);
        // Without positive rows there is no true positive rate: nobody is selected.
        let negative = [row(0, false, 1.0), row(0, false, 0.2)];
        let found = choose(&negative, 1, Criterion::EqualOpportunity);
        assert!(found[0] > 1.0 && counts(&negative, &found)[0].accuracy() == 1.0, "{found:?}");
    }

    #[test]
    fn equal_scores_are_selected_together() {
        let rows = [row(0, true, 0.5), row(0, false, 0.5), row(0, true, 0.5), row(0, false, 0.2)];
        assert_eq!(choose(&rows, 1, Criterion::DemographicParity), [0.35]);
    }

    /// Scores of 3 groups that are shifted against each other: rates become equal to within a row, whatever the draw.
    #[test]
    fn rates_become_equal() {
        let uniform = |seed: u64, index| draw(seed, index, 1 << 30) as f64 / f64::from(1 << 30);
        for seed in 0..20 {
            let rows: Vec<Scored> = (0..300)
                .map(|index| {
                    let (group, label) = ((index % 3) as usize, uniform(3 * seed, index) < 0.5);
                    row(group, label, 0.3 * uniform(3 * seed + 1, index) + 0.2 * group as f64 + if label { 0.25 } else { 0.0 })
                })
                .collect();
            for criterion in [Criterion::DemographicParity, Criterion::EqualOpportunity] {
                let before = criterion.difference(&counts(&rows, &[0.5; 3]));
                let after = criterion.difference(&counts(&rows, &choose(&rows, 3, criterion)));
                assert!(before > 0.3 && after < 0.05, "{}: {before} {after}", criterion.name());
            }
        }
    }
}
