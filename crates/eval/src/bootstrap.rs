//! Percentile bootstrap: how far a score could have come out otherwise.

use serde::{Deserialize, Serialize};

use crate::perplexity::Perplexity;

/// The middle 95 % of what a score came out as over the resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The 2.5 % quantile.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the interval, its ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// The percentile bootstrap: draw as many items as there are, with replacement, score them, and again; the quantiles of the
/// scores are the interval. The same items, seed and number of resamples give the same interval.
///
/// An item is what was drawn when the data were collected, and what a metric of this crate takes a slice of: a row, a
/// sentence, a query, a pair. The metric itself is the statistic, so a score of the whole (BLEU, F1, a correlation) is
/// computed anew from each resample rather than averaged over items.
///
/// A metric is NaN where it is undefined, such as the area under a curve of a resample without positives. Such resamples are
/// left out; where none is left, so are the ends of the interval.
///
/// Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979), section 2; the percentile interval is section
/// 13.3 of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993).
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    /// How often the items are drawn anew.
    pub n_resamples: usize,
    /// Chooses the draws.
    pub seed: u64,
}

impl Bootstrap {
    /// 1000 resamples.
    pub fn new(seed: u64) -> Self {
        Self { n_resamples: 1000, seed }
    }

    /// The interval of `statistic` over `items`, one per example: a score, or whatever the statistic needs of it.
    ///
    /// # Panics
    /// If there are no items or no resamples.
    pub fn interval<T: Copy>(&self, items: &[T], statistic: impl Fn(&[T]) -> f64) -> Interval {
        let mut drawn = Vec::with_capacity(items.len());
        self.percentiles(&[items.len()], |picks| {
            drawn.clear();
            drawn.extend(picks.iter().map(|&i| items[i]));
            statistic(&drawn)
        })
    }

    /// The interval of `statistic(after) - statistic(before)`, where `before[i]` and `after[i]` are of the same example. Each
    /// resample draws the same examples on both sides, so what makes an example hard cancels out. The change is beyond chance
    /// where the interval leaves out 0.
    ///
    /// # Panics
    /// If the lengths differ, or there are no items or no resamples.
    pub fn paired_difference<T: Copy>(&self, before: &[T], after: &[T], statistic: impl Fn(&[T]) -> f64) -> Interval {
        let (n_before, n_after) = (before.len(), after.len());
        assert_eq!(n_before, n_after, "{n_before} items before, {n_after} after");
        let mut drawn = Vec::with_capacity(n_before);
        self.percentiles(&[n_before], |picks| {
            let mut of = |items: &[T]| {
                drawn.clear();
                drawn.extend(picks.iter().map(|&i| items[i]));
                statistic(&drawn)
            };
            of(after) - of(before)
        })
    }

    /// The quantiles of what `score` makes of draws from sets of these sizes, one set after the other, each drawn from by itself.
    pub(crate) fn percentiles(&self, sizes: &[usize], mut score: impl FnMut(&[usize]) -> f64) -> Interval {
        let Self { n_resamples, seed } = *self;
        assert!(!sizes.is_empty() && !sizes.contains(&0) && n_resamples > 0, "{sizes:?} items, {n_resamples} resamples: all at least 1");
        let n_items: usize = sizes.iter().sum();
        let mut picks = vec![0; n_items];
        let scores = (0..n_resamples).map(|resample| {
            let size_of_each = sizes.iter().flat_map(|&size| std::iter::repeat_n(size, size));
            for (position, (pick, size)) in picks.iter_mut().zip(size_of_each).enumerate() {
                *pick = draw(seed, (resample * n_items + position) as u64, size);
            }
            score(&picks)
        });
        let mut scores: Vec<f64> = scores.filter(|score| !score.is_nan()).collect();
        scores.sort_by(f64::total_cmp);
        Interval { low: quantile(&scores, 0.025), high: quantile(&scores, 0.975) }
    }
}

/// The mean of the scores: the statistic of whatever is scored item by item, such as an accuracy, a mean reward or the nDCG of
/// queries.
pub fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// The perplexity of rows of `(sum_nll, n_tokens)`, as a statistic: rows are drawn, tokens are counted, so that a long row weighs more, as it
/// does in [`Perplexity`].
pub fn perplexity(rows: &[(f64, u64)]) -> f64 {
    rows.iter().copied().collect::<Perplexity>().value()
}

/// The quantile of ascending values, linear between neighbours (NumPy's default); NaN without values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    // Equal neighbours may be infinite, as a perplexity can be.
    if below == above { below } else { below + (above - below) * position.fract() }
}

