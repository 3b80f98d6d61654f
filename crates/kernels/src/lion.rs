//! Lion in place: a step of the same size for every element, in the direction that the momentum and the gradient agree on.
//!
//! ```text
//! g ← c·g     p ← p - η·(sign(β₁·m + (1-β₁)·g) + λ·p)     m ← β₂·m + (1-β₂)·g
//! ```
//!
//! Source: Chen et al., arXiv:2302.06675, Algorithm 2.

use crate::host::on_host;
use crate::sweep::sweep;
use burn::tensor::Tensor;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// η.
    pub learning_rate: f64,
    /// β₁, how much the momentum counts in the direction.
    pub beta_1: f64,
    /// β₂, decay of the momentum.
    pub beta_2: f64,
    /// λ, decoupled weight decay.
    pub weight_decay: f64,
    /// c, the factor of the gradient: averaging and clipping in one.
    pub gradient_scale: f64,
}

/// -1, 0 or 1: unlike `f32::signum`, nothing moves without a direction.
#[inline(always)]
fn sign(x: f32) -> f32 {
    f32::from(u8::from(x > 0.0)) - f32::from(u8::from(x < 0.0))
}

/// Updates a parameter and its momentum, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// All three tensors have the same; none is on an autodiff device.
pub fn lion(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, update: &Lion) -> [Tensor<1>; 2] {
    if !on_host(&parameter.device()) {
        return plain(parameter, gradient, momentum, update);
    }
    let keep = (1.0 - update.learning_rate * update.weight_decay) as f32;
    let (rate, scale) = (update.learning_rate as f32, update.gradient_scale as f32);
    let (beta_1, beta_2) = (update.beta_1 as f32, update.beta_2 as f32);
    sweep(
        [parameter, momentum],
        gradient,
        #[inline(always)]
        |[p, m], g| {
            for ((p, m), &g) in p.iter_mut().zip(m).zip(g) {
                let g = g * scale;
                *p = keep * *p - rate * sign(beta_1 * *m + (1.0 - beta_1) * g);
                *m = beta_2 * *m + (1.0 - beta_2) * g;
            }
        },
    )
}

fn plain(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, update: &Lion) -> [Tensor<1>; 2] {
    let gradient = gradient * update.gradient_scale;
    let direction = (momentum.clone() * update.beta_1 + gradient.clone() * (1.0 - update.beta_1)).sign();
    let parameter = parameter * (1.0 - update.learning_rate * update.weight_decay) - direction * update.learning_rate;
    [parameter, momentum * update.beta_2 + gradient * (1.0 - update.beta_2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_steps, devices};

    const UPDATE: Lion = Lion { learning_rate: 1e-2, beta_1: 0.9, beta_2: 0.99, weight_decay: 0.1, gradient_scale: 0.5 };

    #[test]
    fn sweep_matches_plain_burn_over_several_steps() {
        assert_same_steps([40_000; 2], |[p, m], g| lion(p, g, m, &UPDATE), |[p, m], g| plain(p, g, m, &UPDATE));
    }

    #[test]
    fn every_element_moves_by_the_learning_rate_or_not_at_all() {
        for device in devices() {
            let vector = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device);
            let update = Lion { weight_decay: 0.0, ..UPDATE };
            let [p, _] = lion(vector([1.0; 4]), vector([3.0, -1e-20, 0.0, 2.0]), vector([0.0, 0.0, 0.0, -1.0]), &update);
            let moved: Vec<f32> = p.into_data().try_to_vec().unwrap();
            assert_eq!(moved, [0.99, 1.01, 1.0, 1.01], "the last follows its momentum");
        }
    }
}
