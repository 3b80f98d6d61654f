//! Whether a model is right as often as it is sure: reliability by bins of confidence, the expected calibration error, and Brier's score.
//!
//! An answer is `(confidence, is_right)`: the probability of what was answered, and whether it was right. Bins and not answers are what is
//! resampled, so that a row with many answers, such as a text with its tokens, is drawn as a whole.

use serde::Serialize;

/// The number of bins that the papers use.
pub const N_BINS: usize = 15;

/// Answers by confidence, in bins of equal width; an answer on an edge belongs to the bin below it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bins([Sums; N_BINS]);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    n: f64,
    confidence: f64,
    right: f64,
}

/// One line of a reliability table: answers of about the same confidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Their confidence, such as `0.60 to 0.67`.
    pub between: String,
    /// How many there are.
    pub n_answers: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share that is right.
    pub accuracy: f64,
}

impl Bins {
    /// The answers `(confidence, is_right)` in their bins.
    pub fn new(answers: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut bins = Self::default();
        for (confidence, is_right) in answers {
            let place = (confidence * N_BINS as f64).ceil() as usize;
            let of = &mut bins.0[place.clamp(1, N_BINS) - 1];
            of.n += 1.0;
            of.confidence += confidence;
            of.right += f64::from(u8::from(is_right));
        }
        bins
    }

    /// All answers of `parts`.
    pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            for (of, more) in all.0.iter_mut().zip(&part.0) {
                of.n += more.n;
                of.confidence += more.confidence;
                of.right += more.right;
            }
        }
        all
    }

    /// Expected calibration error: by how much confidence and accuracy differ, the mean over bins weighted by their answers. NaN without
    /// answers. A model that is calibrated perfectly does not come to 0 on few answers.
    ///
    /// ```text
    /// ECE = Σ_b n_b / n · |accuracy_b − confidence_b|
    /// ```
    ///
    /// Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, Eq. 3, with its 15 bins.
    pub fn expected_calibration_error(&self) -> f64 {
        let n: f64 = self.0.iter().map(|bin| bin.n).sum();
        self.0.iter().map(|bin| (bin.right - bin.confidence).abs()).sum::<f64>() / n
    }

    /// The bins that have answers, from the least confident.
    pub fn table(&self) -> Vec<Reliability> {
        let edge = |index: usize| index as f64 / N_BINS as f64;
        let line = |(index, bin): (usize, &Sums)| Reliability {
            between: format!("{:.2} to {:.2}", edge(index), edge(index + 1)),
            n_answers: bin.n as u64,
            confidence: bin.confidence / bin.n,
            accuracy: bin.right / bin.n,
        };
        self.0.iter().enumerate().filter(|(_, bin)| bin.n > 0.0).map(line).collect()
    }
}

/// Brier's score of one answer, from the probabilities of all classes: 0 for certainty of the right one, 2 for that of a wrong one.
///
/// ```text
/// brier = Σ_k (p_k − [k = gold])²
/// ```
///
/// Source: Brier, "Verification of Forecasts Expressed in Terms of Probability" (1950), Eq. 2. The mean over answers is a proper score: only the
/// true probabilities minimise it.
pub fn brier(probabilities: impl IntoIterator<Item = f64>, gold: usize) -> f64 {
    let term = |(class, probability): (usize, f64)| (probability - f64::from(u8::from(class == gold))).powi(2);
    probabilities.into_iter().enumerate().map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Two answers at 0.9, one right; two at 0.5, both right: (|1 − 1.8| + |2 − 1.0|) / 4.
        let answers = [(0.9, true), (0.9, false), (0.5, true), (0.5, true)];
        let bins = Bins::new(answers);
        assert!((bins.expected_calibration_error() - 1.8 / 4.0).abs() < 1e-12);
        let table = bins.table();
        assert_eq!(table.iter().map(|line| line.between.as_str()).collect::<Vec<_>>(), ["0.47 to 0.53", "0.87 to 0.93"]);
        assert_eq!((table[1].n_answers, table[1].accuracy), (2, 0.5));
        assert!((brier([0.7, 0.2, 0.1], 0) - (0.09 + 0.04 + 0.01)).abs() < 1e-12);
        assert_eq!([brier([1.0, 0.0], 0), brier([1.0, 0.0], 1)], [0.0, 2.0]);
    }

    #[test]
    fn limits() {
        assert!(Bins::default().expected_calibration_error().is_nan() && Bins::default().table().is_empty());
        let sure = |is_right| Bins::new([(1.0, is_right); 7]).expected_calibration_error();
        assert_eq!([sure(true), sure(false)], [0.0, 1.0]);
        // How answers are dealt out to parts changes nothing.
        let answers: Vec<(f64, bool)> = (0..50).map(|i| (f64::from(i) / 50.0, i % 3 == 0)).collect();
        let parts: Vec<Bins> = answers.chunks(7).map(|part| Bins::new(part.iter().copied())).collect();
        let difference = Bins::joined(&parts).expected_calibration_error() - Bins::new(answers).expected_calibration_error();
        assert!(difference.abs() < 1e-12);
    }

    #[test]
    fn the_true_probabilities_have_the_least_score() {
        // Of ten answers seven are of class 0.
        let score = |p: f64| (0..10).map(|i| brier([p, 1.0 - p], usize::from(i >= 7))).sum::<f64>();
        assert!(score(0.7) < score(0.69) && score(0.7) < score(0.71));
    }
}
