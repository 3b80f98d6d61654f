//! Calibration before training and after: whether the model is right as often as it is sure, and how far training moved that.

use kiln_eval::bootstrap::mean;
use kiln_eval::calibration::{Bins, Reliability};
use kiln_eval::figure::{Difference, Figure};
use kiln_train::observed::Observation;
use serde::Serialize;

/// How well calibrated a model is on some rows.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// Expected calibration error, its interval over rows.
    pub ece: Figure,
    /// Brier's score, the mean over answers.
    pub brier: Figure,
    /// Confidence and accuracy by bins of confidence.
    pub reliability: Vec<Reliability>,
}

/// Of what a model says of rows; `None` if its answers have no probabilities. `seed` draws the resamples of rows.
pub fn calibration(rows: &[Observation], seed: u64) -> Option<Calibration> {
    if rows.iter().all(|row| row.answers.is_empty()) {
        return None;
    }
    let of_row = |row: &Observation| Bins::new(row.answers.iter().map(|answer| (answer.confidence, answer.is_right)));
    let bins: Vec<Bins> = rows.iter().map(of_row).collect();
    let reliability = Bins::joined(&bins).table();
    let ece = move |places: &[usize]| Bins::joined(places.iter().map(|&place| &bins[place])).expected_calibration_error();
    let scores: Vec<(f64, f64)> =
        rows.iter().map(|row| (row.answers.iter().map(|answer| answer.brier).sum(), row.answers.len() as f64)).collect();
    let brier = |rows: &[(f64, f64)]| {
        let (sums, counts): (Vec<f64>, Vec<f64>) = rows.iter().copied().unzip();
        mean(&sums) / mean(&counts)
    };
    Some(Calibration {
        ece: Figure::of_places("ECE", rows.len(), ece, seed).lower_is_better(),
        brier: Figure::new("Brier score", scores, brier, seed).lower_is_better(),
        reliability,
    })
}

/// A model's calibration before training and after.
#[derive(Clone, Debug, Serialize)]
pub struct Drift {
    /// Before.
    pub before: Calibration,
    /// After.
    pub after: Calibration,
    /// By how much the expected calibration error and Brier's score rose, on the same rows.
    pub rise: [Difference; 2],
}

/// From what the model said of the same rows before training and after.
pub fn drift(before: &[Observation], after: &[Observation], seed: u64) -> Option<Drift> {
    let (before, after) = (calibration(before, seed)?, calibration(after, seed)?);
    let rise = [after.ece.minus(&before.ece), after.brier.minus(&before.brier)];
    Some(Drift { before, after, rise })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_train::observed::Answer;

    fn row(answers: &[(f64, bool)]) -> Observation {
        let answer = |&(confidence, is_right): &(f64, bool)| Answer { confidence, is_right, brier: if is_right { 0.1 } else { 0.9 } };
        Observation { loss: 1.0, n_items: answers.len(), answers: answers.iter().map(answer).collect() }
    }

    #[test]
    fn tokens_count_and_rows_are_drawn() {
        // Three answers at 0.8 of which two are right, one at 0.5 that is: (|2 − 2.4| + |1 − 0.5|) / 4.
        let rows = [row(&[(0.8, true), (0.8, false), (0.8, true)]), row(&[(0.5, true)])];
        let found = calibration(&rows, 3).unwrap();
        assert!((found.ece.value - 0.9 / 4.0).abs() < 1e-12 && (found.brier.value - 1.2 / 4.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.reliability.iter().map(|line| line.n_answers).collect::<Vec<_>>(), [1, 3]);
        assert!(calibration(&[row(&[])], 3).is_none());
    }

    #[test]
    fn a_model_that_grows_too_sure_drifts() {
        let rows = |confidence: f64| (0..40).map(|index| row(&[(confidence, index % 2 == 0)])).collect::<Vec<_>>();
        let drift = drift(&rows(0.55), &rows(0.95), 3).unwrap();
        assert!((drift.rise[0].value - 0.4).abs() < 1e-12 && drift.rise[0].interval.low > 0.1, "{drift:?}");
    }
}
