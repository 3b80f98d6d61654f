//! Figures with their uncertainty, and how far two of them lie apart on the same items.

use crate::bootstrap::{Bootstrap, Interval};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// A figure of a model with its uncertainty. It keeps what it was computed from, so that it can be compared with that of another model.
///
/// ```
/// use kiln_eval::bootstrap::mean;
/// use kiln_eval::figure::Figure;
///
/// // Which of the same eight rows two models put into the right class.
/// let before = Figure::new("accuracy", vec![1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0], mean, 7);
/// let after = Figure::new("accuracy", vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0], mean, 7);
/// let gain = after.minus(&before);
/// assert_eq!(gain.value, 0.375);
/// assert!(gain.interval.contains(0.375));
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name.
    pub metric: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The figure.
    pub value: f64,
    /// Its 95 % bootstrap interval over the items.
    pub interval: Interval,
    #[serde(skip)]
    sample: Sample,
}

/// What a figure was computed from.
#[derive(Clone)]
struct Sample {
    /// Items of each set that is drawn from by itself.
    sizes: Vec<usize>,
    seed: u64,
    /// The figure of the items at these places, set by set.
    score: Arc<Score>,
}

type Score = dyn Fn(&[usize]) -> f64 + Send + Sync;

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        write!(f, "{} items", sizes.join(" + "))
    }
}

/// By how much a figure of one model is larger than that of another, on the same items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The figure's name.
    pub metric: &'static str,
    /// The one less the other.
    pub value: f64,
    /// The 95 % paired bootstrap interval over the items: a difference is beyond chance where it leaves out 0.
    pub interval: Interval,
}

impl Figure {
    /// The `statistic` of `items`, of which more is better. `seed` draws the resamples of the interval.
    ///
    /// # Panics
    /// If there are no items.
    pub fn new<T: Copy + Send + Sync + 'static>(
        metric: &'static str,
        items: Vec<T>,
        statistic: impl Fn(&[T]) -> f64 + Send + Sync + 'static,
        seed: u64,
    ) -> Self {
        let n_items = items.len();
        let score = move |places: &[usize]| statistic(&places.iter().map(|&place| items[place]).collect::<Vec<_>>());
        Self::of_places(metric, n_items, score, seed)
    }

    /// The same for items that are no plain values: `score` is the figure of those at the places it is given.
    ///
    /// # Panics
    /// If there are no items.
    pub fn of_places(metric: &'static str, n_items: usize, score: impl Fn(&[usize]) -> f64 + Send + Sync + 'static, seed: u64) -> Self {
        Self::of_strata(metric, vec![n_items], score, seed)
    }

    /// The same over several sets of items, such as the held-out rows of several domains, of which each is drawn from by itself, so that the
    /// sets keep their sizes. `score` is given places in the first set, then places in the second, and so on.
    ///
    /// # Panics
    /// If there is no set, or a set is empty.
    pub fn of_strata(metric: &'static str, sizes: Vec<usize>, score: impl Fn(&[usize]) -> f64 + Send + Sync + 'static, seed: u64) -> Self {
        let value = score(&sizes.iter().flat_map(|&size| 0..size).collect::<Vec<_>>());
        let interval = Bootstrap::new(seed).percentiles(&sizes, &score);
        Self { metric, higher_is_better: true, value, interval, sample: Sample { sizes, seed, score: Arc::new(score) } }
    }

    /// The same figure, of which less is better.
    pub fn lower_is_better(self) -> Self {
        Self { higher_is_better: false, ..self }
    }

    /// By how much this figure is larger than `other`, which is of the same items.
    ///
    /// # Panics
    /// If the figures have other names or numbers of items.
    pub fn minus(&self, other: &Self) -> Difference {
        let what = |figure: &Self| format!("{} of {:?}", figure.metric, figure.sample);
        assert_eq!(what(self), what(other), "figures of other items cannot be compared");
        let [one, less] = [self, other].map(|figure| &figure.sample.score);
        let interval = Bootstrap::new(self.sample.seed).percentiles(&self.sample.sizes, |places| one(places) - less(places));
        Difference { metric: self.metric, value: self.value - other.value, interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{draw, mean};
    use crate::regression::spearman;

    fn pairs(seed: u64, noise: f64) -> Vec<(f64, f64)> {
        let uniform = |stream: u64, i| draw(seed + stream, i, 1000) as f64 / 1000.0;
        (0..80).map(|i| (uniform(0, i) + noise * uniform(1, i), uniform(0, i))).collect()
    }

    #[test]
    fn a_figure_is_its_statistic_with_its_interval() {
        let pairs = pairs(3, 0.5);
        let figure = Figure::new("spearman", pairs.clone(), spearman, 7);
        assert_eq!(figure.value, spearman(&pairs));
        assert_eq!(figure.interval, Bootstrap::new(7).interval(&pairs, spearman));
        assert!(figure.higher_is_better && !figure.lower_is_better().higher_is_better);
    }

    #[test]
    fn a_difference_is_paired() {
        let (before, after) = (pairs(3, 2.0), pairs(3, 0.2));
        let [figure_before, figure_after] = [&before, &after].map(|pairs| Figure::new("spearman", pairs.clone(), spearman, 7));
        let gain = figure_after.minus(&figure_before);
        assert_eq!(gain.value, spearman(&after) - spearman(&before));
        assert_eq!(gain.interval, Bootstrap::new(7).paired_difference(&before, &after, spearman));
        assert!(gain.interval.low > 0.0, "{gain:?}");
        let none = figure_after.minus(&figure_after);
        assert_eq!((none.value, none.interval), (0.0, Interval { low: 0.0, high: 0.0 }));
        let loss = figure_before.minus(&figure_after);
        assert!((loss.interval.low + gain.interval.high).abs() < 1e-12 && (loss.interval.high + gain.interval.low).abs() < 1e-12);
    }

    #[test]
    fn sets_are_drawn_from_each_by_itself() {
        // One set has no spread: what is left is the other's, whatever their sizes.
        let flips: Vec<f64> = (0..300).map(|i| f64::from(draw(5, i, 1000) < 400)).collect();
        let alone = Figure::new("mean", flips.clone(), mean, 1);
        let of_first = |sizes: Vec<usize>, shift: f64| {
            let flips = flips.clone();
            let score = move |places: &[usize]| {
                assert!(places[flips.len()..].iter().all(|&place| place < 7), "places in the second set");
                mean(&places[..flips.len()].iter().map(|&place| flips[place]).collect::<Vec<_>>()) + shift
            };
            Figure::of_strata("mean", sizes, score, 1)
        };
        let both = of_first(vec![300, 7], 0.0);
        assert_eq!(both.value, alone.value);
        assert!(
            (both.interval.low - alone.interval.low).abs() < 0.02 && (both.interval.high - alone.interval.high).abs() < 0.02,
            "{both:?}"
        );
        assert_eq!(of_first(vec![300], 0.0).interval, alone.interval, "one set is the plain bootstrap");
        let shifted = of_first(vec![300, 7], 0.25).minus(&both);
        assert!([shifted.value, shifted.interval.low, shifted.interval.high].iter().all(|gain| (gain - 0.25).abs() < 1e-12), "{shifted:?}");
    }

    #[test]
    #[should_panic(expected = "accuracy of 2 items")]
    fn figures_of_other_items_panic() {
        let figure = |items: &[f64]| Figure::new("accuracy", items.to_vec(), mean, 0);
        figure(&[1.0, 0.0]).minus(&figure(&[1.0]));
    }
}
