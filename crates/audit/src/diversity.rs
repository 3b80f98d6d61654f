//! How varied texts are.
//!
//! ```text
//! distinct-n        different n-grams of words / n-grams of words
//! self-BLEU         mean BLEU of a text against all others of the sample, from 0 to 100: 100 where all say the same
//! embedding spread  1 - mean cosine of two different rows: 0 where all mean the same
//! Vendi score       exp of the entropy of the eigenvalues of the cosines of all pairs, over the number of rows: how many topics there are, as it
//!                   were: 1 where all mean the same, k where k things are said equally often that have nothing in common
//! ```
//!
//! Source: distinct-n: Li et al., arXiv:1510.03055, Section 5; self-BLEU: Zhu et al., arXiv:1802.01886, Section 3.2; Vendi score:
//! Friedman and Dieng, arXiv:2210.02410, Definition 3.1.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::split::order;
use kiln_eval::bleu::{Segment, bleu};
use kiln_kernels::linear::linear;
use kiln_kernels::pool::normalize_l2;
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

/// The Vendi score of the rows; NaN without any. The eigenvalues are those of the `[width, width]` products of the unit vectors' columns, which are
/// the same but for zeros, so that time grows with rows, not with pairs.
///
/// # Panics
/// If the vectors differ in length.
pub fn vendi_score(vectors: &[Vec<f32>], device: &Device) -> f64 {
    let Some(width) = vectors.first().map(Vec::len) else { return f64::NAN };
    assert!(vectors.iter().all(|vector| vector.len() == width), "vectors of {width} numbers");
    let unit = normalize_l2(Tensor::<2>::from_data(TensorData::new(vectors.concat(), [vectors.len(), width]), device));
    let columns = unit.transpose();
    let products: Vec<f32> = linear(columns.clone(), columns, None).into_data().try_to_vec().expect("products are f32");
    let mut products: Vec<f64> = products.into_iter().map(|product| f64::from(product) / vectors.len() as f64).collect();
    let entropy: f64 = eigenvalues(&mut products, width).into_iter().filter(|&value| value > 0.0).map(|value| -value * value.ln()).sum();
    entropy.exp()
}

/// The eigenvalues of a symmetric `[n, n]` matrix, by Jacobi's rotations (Golub and Van Loan, "Matrix Computations", Algorithm 8.5.3).
fn eigenvalues(matrix: &mut [f64], n: usize) -> Vec<f64> {
    let largest: f64 = matrix.iter().map(|value| value * value).sum::<f64>();
    let off = |matrix: &[f64]| {
        (0..n).map(|i| matrix[i * n..][..n].iter().enumerate().filter(|(j, _)| *j != i).map(|(_, v)| v * v).sum::<f64>()).sum::<f64>()
    };
    while off(matrix) > 1e-16 * largest {
        for p in 0..n {
            for q in p + 1..n {
                let between = matrix[p * n + q];
                if between * between <= 1e-20 * largest / (n * n) as f64 {
                    continue;
                }
                let ratio = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * between);
                let tangent = 1f64.copysign(ratio) / (ratio.abs() + ratio.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = tangent * cosine;
                for k in 0..n {
                    let (a, b) = (matrix[p * n + k], matrix[q * n + k]);
                    (matrix[p * n + k], matrix[q * n + k]) = (cosine * a - sine * b, sine * a + cosine * b);
                }
                for k in 0..n {
                    let (a, b) = (matrix[k * n + p], matrix[k * n + q]);
                    (matrix[k * n + p], matrix[k * n + q]) = (cosine * a - sine * b, sine * a + cosine * b);
                }
            }
        }
    }
    (0..n).map(|i| matrix[i * n + i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::device;

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
    fn the_vendi_score_counts_what_has_nothing_in_common() {
        let device = device::by_name("flex").unwrap();
        let axis = |axis: usize| (0..6).map(|i| if i == axis { 2.0 } else { 0.0 }).collect::<Vec<f32>>();
        let score = |rows: &[usize]| vendi_score(&rows.iter().map(|&row| axis(row)).collect::<Vec<_>>(), &device);
        assert!((score(&[1, 1, 1]) - 1.0).abs() < 1e-6);
        assert!((score(&[0, 1, 2, 3, 3, 2, 1, 0]) - 4.0).abs() < 1e-6);
        // Three quarters and a quarter: exp(0.75·ln(4/3) + 0.25·ln 4).
        assert!((score(&[0, 0, 0, 5]) - (0.75 * (4.0_f64 / 3.0).ln() + 0.25 * 4.0_f64.ln()).exp()).abs() < 1e-6);
        // Two rows with cosine c have eigenvalues (1 ± c) / 2.
        let (c, tilted) = (0.6, vec![vec![1.0, 0.0], vec![0.6, 0.8]]);
        let expected: f64 = [0.5 + c / 2.0, 0.5 - c / 2.0].into_iter().map(|value: f64| -value * value.ln()).sum::<f64>().exp();
        assert!((vendi_score(&tilted, &device) - expected).abs() < 1e-6);
        assert!(vendi_score(&[], &device).is_nan());
    }

    #[test]
    fn eigenvalues_keep_trace_and_squares_whatever_the_axes() {
        let key = kiln_kernels::random::Key::new(5);
        let n = 24;
        let entry = |i: usize, j: usize| f64::from(key.normal((i.min(j) * n + i.max(j)) as u64));
        let matrix: Vec<f64> = (0..n * n).map(|at| entry(at / n, at % n)).collect();
        let values = eigenvalues(&mut matrix.clone(), n);
        let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
        assert!((values.iter().sum::<f64>() - trace).abs() < 1e-9);
        let squares: f64 = matrix.iter().map(|value| value * value).sum();
        assert!((values.iter().map(|value| value * value).sum::<f64>() - squares).abs() < 1e-9 * squares);
        let cubes: f64 = (0..n)
            .flat_map(|i| (0..n).flat_map(move |j| (0..n).map(move |k| (i, j, k))))
            .map(|(i, j, k)| entry(i, j) * entry(j, k) * entry(k, i))
            .sum();
        assert!((values.iter().map(|value| value.powi(3)).sum::<f64>() - cubes).abs() < 1e-8 * squares.powf(1.5));
    }

    #[test]
    fn the_spread_is_the_mean_over_pairs() {
        let vectors = [vec![1.0, 0.0], vec![0.0, 2.0], vec![3.0, 3.0]];
        // Cosines 0, 1/√2, 1/√2.
        assert!((spread(&vectors) - (1.0 - 2.0 / 3.0 / 2f64.sqrt())).abs() < 1e-7);
        assert!(spread(&vec![vec![0.3, 0.4]; 5]).abs() < 1e-7);
    }
}
