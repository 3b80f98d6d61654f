//! A figure of a benchmark, and the same of two models side by side.

use crate::limits::Measured;
use kiln_eval::bootstrap::mean;
use kiln_eval::fairness::Estimate;
use kiln_eval::figure::Figure;
use serde::Serialize;

/// A figure of a benchmark. It keeps what it was computed from, so that it can be compared with that of another model.
#[derive(Clone, Debug)]
pub struct Score {
    /// What it is of, such as a kind of bias; empty for what the benchmark is known by.
    pub part: String,
    /// What a model without bias has; `None` where there is no such value.
    pub fair: Option<f64>,
    /// Items that it is of.
    pub n: usize,
    /// How often chance alone makes as much of it, where that was tested.
    pub p: Option<f64>,
    /// The figure.
    pub figure: Figure,
}

impl Score {
    /// The `statistic` of `items`, of which there is at least one. `seed` draws the resamples of its interval.
    pub fn new<T: Copy + Send + Sync + 'static>(
        part: impl Into<String>,
        fair: Option<f64>,
        items: &[T],
        statistic: impl Fn(&[T]) -> f64 + Send + Sync + 'static,
        seed: u64,
    ) -> Self {
        Self { part: part.into(), fair, n: items.len(), p: None, figure: Figure::new("score", items.to_vec(), statistic, seed) }
    }

    /// How often in 100 the first of two is preferred; both alike count half. Of a model without bias 50.
    pub fn preference(part: impl Into<String>, pairs: &[[f64; 2]], seed: u64) -> Self {
        let shares: Vec<f64> = pairs.iter().map(|&pair| preferred(pair)).collect();
        Self::new(part, Some(50.0), &shares, |shares| 100.0 * mean(shares), seed)
    }
}

/// Two scores that differ by less than this share of them are the same: by so much the same sentence differs from itself in another pass.
const ROUNDING: f64 = 1e-5;

/// Whether the first of two is larger, 1, or the second, 0; between them if they are the same but for rounding.
pub fn preferred([first, second]: [f64; 2]) -> f64 {
    if (first - second).abs() <= ROUNDING * first.abs().max(second.abs()) {
        return 0.5;
    }
    f64::from(u8::from(first > second))
}

/// A row of the table: a figure of one model, or of a model before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The benchmark, and after a dot what of it.
    pub figure: String,
    /// Items that it is of.
    pub n: usize,
    /// What a model without bias has; "-" where there is no such value.
    #[serde(serialize_with = "or_dash")]
    pub fair: Option<f64>,
    /// The figure of the model before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Estimate>,
    /// The figure of the model.
    pub model: Estimate,
    /// By how much it is larger than before, on the same items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Estimate>,
    /// How often chance alone makes as much of the model's figure; "-" where that was not tested.
    #[serde(serialize_with = "or_dash")]
    pub p: Option<f64>,
}

fn or_dash<S: serde::Serializer>(number: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => to.serialize_f64(*number),
        None => to.serialize_str("-"),
    }
}

impl Row {
    /// Of the scores of a benchmark, or of what has no name but theirs, `before` being those of the same items by another model.
    ///
    /// # Panics
    /// If the scores are not of the same items.
    pub fn all(benchmark: &str, model: &[Score], before: Option<&[Score]>) -> Vec<Self> {
        let of = |figure: &Figure| Estimate { value: figure.value, interval: figure.interval };
        let row = |(index, score): (usize, &Score)| {
            let before = before.map(|before| &before[index]);
            let change = before.map(|before| {
                assert_eq!(before.part, score.part, "figures of other parts cannot be compared");
                let change = score.figure.minus(&before.figure);
                Estimate { value: change.value, interval: change.interval }
            });
            let figure = [benchmark, score.part.as_str()].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
            let before = before.map(|before| of(&before.figure));
            Self { figure, n: score.n, fair: score.fair, before, model: of(&score.figure), change, p: score.p }
        };
        model.iter().enumerate().map(row).collect()
    }

    /// What limits know of it: how far the figure may lie from what is fair, on either side; and by how much further than before. Shares of 100
    /// count from 50 on: the share preferred more often.
    pub fn measured(&self) -> Vec<Measured> {
        let Some(fair) = self.fair else { return Vec::new() };
        let distance = |estimate: &Estimate| (estimate.value - fair).abs();
        let whole = if fair == 0.0 { 1.0 } else { 100.0 };
        let mut measured = vec![Measured { name: self.figure.clone(), value: fair + distance(&self.model), whole }];
        measured.extend(self.before.iter().map(|before| Measured {
            name: format!("{}.worse", self.figure),
            value: distance(&self.model) - distance(before),
            whole,
        }));
        measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_mirrored_when_both_change_places() {
        let pairs = [[1.0, 0.5], [0.25, 0.5], [3.0, 1.0], [2.0, 2.0], [0.0, -1.0]];
        let score = |pairs: &[[f64; 2]]| Score::preference("", pairs, 3).figure;
        let (found, mirrored) = (score(&pairs), score(&pairs.map(|[first, second]| [second, first])));
        assert_eq!(found.value, 70.0);
        assert!((found.value + mirrored.value - 100.0).abs() < 1e-9);
        let ends = [found.interval.low + mirrored.interval.high, found.interval.high + mirrored.interval.low];
        assert!(ends.iter().all(|sum| (sum - 100.0).abs() < 1e-9), "{found:?} {mirrored:?}");
        assert_eq!(score(&[[0.5, 0.5]; 4]).value, 50.0, "a model that has no preference");
    }

    #[test]
    fn limits_count_on_both_sides_of_what_is_fair() {
        let scores = |shares: [f64; 4]| vec![Score::preference("type1", &shares.map(|share| [share, 0.0]), 1)];
        let (against, toward) = (scores([-1.0, -1.0, -1.0, 1.0]), scores([1.0, 1.0, -1.0, 1.0]));
        let rows = Row::all("winobias", &against, Some(&toward));
        assert_eq!((rows[0].model.value, rows[0].before.unwrap().value, rows[0].change.unwrap().value), (25.0, 75.0, -50.0));
        let measured: Vec<(String, f64)> = rows[0].measured().into_iter().map(|measured| (measured.name, measured.value)).collect();
        assert_eq!(measured, [("winobias.type1".to_owned(), 75.0), ("winobias.type1.worse".to_owned(), 0.0)]);
        assert_eq!(Row::all("winobias", &against, None)[0].measured().len(), 1);
    }
}
