//! WiSE-FT: a point on the line from the weights before training to those after it.
//!
//! ```text
//! θ = (1 − α)·θ⁰ + α·θ¹
//! ```
//!
//! Source: Wortsman et al., arXiv:2109.01903, Eq. 1.
//! Differs from the source: nothing.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_core::parameters::{Change, change_parameters};
use std::collections::BTreeMap;

/// `(1 − alpha)·base + alpha·tuned`; exactly one of them at either end.
pub fn interpolate(base: &[f32], tuned: &[f32], alpha: f64) -> Vec<f32> {
    match alpha {
        0.0 => base.to_vec(),
        1.0 => tuned.to_vec(),
        _ => base.iter().zip(tuned).map(|(&base, &tuned)| ((1.0 - alpha) * f64::from(base) + alpha * f64::from(tuned)) as f32).collect(),
    }
}

/// The same for models of one shape, off the tape; `base` holds the weights before training by path.
pub fn between<M: Module>(base: &BTreeMap<String, Tensor<1>>, tuned: M, alpha: f64) -> M {
    struct Between<'a> {
        base: &'a BTreeMap<String, Tensor<1>>,
        alpha: f64,
    }

    impl Change for Between<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(base) = self.base.get(path) else { return param };
            let (id, tensor, mapper) = param.consume();
            let (shape, tracked) = (tensor.dims(), tensor.is_require_grad());
            let base = base.clone().reshape(shape);
            let mixed = match self.alpha {
                0.0 => base,
                1.0 => tensor.inner(),
                alpha => base * (1.0 - alpha) + tensor.inner() * alpha,
            };
            Param::from_mapped_value(id, Tensor::from_inner(mixed).set_require_grad(tracked), mapper)
        }
    }

    change_parameters(tuned, &mut Between { base, alpha })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_the_two_models_and_the_middle_their_mean() {
        let (base, tuned) = ([1.0, -0.0, 1e-30, f32::MAX], [3.0, 5.0, -1e-30, 1.0]);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&interpolate(&base, &tuned, 0.0)), bits(&base));
        assert_eq!(bits(&interpolate(&base, &tuned, 1.0)), bits(&tuned));
        assert_eq!(interpolate(&base[..2], &tuned[..2], 0.25), [1.5, 1.25]);
    }
}
