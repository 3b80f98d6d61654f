//! Stochastic gradient descent with momentum, in place.
//!
//! ```text
//! g ← c·g + λ·p     b ← μ·b + g     p ← p - η·b,   with Nesterov's look ahead   p ← p - η·(g + μ·b)
//! ```
//!
//! Source: Sutskever et al., ICML 2013, Eq. 1 to 4, in the form of PyTorch's `SGD`; without dampening.

use crate::host::on_host;
use crate::sweep::sweep;
use burn::tensor::Tensor;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// η.
    pub learning_rate: f64,
    /// μ, decay of the momentum.
    pub momentum: f64,
    /// Whether the gradient is taken where the momentum leads.
    pub nesterov: bool,
    /// λ, weight decay, as a part of the gradient.
    pub weight_decay: f64,
    /// c, the factor of the gradient: averaging and clipping in one.
    pub gradient_scale: f64,
}

impl Sgd {
    /// The factors of the gradient and the momentum in a step.
    fn direction(&self) -> [f64; 2] {
        if self.nesterov { [1.0, self.momentum] } else { [0.0, 1.0] }
    }
}

/// Updates a parameter and its momentum, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// All three tensors have the same; none is on an autodiff device.
pub fn sgd(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, update: &Sgd) -> [Tensor<1>; 2] {
    if !on_host(&parameter.device()) {
        return plain(parameter, gradient, momentum, update);
    }
    let [of_gradient, of_momentum] = update.direction().map(|factor| (factor * update.learning_rate) as f32);
    let (decay, scale, keep) = (update.weight_decay as f32, update.gradient_scale as f32, update.momentum as f32);
    sweep(
        [parameter, momentum],
        gradient,
        #[inline(always)]
        |[p, b], g| {
            for ((p, b), &g) in p.iter_mut().zip(b).zip(g) {
                let g = g * scale + decay * *p;
                *b = keep * *b + g;
                *p -= of_gradient * g + of_momentum * *b;
            }
        },
    )
}

fn plain(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, update: &Sgd) -> [Tensor<1>; 2] {
    let [of_gradient, of_momentum] = update.direction().map(|factor| factor * update.learning_rate);
    let gradient = gradient * update.gradient_scale + parameter.clone() * update.weight_decay;
    let momentum = momentum * update.momentum + gradient.clone();
    [parameter - gradient * of_gradient - momentum.clone() * of_momentum, momentum]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_same_steps;

    #[test]
    fn sweep_matches_plain_burn_over_several_steps() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let update = Sgd { learning_rate: 1e-2, momentum, nesterov, weight_decay: 0.1, gradient_scale: 0.5 };
            assert_same_steps([40_000; 2], |[p, b], g| sgd(p, g, b, &update), |[p, b], g| plain(p, g, b, &update));
        }
    }

    /// With a constant gradient the momentum is a geometric series, so that steps grow towards η·g / (1 − μ).
    #[test]
    fn momentum_adds_up() {
        let device = burn::tensor::Device::flex();
        let update = Sgd { learning_rate: 1e-2, momentum: 0.5, nesterov: false, weight_decay: 0.0, gradient_scale: 1.0 };
        let [mut p, mut b] = [0, 1].map(|_| Tensor::<1>::zeros([1], &device));
        for _ in 0..3 {
            [p, b] = sgd(p, Tensor::from_floats([2.0], &device), b, &update);
        }
        let moved: Vec<f32> = p.into_data().try_to_vec().unwrap();
        assert!((moved[0] + 1e-2 * (2.0 + 3.0 + 3.5)).abs() < 1e-7, "{moved:?}");
    }
}
