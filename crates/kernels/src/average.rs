//! A moving average of a parameter, in place.
//!
//! ```text
//! a ← d·a + (1-d)·p
//! ```
//!
//! Source: Polyak and Juditsky 1992 for averages; exponential as in PyTorch's `swa_utils.get_ema_multi_avg_fn`.

use crate::host::on_host;
use crate::sweep::sweep;
use burn::tensor::Tensor;

/// Moves an average towards a parameter, in place where the caller holds its only handle; returns it.
///
/// # Shapes
/// Both tensors have the same; none is on an autodiff device.
pub fn average(average: Tensor<1>, parameter: Tensor<1>, decay: f64) -> Tensor<1> {
    if !on_host(&parameter.device()) {
        return plain(average, parameter, decay);
    }
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    let [average] = sweep(
        [average],
        parameter,
        #[inline(always)]
        |[a], p| a.iter_mut().zip(p).for_each(|(a, &p)| *a = keep * *a + take * p),
    );
    average
}

fn plain(average: Tensor<1>, parameter: Tensor<1>, decay: f64) -> Tensor<1> {
    average * decay + parameter * (1.0 - decay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_same_steps;

    #[test]
    fn sweep_matches_plain_burn_over_several_steps() {
        assert_same_steps([40_000], |[a], p| [average(a, p, 0.9)], |[a], p| [plain(a, p, 0.9)]);
    }
}
