//! R-Drop: two passes with other dropout should say the same.
//!
//! ```text
//! loss = ½·Σ_i (ce(p_i, y_i) + ce(q_i, y_i)) + α·½·Σ_i (KL(p_i ‖ q_i) + KL(q_i ‖ p_i))
//! ```
//!
//! p, q: the distributions of the two passes, one after the other in the logits, [2 · items, classes]; y: the class of each item; α: the
//! weight; ce may be smoothed. Without a weight there is one pass, and the loss is its cross-entropy. Items may count more or less: both terms of
//! an item are then multiplied.
//! Source: Wu et al., arXiv:2106.14448, Eq. 4.  Differs from the source: the cross-entropies of the passes are averaged, as in its authors'
//! code, so that α = 0 is plain training.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use kiln_kernels::cross_entropy::smooth_cross_entropy;
use std::sync::Arc;

/// What classifiers add to the cross-entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regularization {
    /// The share of the loss that falls on all classes alike.
    pub label_smoothing: f64,
    /// α; 0 is one pass.
    pub r_drop: f64,
}

impl Regularization {
    /// How often each row is in a batch.
    pub fn n_passes(&self) -> usize {
        if self.r_drop > 0.0 { 2 } else { 1 }
    }
}

/// The summed loss in nats, `[1]`.
///
/// # Shapes
/// `logits`: `[passes · items, classes]`; `classes`: one for each of its rows; `weights`: one for each item, without them all count as 1.
pub fn loss(logits: Tensor<2>, classes: &Arc<[u32]>, weights: Option<&[f32]>, regularization: Regularization) -> Tensor<1> {
    let share = 1.0 / regularization.n_passes() as f32;
    let of_passes: Arc<[f32]> = match weights {
        None => vec![share; classes.len()].into(),
        Some(weights) => weights.repeat(regularization.n_passes()).into_iter().map(|weight| share * weight).collect(),
    };
    let smoothing = regularization.label_smoothing as f32;
    if regularization.n_passes() == 1 {
        return smooth_cross_entropy(logits, classes, &of_passes, smoothing);
    }
    let plain = smooth_cross_entropy(logits.clone(), classes, &of_passes, smoothing);
    let [n_rows, n_classes] = logits.dims();
    let log_p = log_softmax(logits, 1);
    let half = |first: usize| log_p.clone().slice([first..first + n_rows / 2, 0..n_classes]);
    let [p, q] = [half(0), half(n_rows / 2)];
    // KL(p ‖ q) + KL(q ‖ p) = Σ (p − q)·(ln p − ln q).
    let divergences = (p.clone().exp() - q.clone().exp()) * (p - q);
    let divergence = match weights {
        None => divergences.sum(),
        Some(weights) => {
            let weights = TensorData::new(weights.to_vec(), [n_rows / 2, 1]);
            (divergences.sum_dim(1) * Tensor::from_data(weights, &log_p.device())).sum()
        }
    };
    plain + divergence * (0.5 * regularization.r_drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn logits() -> Tensor<2> {
        Tensor::from_floats([[1.0, 0.5, -0.5], [0.0, 2.0, 0.3], [0.8, 0.1, -0.2], [0.4, 1.0, 0.9]], &Device::flex())
    }

    fn value(logits: Tensor<2>, regularization: Regularization) -> f32 {
        let classes: Arc<[u32]> = [0, 1, 0, 1][..logits.dims()[0]].into();
        loss(logits, &classes, None, regularization).into_scalar::<f32>()
    }

    /// A weight of 2 is a row that is there twice, one of 0 a row that is not there.
    #[test]
    fn weights_are_numbers_of_rows() {
        let rows = |places: &[usize]| Tensor::cat(places.iter().map(|&place| logits().slice([place..place + 1, 0..3])).collect(), 0);
        for regularization in [Regularization { r_drop: 0.0, label_smoothing: 0.1 }, Regularization { r_drop: 3.0, label_smoothing: 0.1 }] {
            let of = |places: &[usize], classes: &[u32], weights: Option<&[f32]>| {
                loss(rows(places), &classes.into(), weights, regularization).into_scalar::<f32>()
            };
            let (weighted, counted) = match regularization.n_passes() {
                1 => (of(&[0, 1], &[0, 1], Some(&[2.0, 0.0])), of(&[0, 0], &[0, 0], None)),
                _ => (of(&[0, 1, 2, 3], &[0, 1, 0, 1], Some(&[2.0, 0.0])), of(&[0, 0, 2, 2], &[0; 4], None)),
            };
            assert!((weighted - counted).abs() < 1e-6, "{weighted} {counted}");
        }
    }

    #[test]
    fn without_a_weight_it_is_the_cross_entropy() {
        let plain = value(logits(), Regularization::default());
        let barely = value(logits(), Regularization { r_drop: 1e-9, ..Regularization::default() });
        assert!((0.5 * plain - barely).abs() < 1e-6, "two passes count as one");
    }

    #[test]
    fn passes_that_agree_cost_nothing_and_others_do() {
        let one = logits().slice([0..2, 0..3]);
        let twice = Tensor::cat(vec![one.clone(), one.clone()], 0);
        let strong = Regularization { r_drop: 7.0, label_smoothing: 0.1 };
        let alone = value(one, Regularization { r_drop: 0.0, ..strong });
        assert!((value(twice, strong) - alone).abs() < 1e-6);
        assert!(value(logits(), strong) > value(logits(), Regularization { r_drop: 1.0, ..strong }) + 0.01);
    }
}
