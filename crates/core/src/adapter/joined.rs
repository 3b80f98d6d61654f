//! Several adapters as PEFT's one, where a checkpoint joins several of our layers in one tensor.

use crate::linear::Adapter;
use burn::tensor::Tensor;

/// The numbers of a tensor.
pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("floats")
}

/// The adapters of one tensor of the checkpoint as one: usually one, but several where the tensor joins several of our layers.
pub(super) struct Joined {
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) n_in: usize,
    /// `[rank, in]`.
    pub(super) a: Vec<f32>,
    /// `[outputs of all layers, rank]`.
    pub(super) b: Vec<f32>,
    pub(super) magnitude: Vec<f32>,
}

impl Joined {
    /// Layers with one A share it; those with an A each, which the parts of a tensor have once they trained, lie in blocks of B.
    pub(super) fn new(parts: &[Adapter]) -> Self {
        let ([rank, n_in], scale) = (parts[0].a.val().dims(), parts[0].scale);
        let factors: Vec<[Vec<f32>; 2]> = parts.iter().map(|part| [floats(part.a.val()), floats(part.b.val())]).collect();
        let magnitude = parts.iter().filter_map(|part| part.magnitude.as_ref()).flat_map(|m| floats(m.val())).collect();
        if factors.iter().all(|[a, _]| *a == factors[0][0]) {
            let b = factors.iter().flat_map(|[_, b]| b.clone()).collect();
            return Self { rank, scale, n_in, a: factors[0][0].clone(), b, magnitude };
        }
        let joined_rank = rank * parts.len();
        let mut b = Vec::new();
        for (index, [_, block]) in factors.iter().enumerate() {
            for row in block.chunks_exact(rank) {
                let mut wide = vec![0.0; joined_rank];
                wide[index * rank..][..rank].copy_from_slice(row);
                b.extend(wide);
            }
        }
        Self { rank: joined_rank, scale, n_in, a: factors.into_iter().flat_map(|[a, _]| a).collect(), b, magnitude }
    }

    /// Rank, A and B of each of the layers with so many outputs.
    pub(super) fn parts(&self, n_outs: &[usize]) -> Vec<(usize, Vec<f32>, Vec<f32>)> {
        let part_rank = self.rank / n_outs.len();
        let mut rest = self.b.as_slice();
        let rows: Vec<&[f32]> = n_outs
            .iter()
            .map(|n_out| {
                let (rows, after) = rest.split_at(n_out * self.rank);
                rest = after;
                rows
            })
            .collect();
        let is_block = |(index, rows): (usize, &&[f32])| {
            let of_block = index * part_rank..(index + 1) * part_rank;
            let is_zero = |(column, value): (usize, &f32)| of_block.contains(&column) || *value == 0.0;
            rows.chunks_exact(self.rank).all(|row| row.iter().enumerate().all(is_zero)) && rows.iter().any(|&value| value != 0.0)
        };
        if n_outs.len() == 1 || part_rank * n_outs.len() != self.rank || !rows.iter().enumerate().all(is_block) {
            return rows.into_iter().map(|rows| (self.rank, self.a.clone(), rows.to_vec())).collect();
        }
        let part = |(index, rows): (usize, &[f32])| {
            let a = self.a[index * part_rank * self.n_in..][..part_rank * self.n_in].to_vec();
            let b = rows.chunks_exact(self.rank).flat_map(|row| row[index * part_rank..][..part_rank].to_vec()).collect();
            (part_rank, a, b)
        };
        rows.into_iter().enumerate().map(part).collect()
    }
}
