//! Rows unlike all others: far from their nearest neighbours among the embeddings.
//!
//! ```text
//! distance_i = 1 - mean cosine of row i with its k nearest rows
//! outlier    distance_i > Q3 + 3·(Q3 - Q1)
//! ```
//!
//! with Q1 and Q3 the quartiles of all distances: the outer fence of Tukey, "Exploratory Data Analysis" (1977). Source of the distance: Kuan and
//! Mueller, arXiv:2207.03061.

use burn::tensor::Device;
use kiln_core::search::nearest;
use kiln_data::split::order;

/// Neighbours whose mean similarity counts.
pub const N_NEIGHBOURS: usize = 10;
/// Rows that all rows are compared with, at most: in larger files that many drawn at random, so that time grows with rows, not with pairs.
pub const MOST_COMPARED: usize = 20_000;

/// The distance of each row from its nearest rows. `seed` draws those it is compared with, if there are more than [`MOST_COMPARED`].
///
/// # Panics
/// If the vectors differ in length.
pub fn distances(vectors: &[Vec<f32>], seed: u64, device: &Device) -> Vec<f32> {
    let mut compared = order(vectors.len(), seed);
    compared.truncate(MOST_COMPARED);
    compared.sort_unstable();
    if compared.len() < 2 {
        return vec![0.0; vectors.len()];
    }
    let candidates: Vec<&[f32]> = compared.iter().map(|&row| vectors[row].as_slice()).collect();
    let n = N_NEIGHBOURS.min(compared.len() - 1);
    // One more than count, since a row is no neighbour of its own.
    let found = nearest(vectors, &candidates, n + 1, device);
    let distance = |(row, found): (usize, Vec<(usize, f32)>)| {
        let others = found.into_iter().filter(|&(place, _)| compared[place] != row);
        1.0 - others.take(n).map(|(_, cosine)| cosine).sum::<f32>() / n as f32
    };
    found.into_iter().enumerate().map(distance).collect()
}

/// The rows beyond the outer fence, the furthest first.
pub fn outliers(distances: &[f32]) -> Vec<usize> {
    if distances.is_empty() {
        return Vec::new();
    }
    let mut sorted = distances.to_vec();
    sorted.sort_by(f32::total_cmp);
    let quartile = |share: f64| sorted[(share * (sorted.len() - 1) as f64).round() as usize];
    let (low, high) = (quartile(0.25), quartile(0.75));
    let fence = high + 3.0 * (high - low);
    // Rounding of equal distances is no difference.
    let mut found: Vec<usize> = (0..distances.len()).filter(|&row| distances[row] > fence + 1e-4).collect();
    found.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::device;
    use kiln_kernels::random::Key;

    #[test]
    fn what_lies_apart_is_found() {
        let device = device::by_name("flex").unwrap();
        let key = Key::new(4);
        let near =
            |row: u64, axis: usize| (0..16).map(|i| key.fold(row).normal(i) * 0.2 + f32::from(u8::from(i as usize == axis))).collect();
        let mut vectors: Vec<Vec<f32>> = (0..400).map(|row| near(row, (row % 3) as usize)).collect();
        assert!(outliers(&distances(&vectors, 1, &device)).len() <= 1);
        vectors.push(near(1000, 9));
        vectors.push(near(1001, 12));
        let mut found = outliers(&distances(&vectors, 1, &device));
        found.truncate(2);
        found.sort_unstable();
        assert_eq!(found, [400, 401]);
        assert!(outliers(&distances(&vec![vec![1.0, 0.5]; 30], 1, &device)).is_empty(), "all the same");
        assert!(outliers(&distances(&[], 1, &device)).is_empty());
    }
}