/// Draw number `counter` of `seed`: an index below `n_items`.
pub(crate) fn draw(seed: u64, counter: u64, n_items: usize) -> usize {
    // The seed is mixed before the counter is added: neighbouring seeds must not give the same draws one place further on.
    let bits = mix(mix(seed).wrapping_add(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    ((u128::from(bits) * n_items as u128) >> 64) as usize
}

/// The indices `0..n_items` in an order of its own for each `round` of `seed`: Fisher and Yates's shuffle.
pub(crate) fn permutation(seed: u64, round: u64, n_items: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n_items).collect();
    // Not the draws of the resamples of the same seed.
    (1..n_items).rev().for_each(|last| order.swap(last, draw(!seed, round * n_items as u64 + last as u64, last + 1)));
    order
}

/// The output function of splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` coin flips, heads with probability `p`.
    fn flips(seed: u64, n: usize, p: f64) -> Vec<f64> {
        (0..n).map(|i| f64::from(draw(seed, i as u64, 1_000_000) < (p * 1e6) as usize)).collect()
    }

    #[test]
    fn covers_the_truth_about_95_percent_of_the_time() {
        let n_trials = 600;
        let covered = (0..n_trials)
            .filter(|&trial| {
                let scores = flips(1_000_000 + trial, 120, 0.7);
                Bootstrap { n_resamples: 400, seed: trial }.interval(&scores, mean).contains(0.7)
            })
            .count();
        let share = covered as f64 / n_trials as f64;
        assert!((0.92..=0.975).contains(&share), "covered in {share} of the trials");
    }

    #[test]
    fn a_correlation_and_a_difference_are_covered_too() {
        // y = x / 2 + noise / 2 of the same variance: the correlation is 1 / √2. Noise from twelve uniform draws.
        let normal = |seed, i: u64| (0..12).map(|part| draw(seed, 12 * i + part, 1 << 30) as f64 / f64::from(1 << 30)).sum::<f64>() - 6.0;
        let n_trials = 200;
        let (mut correlation_covered, mut difference_covered) = (0, 0);
        for trial in 0..n_trials {
            let of = |stream: u64, i| normal(1_000 * (trial + 1) + stream, i);
            let pairs: Vec<(f64, f64)> = (0..80).map(|i| (of(0, i), (of(0, i) + of(1, i)) / 2.0)).collect();
            let bootstrap = Bootstrap { n_resamples: 300, seed: trial };
            correlation_covered += u32::from(bootstrap.interval(&pairs, crate::regression::pearson).contains(0.5f64.sqrt()));
            // Two systems on the same items, the second better by 0.3 on average.
            let before: Vec<f64> = (0..80).map(|i| of(0, i)).collect();
            let after: Vec<f64> = (0..80).map(|i| of(0, i) + 0.3 + 0.5 * of(2, i)).collect();
            difference_covered += u32::from(bootstrap.paired_difference(&before, &after, mean).contains(0.3));
        }
        for covered in [correlation_covered, difference_covered] {
            let share = f64::from(covered) / n_trials as f64;
            assert!((0.90..=0.99).contains(&share), "covered in {share} of the trials");
        }
    }

    #[test]
    fn resamples_without_a_score_are_left_out() {
        // Half of all resamples of two items draw one item twice.
        let spread = |items: &[f64]| if items[0] == items[1] { f64::NAN } else { 2.0 };
        assert_eq!(Bootstrap::new(5).interval(&[1.0, 3.0], spread), Interval { low: 2.0, high: 2.0 });
        let none = Bootstrap::new(5).interval(&[1.0, 3.0], |_| f64::NAN);
        assert!(none.low.is_nan() && none.high.is_nan());
        let infinite = Bootstrap::new(5).interval(&[1.0, 3.0], |_| f64::INFINITY);
        assert_eq!(infinite, Interval { low: f64::INFINITY, high: f64::INFINITY });
    }

    #[test]
    fn width_follows_the_standard_error() {
        let scores = flips(5, 400, 0.5);
        let p = mean(&scores);
        let normal_width = 2.0 * 1.96 * (p * (1.0 - p) / 400.0).sqrt();
        let Interval { low, high } = Bootstrap::new(3).interval(&scores, mean);
        assert!(((high - low) / normal_width - 1.0).abs() < 0.1, "{} against {normal_width}", high - low);
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let scores = flips(5, 50, 0.4);
        let at = |seed| Bootstrap::new(seed).interval(&scores, |s| s.iter().map(|x| (x - 0.3).powi(3)).sum());
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn every_order_comes_as_often() {
        let mut times = std::collections::BTreeMap::new();
        (0..6000).for_each(|round| *times.entry(permutation(3, round, 3)).or_insert(0) += 1);
        assert!(times.len() == 6 && times.values().all(|&n| (880..1120).contains(&n)), "{times:?}");
        assert!(permutation(3, 0, 0).is_empty());
    }

    #[test]
    fn draws_of_neighbouring_seeds_do_not_overlap() {
        let draws = |seed| (0..200).map(move |i| draw(seed, i, 1 << 40)).collect::<std::collections::BTreeSet<_>>();
        assert!(draws(8).is_disjoint(&draws(9)));
    }

    #[test]
    fn pairing_cancels_what_the_items_share() {
        // Hard and easy items, all better by a quarter: exactly the quarter is left, with no width.
        let before = [0.0, 8.0, 2.5, 16.0, 4.0];
        let after = before.map(|score| score + 0.25);
        let gain = Bootstrap::new(11).paired_difference(&before, &after, |s| s.iter().sum::<f64>() / 5.0);
        assert!((gain.low - 0.25).abs() < 1e-12 && (gain.high - 0.25).abs() < 1e-12, "{gain:?}");
        let none = Bootstrap::new(11).paired_difference(&before, &before, mean);
        assert_eq!(none, Interval { low: 0.0, high: 0.0 });
    }

    #[test]
    fn perplexity_weighs_rows_by_their_tokens() {
        // Every token at the same loss: whatever is drawn, the perplexity is the same, however long the rows.
        let rows = [(2.0, 4), (0.5, 1), (10.0, 20)];
        assert_eq!(Bootstrap::new(1).interval(&rows, perplexity), Interval { low: 0.5f64.exp(), high: 0.5f64.exp() });
        let mixed = [(2.0, 4), (3.0, 1), (10.0, 20), (6.0, 5)];
        assert!(Bootstrap::new(1).interval(&mixed, perplexity).contains(perplexity(&mixed)));
    }

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!([0.0, 0.25, 0.375, 1.0].map(|share| quantile(&sorted, share)), [1.0, 2.0, 3.0, 16.0]);
    }

    #[test]
    #[should_panic(expected = "3 items before, 2 after")]
    fn unpaired_items_panic_with_both_lengths() {
        Bootstrap::new(0).paired_difference(&[1.0, 2.0, 3.0], &[1.0, 2.0], mean);
    }
}
