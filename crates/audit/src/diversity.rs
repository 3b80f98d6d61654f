//! How varied texts are.
//!
//! ```text
//! distinct-n        different n-grams of words / n-grams of words
//! self-BLEU         mean BLEU of a text against all others of the sample, from 0 to 100: 100 where all say the same
//! embedding spread  1 - mean cosine of two different rows: 0 where all mean the same
//! ```
//!
//! Source: distinct-n: Li et al., arXiv:1510.03055, Section 5; self-BLEU: Zhu et al., arXiv:1802.01886, Section 3.2.

use kiln_data::split::order;
use kiln_eval::bleu::{Segment, bleu};
use rayon::prelude::*;
use std::collections::HashSet;

/// Texts that self-BLEU compares: its time grows with the square.
pub const N_SAMPLE: usize = 200;

/// The share of the n-grams of all texts that are different ones; NaN if no text has `n` words.
pub fn distinct<S: AsRef<str>>(texts: &[S], n: usize) -> f64 {
    let mut seen = HashSet::new();
    let mut n_grams = 0;
    for text in texts {
        let words: Vec<&str> = text.as_ref().split_whitespace().collect();
        for n_gram in words.windows(n) {
            n_grams += 1;
            seen.insert(n_gram.to_vec());
        }
    }
    seen.len() as f64 / f64::from(n_grams)
}

/// The mean BLEU of each of up to [`N_SAMPLE`] texts, drawn by `seed`, against the others of them; NaN of fewer than two.
pub fn self_bleu<S: AsRef<str>>(texts: &[S], seed: u64) -> f64 {
    let mut sample = order(texts.len(), seed);
    sample.truncate(N_SAMPLE);
    if sample.len() < 2 {
        return f64::NAN;
    }
    let sample: Vec<&str> = sample.into_iter().map(|row| texts[row].as_ref()).collect();
    let of = |place: usize| {
        let others: Vec<&str> = sample.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, text)| *text).collect();
        bleu(&[Segment::new(sample[place], &others)])
    };
    let scores: Vec<f64> = (0..sample.len()).into_par_iter().map(of).collect();
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// `1 - mean cosine of two different rows`, from the length of the sum of unit vectors; NaN of fewer than two.
///
/// # Panics
/// If the vectors differ in length.
pub fn spread(vectors: &[Vec<f32>]) -> f64 {
    let n = vectors.len() as f64;
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for vector in vectors {
        assert_eq!(vector.len(), sum.len(), "vectors of one length");
        let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        sum.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += f64::from(value) / length);
    }
    let square: f64 = sum.iter().map(|value| value * value).sum();
    1.0 - (square - n) / (n * (n - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_different_n_grams_by_hand() {
        let texts = ["a b a b", "a c"];
        assert_eq!(distinct(&texts, 1), 0.5);
        // a b, b a, a b; a c
        assert_eq!(distinct(&texts, 2), 0.75);
        assert!(distinct(&texts, 5).is_nan());
    }

    #[test]
    fn repetition_costs_variety() {
        let varied: Vec<String> = (0..30).map(|i| format!("w{} x{} y{} z{} v{}", i, i * 7, i * 3, i + 90, i * 11)).collect();
        assert!(self_bleu(&varied, 1) < 1.0);
        assert!((self_bleu(&vec!["one two three four five"; 30], 1) - 100.0).abs() < 1e-9);
        assert!(self_bleu(&["alone"], 1).is_nan());
    }

    #[test]
    fn the_spread_is_the_mean_over_pairs() {
        let vectors = [vec![1.0, 0.0], vec![0.0, 2.0], vec![3.0, 3.0]];
        // Cosines 0, 1/√2, 1/√2.
        assert!((spread(&vectors) - (1.0 - 2.0 / 3.0 / 2f64.sqrt())).abs() < 1e-7);
        assert!(spread(&vec![vec![0.3, 0.4]; 5]).abs() < 1e-7);
    }
}
