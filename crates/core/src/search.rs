//! The nearest of many vectors, by cosine.

use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::linear::linear;
use kiln_kernels::pool::normalize_l2;
use rayon::prelude::*;

/// Queries compared with all documents at a time.
const QUERIES: usize = 128;

/// For each query the `k` documents of the largest cosine, nearest first, with their cosines; of equal ones the earlier first.
///
/// # Panics
/// If the vectors differ in length.
pub fn nearest<V: AsRef<[f32]>>(queries: &[Vec<f32>], documents: &[V], k: usize, device: &Device) -> Vec<Vec<(usize, f32)>> {
    if documents.is_empty() {
        return vec![Vec::new(); queries.len()];
    }
    let documents = unit(documents, device);
    let mut found = Vec::with_capacity(queries.len());
    for queries in queries.chunks(QUERIES) {
        let cosines = linear(unit(queries, device), documents.clone(), None);
        let [_, n_documents] = cosines.dims();
        let cosines: Vec<f32> = cosines.into_data().try_to_vec().expect("cosines are f32");
        found.extend(cosines.par_chunks_exact(n_documents).map(|cosines| largest(cosines, k)).collect::<Vec<_>>());
    }
    found
}

/// Vectors of length 1 in the rows of a tensor.
fn unit<V: AsRef<[f32]>>(vectors: &[V], device: &Device) -> Tensor<2> {
    let vectors: Vec<&[f32]> = vectors.iter().map(V::as_ref).collect();
    let width = vectors[0].len();
    assert!(vectors.iter().all(|vector| vector.len() == width), "vectors of {width} numbers");
    normalize_l2(Tensor::from_data(TensorData::new(vectors.concat(), [vectors.len(), width]), device))
}

/// The `k` largest values with their places.
fn largest(values: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    let order = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_unstable_by(order);
    places.into_iter().map(|place| (place, values[place])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

    #[test]
    fn the_nearest_come_first_whatever_their_length() {
        let documents = [[0.0, 3.0], [2.0, 0.0], [0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]].map(Vec::from);
        let queries = [[5.0, 0.0], [0.0, 0.1]].map(Vec::from);
        let found = nearest(&queries, &documents, 3, &device::by_name("flex").unwrap());
        assert_eq!(found[0].iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(found[1].iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 2, 1]);
        assert!((found[0][2].1 - 0.6).abs() < 1e-6);
    }

    #[test]
    fn asking_for_more_than_there_are_gives_all() {
        let documents = [[0.0, 3.0], [2.0, 0.0]].map(Vec::from);
        let found = nearest(&[vec![1.0, 0.1]], &documents, 10, &device::by_name("flex").unwrap());
        assert_eq!(found[0].len(), 2);
    }
}
