//! Learning curves: how a figure falls with the number of training rows, and what twice as many would bring.
//!
//! ```text
//! error(n) = a + b·n^−c,  a, b, c ≥ 0
//! ```
//!
//! a is what no number of rows takes away; b and c how much rows still do.
//!
//! Source: Hestness et al., "Deep Learning Scaling is Predictable, Empirically", arXiv:1712.00409, Section 3, Eq. 1 with the term γ.
//! Differs from the source: least squares of the errors themselves and not of their logarithms, because few points of one model are fitted and a is
//! not known.

use kiln_eval::figure::Figure;
use serde::Serialize;

/// A power law with a floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PowerLaw {
    /// a: the error with rows without end.
    pub floor: f64,
    /// b: what one row leaves beyond it.
    pub factor: f64,
    /// c: how fast it falls.
    pub exponent: f64,
}

/// The smallest and the largest exponent that is looked for.
const EXPONENTS: [f64; 2] = [0.02, 4.0];

impl PowerLaw {
    /// The law nearest to points `(rows, error)`, by least squares.
    ///
    /// # Panics
    /// With fewer than three points, which any law could go through.
    pub fn fit(points: &[(f64, f64)]) -> Self {
        assert!(points.len() > 2, "{} points, at least 3 are needed", points.len());
        let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
        let at = |log: f64| Self::with_exponent(points, most, log.exp());
        // The best of a grid of exponents, then closer by golden sections between its neighbours.
        let [low, high] = EXPONENTS.map(f64::ln);
        const N: usize = 100;
        let log = |index: usize| low + (high - low) * index as f64 / N as f64;
        let best = (0..=N).min_by(|&a, &b| at(log(a)).1.total_cmp(&at(log(b)).1)).expect("a grid");
        let (mut low, mut high) = (log(best.saturating_sub(1)), log((best + 1).min(N)));
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        while high - low > 1e-9 {
            let [one, other] = [high - golden * (high - low), low + golden * (high - low)];
            if at(one).1 < at(other).1 { high = other } else { low = one }
        }
        at(0.5 * (low + high)).0
    }

    /// The law of this exponent that is nearest, and the sum of the squares of what it misses.
    fn with_exponent(points: &[(f64, f64)], most: f64, exponent: f64) -> (Self, f64) {
        // Relative to the most rows, so that powers are near 1.
        let xy: Vec<(f64, f64)> = points.iter().map(|&(n, error)| ((n / most).powf(-exponent), error)).collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| xy.iter().map(of).sum::<f64>() / xy.len() as f64;
        let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
        let slope = mean(&|point| (point.0 - x) * (point.1 - y)) / mean(&|point| (point.0 - x).powi(2));
        let (floor, slope) = match (y - slope * x, slope) {
            (_, slope) if slope.is_nan() || slope <= 0.0 => (y, 0.0),
            (floor, _) if floor < 0.0 => (0.0, mean(&|point| point.0 * point.1) / mean(&|point| point.0 * point.0)),
            both => both,
        };
        let missed = xy.iter().map(|(x, y)| (floor + slope * x - y).powi(2)).sum();
        (Self { floor, factor: slope * most.powf(exponent), exponent }, missed)
    }

    /// The error with `n` rows.
    pub fn at(&self, n: f64) -> f64 {
        self.floor + self.factor * n.powf(-self.exponent)
    }
}

/// The errors of a model that was trained on so many rows.
#[derive(Clone, Debug)]
pub struct Point {
    /// The training rows.
    pub n_rows: usize,
    /// Of each held-out row its error, and what it counts: a loss and its tokens, or whether an answer is wrong and 1. The rows are the same at all
    /// points.
    pub errors: Vec<(f64, f64)>,
}

/// A learning curve, and where it leads.
#[derive(Clone, Debug, Serialize)]
pub struct LearningCurve {
    /// What the errors are.
    pub of: &'static str,
    /// The training rows and the error at each point.
    pub points: Vec<Learned>,
    /// The law that fits them.
    pub law: PowerLaw,
    /// Twice the most rows.
    pub n_rows: usize,
    /// The error expected there.
    pub expected: Figure,
    /// By how much it is expected to be lower than at the most rows, by the law.
    pub gain: Figure,
}

/// A point of a learning curve.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    /// The training rows, named.
    pub rows: String,
    /// The mean error on held-out rows.
    pub error: f64,
}

