//! How well scores tell positives from negatives at every threshold, over pairs of `(score, is_positive)`.
//!
//! Every function here is a statistic for [`Bootstrap`](crate::bootstrap::Bootstrap).

use crate::ranks::ranks;

/// Area under the ROC curve: the chance that a positive scores higher than a negative, a tie counting one half. NaN without
/// positives, without negatives, or with a score that is NaN.
///
/// ```text
/// auc = (Σ_positives rank - n₊(n₊ + 1)/2) / (n₊·n₋)
/// ```
///
/// with ranks ascending from 1, tied scores sharing the mean of theirs.
///
/// Source: Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve" (1982);
/// the sum of ranks is Mann and Whitney's U (1947).
pub fn roc_auc(pairs: &[(f64, bool)]) -> f64 {
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
    let Some(ranks) = ranks(&scores) else { return f64::NAN };
    let n_positive = n_positive(pairs);
    let rank_sum: f64 = ranks.iter().zip(pairs).filter(|(_, pair)| pair.1).map(|(rank, _)| rank).sum();
    (rank_sum - n_positive * (n_positive + 1.0) / 2.0) / (n_positive * (pairs.len() as f64 - n_positive))
}

/// Average precision: the area under the precision-recall curve as a sum of steps, one per distinct score. NaN without
/// positives (scikit-learn says 0) or with a score that is NaN.
///
/// ```text
/// ap = Σ_t (recall_t - recall_{t-1})·precision_t
/// ```
///
/// over the thresholds `t` from the highest score down. Unlike trapezoids, steps do not flatter: no threshold reaches a point
/// between two of them.
///
/// Source: Zhu, "Recall, Precision and Average Precision" (2004).
pub fn average_precision(pairs: &[(f64, bool)]) -> f64 {
    if pairs.iter().any(|pair| pair.0.is_nan()) {
        return f64::NAN;
    }
    let mut descending = pairs.to_vec();
    descending.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut n_above, mut n_found, mut sum) = (0.0, 0.0, 0.0);
    for tied in descending.chunk_by(|a, b| a.0 == b.0) {
        let found_here = n_positive(tied);
        n_above += tied.len() as f64;
        n_found += found_here;
        sum += found_here * n_found / n_above;
    }
    sum / n_found
}

fn n_positive(pairs: &[(f64, bool)]) -> f64 {
    pairs.iter().filter(|pair| pair.1).count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::draw;

    /// Descending: +, -, {+, -} tied, -.
    const PAIRS: [(f64, bool); 5] = [(0.4, true), (0.9, true), (0.1, false), (0.4, false), (0.7, false)];

    #[test]
    fn by_hand() {
        // Of 2·3 comparisons the positive at 0.9 wins three, the one at 0.4 wins one, ties one and loses one.
        assert_eq!(roc_auc(&PAIRS), 4.5 / 6.0);
        // Recall 1/2 at precision 1, the rest at precision 2/4.
        assert_eq!(average_precision(&PAIRS), 0.5 * 1.0 + 0.5 * 0.5);
    }

    #[test]
    fn order_and_rising_maps_change_nothing_and_negation_mirrors() {
        let of = |map: fn(f64) -> f64| -> Vec<(f64, bool)> {
            (0..90).map(|i| (map(draw(4, i, 30) as f64 / 10.0), draw(5, i, 30) + draw(4, i, 30) > 30)).collect()
        };
        let pairs = of(|x| x);
        let mut risen = of(f64::exp);
        risen.reverse();
        assert_eq!((roc_auc(&pairs), average_precision(&pairs)), (roc_auc(&risen), average_precision(&risen)));
        assert!((roc_auc(&pairs) + roc_auc(&of(|x| -x)) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn limits() {
        let perfect: Vec<(f64, bool)> = (0..10).map(|i| (f64::from(i), i >= 6)).collect();
        assert_eq!((roc_auc(&perfect), average_precision(&perfect)), (1.0, 1.0));
        // One score for all says nothing: one half, and the share of the positives.
        let blind: Vec<(f64, bool)> = (0..10).map(|i| (0.5, i >= 6)).collect();
        assert_eq!((roc_auc(&blind), average_precision(&blind)), (0.5, 0.4));
    }

    #[test]
    fn undefined_without_both_kinds_or_with_nan() {
        let (positive, negative, nan) = ([(0.1, true)], [(0.1, false)], [(0.1, true), (f64::NAN, false)]);
        for pairs in [&[][..], &positive, &negative, &nan] {
            assert!(roc_auc(pairs).is_nan(), "{pairs:?}");
        }
        assert_eq!(average_precision(&positive), 1.0);
        assert!(average_precision(&negative).is_nan() && average_precision(&nan).is_nan());
    }
}
