//! Rows unlike all others: far from their nearest neighbours among the embeddings.
//!
//! ```text
//! distance_i = 1 - mean cosine of row i with its k nearest rows
//! outlier    distance_i > Q3 + 3·(Q3 - Q1)
//! ```
//!
//! with Q1 and Q3 the quartiles of all distances: the outer fence of Tukey, "Exploratory Data Analysis" (1977). Source of the distance: Kuan and
//! Mueller, arXiv:2207.03061.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_data::split::order;
use kiln_kernels::linear::linear;
use kiln_kernels::pool::normalize_l2;
use rayon::prelude::*;

/// Neighbours whose mean similarity counts.
pub const N_NEIGHBOURS: usize = 10;
/// Rows that all rows are compared with, at most: in larger files that many drawn at random, so that time grows with rows, not with pairs.
pub const MOST_COMPARED: usize = 20_000;

/// Rows compared with all others at a time.
const BLOCK: usize = 256;

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
    let candidates = unit(compared.iter().map(|&row| &vectors[row]), device);
    let mut distances = Vec::with_capacity(vectors.len());
    for block in vectors.chunks(BLOCK) {
        let first = distances.len();
        let cosines = linear(unit(block.iter(), device), candidates.clone(), None);
        let mut cosines: Vec<f32> = cosines.into_data().try_to_vec().expect("cosines are f32");
        let mean = |(place, cosines): (usize, &mut [f32])| {
            // A row is no neighbour of its own.
            if let Ok(own) = compared.binary_search(&(first + place)) {
                cosines[own] = f32::NEG_INFINITY;
            }
            let n = N_NEIGHBOURS.min(compared.len() - 1);
            cosines.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
            // In order, so that the sum does not depend on how they were selected.
            cosines[..n].sort_unstable_by(f32::total_cmp);
            1.0 - cosines[..n].iter().sum::<f32>() / n as f32
        };
        distances.extend(cosines.par_chunks_mut(compared.len()).enumerate().map(mean).collect::<Vec<f32>>());
    }
    distances
}

/// Vectors of length 1 in the rows of a tensor.
fn unit<'a>(vectors: impl Iterator<Item = &'a Vec<f32>>, device: &Device) -> Tensor<2> {
    let vectors: Vec<&[f32]> = vectors.map(Vec::as_slice).collect();
    let width = vectors[0].len();
    assert!(vectors.iter().all(|vector| vector.len() == width), "vectors of {width} numbers");
    normalize_l2(Tensor::from_data(TensorData::new(vectors.concat(), [vectors.len(), width]), device))
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
