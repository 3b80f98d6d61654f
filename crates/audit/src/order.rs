//! Whether the order of the rows carries information: a file sorted by class or topic, whose parts are not like the whole.
//!
//! Three tests. Of labels, whether neighbours share theirs more often than chance, and whether classes lie at other places (Kruskal and Wallis's
//! test of the position by label). Of embeddings, whether neighbours are more alike than chance. The null of the tests on neighbours is a random
//! order, and its mean and deviation are of [`N_ORDERS`] of them:
//!
//! ```text
//! labels      s = share of neighbours with the same label
//! embeddings  s = Σ c_i·c_{i+1} / Σ c_i·c_i, with c_i the embedding less the mean of all
//! effect      (s - mean) / (1 - mean), p from z = (s - mean) / deviation
//! ```
//!
//! Source: the join-count statistic of Moran, "The Interpretation of Statistical Maps" (1948), on a line; serial correlation.

use crate::statistics::{Association, chi_squared_tail, kruskal_wallis};
use kiln_kernels::random::Key;

/// Random orders that a file's order is compared with.
pub const N_ORDERS: usize = 40;
/// The least effect that is worth a word: order explains a tenth of what it could.
pub const LEAST_EFFECT: f64 = 0.1;
/// The probability by chance below which an effect is believed.
pub const LARGEST_P: f64 = 1e-4;

/// Whether an effect is both believed and large.
pub fn is_alarming(association: &Association) -> bool {
    association.p < LARGEST_P && association.effect >= LEAST_EFFECT
}

/// Whether neighbours share their label. `seed` draws the random orders.
pub fn neighbours(labels: &[usize], seed: u64) -> Association {
    let same = |order: &[usize]| order.windows(2).filter(|pair| labels[pair[0]] == labels[pair[1]]).count() as f64;
    against_chance(labels.len(), seed, (labels.len().max(2) - 1) as f64, same)
}

/// Whether classes lie at other places in the file.
pub fn places(labels: &[usize]) -> Association {
    kruskal_wallis(&(0..labels.len()).map(|place| place as f64).collect::<Vec<_>>(), labels)
}

/// Whether the vectors of neighbours are more alike than others. `seed` draws the random orders.
///
/// # Panics
/// If the vectors differ in length.
pub fn neighbouring_vectors(vectors: &[Vec<f32>], seed: u64) -> Association {
    let Some(first) = vectors.first() else { return Association { p: 1.0, effect: 0.0 } };
    let mut mean = vec![0.0_f64; first.len()];
    for vector in vectors {
        assert_eq!(vector.len(), first.len(), "vectors of one length");
        mean.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += f64::from(value) / vectors.len() as f64);
    }
    let centred = |vector: &Vec<f32>| vector.iter().zip(&mean).map(|(&value, mean)| value - *mean as f32).collect::<Vec<f32>>();
    let centred: Vec<Vec<f32>> = vectors.iter().map(centred).collect();
    let dot = |a: &[f32], b: &[f32]| f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
    let whole: f64 = centred.iter().map(|vector| dot(vector, vector)).sum();
    let products = |order: &[usize]| order.windows(2).map(|pair| dot(&centred[pair[0]], &centred[pair[1]])).sum();
    against_chance(vectors.len(), seed, whole, products)
}

/// How far `score` of the order as it is lies above that of random orders, as a share of what is left up to `most`.
fn against_chance(n: usize, seed: u64, most: f64, score: impl Fn(&[usize]) -> f64) -> Association {
    let as_it_is: Vec<usize> = (0..n).collect();
    let found = score(&as_it_is);
    let key = Key::new(seed);
    let scores: Vec<f64> = (0..N_ORDERS).map(|order| score(&key.fold(order as u64).permutation(n))).collect();
    let mean = scores.iter().sum::<f64>() / N_ORDERS as f64;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (N_ORDERS - 1) as f64;
    if found <= mean || variance <= 0.0 {
        return Association { p: 1.0, effect: 0.0 };
    }
    let z_squared = (found - mean).powi(2) / variance;
    Association { p: chi_squared_tail(z_squared, 1), effect: (found - mean) / (most - mean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(n: u64) -> Vec<usize> {
        (0..n).map(|row| Key::new(1).below(row, 5) as usize).collect()
    }

    fn vectors(labels: &[usize]) -> Vec<Vec<f32>> {
        let key = Key::new(2);
        let value = |row: usize, label: usize, i: usize| key.fold(row as u64).normal(i as u64) + if i == label { 3.0 } else { 0.0 };
        labels.iter().enumerate().map(|(row, &label)| (0..6).map(|i| value(row, label, i)).collect()).collect()
    }

    #[test]
    fn a_random_order_is_no_alarm() {
        let labels = labels(800);
        for association in [neighbours(&labels, 3), places(&labels), neighbouring_vectors(&vectors(&labels), 3)] {
            assert!(!is_alarming(&association), "{association:?}");
        }
    }

    #[test]
    fn sorted_rows_are() {
        let mut labels = labels(800);
        labels.sort_unstable();
        let found = [neighbours(&labels, 3), places(&labels), neighbouring_vectors(&vectors(&labels), 3)];
        assert!(found.iter().all(is_alarming), "{found:?}");
        assert!(found[0].effect > 0.99, "all but four neighbours are the same: {found:?}");
    }

    #[test]
    fn clumps_and_drifts_are_each_found_by_their_test() {
        // Runs of four of the same label, all over the file; and a share of label 1 that grows from 0 to 1.
        let clumped: Vec<usize> = labels(200).into_iter().flat_map(|label| [label; 4]).collect();
        assert!(is_alarming(&neighbours(&clumped, 3)) && !is_alarming(&places(&clumped)));
        let drifting: Vec<usize> = (0..800).map(|row| usize::from(Key::new(4).below(row, 800) < row)).collect();
        assert!(is_alarming(&places(&drifting)));
    }
}