impl LearningCurve {
    /// The law through `points`. Its intervals come from resamples of the held-out rows, the same at all points, which `seed` draws; how training
    /// itself varies is not in them.
    ///
    /// # Panics
    /// With fewer than three points, or with points of different held-out rows.
    pub fn new(of: &'static str, points: &[Point], seed: u64) -> Self {
        let n_held_out = points[0].errors.len();
        assert!(points.iter().all(|point| point.errors.len() == n_held_out), "the same held-out rows at all points");
        let most = points.iter().map(|point| point.n_rows).max().unwrap_or(0) as f64;
        let points_of = {
            let points = points.to_vec();
            move |places: &[usize]| -> Vec<(f64, f64)> {
                let error = |point: &Point| {
                    let (errors, counts) = places
                        .iter()
                        .fold((0.0, 0.0), |(errors, counts), &place| (errors + point.errors[place].0, counts + point.errors[place].1));
                    errors / counts
                };
                points.iter().map(|point| (point.n_rows as f64, error(point))).collect()
            }
        };
        let all: Vec<usize> = (0..n_held_out).collect();
        let measured = points_of(&all);
        let (of_expected, of_gain) = (points_of.clone(), points_of);
        let expected = move |places: &[usize]| PowerLaw::fit(&of_expected(places)).at(2.0 * most);
        let gain = move |places: &[usize]| {
            let law = PowerLaw::fit(&of_gain(places));
            law.at(most) - law.at(2.0 * most)
        };
        Self {
            of,
            law: PowerLaw::fit(&measured),
            points: measured.iter().map(|&(n, error)| Learned { rows: n.to_string(), error }).collect(),
            n_rows: 2 * most as usize,
            expected: Figure::of_places("expected error", n_held_out, expected, seed).lower_is_better(),
            gain: Figure::of_places("gain", n_held_out, gain, seed),
        }
    }

    /// Whether more rows would help: whether what twice as many are expected to bring is beyond the chance of the held-out rows.
    pub fn helps(&self) -> bool {
        self.gain.interval.low > 1e-3 * self.expected.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    #[test]
    fn planted_parameters_are_found_again() {
        for (floor, factor, exponent) in [(0.1, 3.0, 0.5), (0.0, 2.0, 0.3), (0.4, 50.0, 1.2), (2.0, 9.0, 0.08)] {
            let planted = PowerLaw { floor, factor, exponent };
            let found = PowerLaw::fit(&[125.0, 250.0, 500.0, 1000.0].map(|n| (n, planted.at(n))));
            assert!((found.exponent / exponent - 1.0).abs() < 1e-3, "{planted:?} {found:?}");
            assert!((found.floor - floor).abs() < 1e-3 * planted.at(125.0), "{planted:?} {found:?}");
            assert!((found.at(2000.0) / planted.at(2000.0) - 1.0).abs() < 1e-4, "{planted:?} {found:?}");
        }
    }

    #[test]
    fn what_does_not_fall_is_level() {
        let law = PowerLaw::fit(&[(125.0, 0.3), (250.0, 0.3), (500.0, 0.3), (1000.0, 0.3)]);
        assert!((law.at(2000.0) - 0.3).abs() < 1e-9 && (law.at(1000.0) - law.at(2000.0)).abs() < 1e-9, "{law:?}");
        let rising = PowerLaw::fit(&[(125.0, 0.2), (250.0, 0.3), (500.0, 0.4)]);
        assert_eq!((rising.factor, rising.at(1e6)), (0.0, rising.floor));
        assert!((rising.floor - 0.3).abs() < 1e-12);
    }

    /// Held-out rows whose errors are noisy around `error(n)`.
    fn curve(error: impl Fn(f64) -> f64, noise: f64, seed: u64) -> LearningCurve {
        let key = Key::new(seed);
        let point = |n_rows: usize| Point {
            n_rows,
            errors: (0..400).map(|row| (error(n_rows as f64) + noise * f64::from(key.fold(n_rows as u64).normal(row)), 1.0)).collect(),
        };
        LearningCurve::new("loss", &[125, 250, 500, 1000].map(point), seed)
    }

    #[test]
    fn what_more_rows_bring_is_expected_and_covered() {
        let planted = PowerLaw { floor: 0.2, factor: 6.0, exponent: 0.5 };
        let n_covered = (0..20).filter(|&seed| curve(|n| planted.at(n), 0.1, seed).expected.interval.contains(planted.at(2000.0))).count();
        assert!(n_covered >= 15, "{n_covered} of 20");
        let curve = curve(|n| planted.at(n), 0.05, 3);
        assert!(curve.helps() && curve.n_rows == 2000 && curve.points[3].rows == "1000", "{curve:?}");
    }

    #[test]
    fn where_nothing_falls_no_rows_help() {
        let n_helped = (0..10).filter(|&seed| curve(|_| 0.5, 0.2, seed).helps()).count();
        assert!(n_helped <= 1, "{n_helped} of 10");
    }
}
