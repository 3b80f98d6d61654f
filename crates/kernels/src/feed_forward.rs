//! The second half of a feed-forward layer: activation and linear layer in one, so that what lies between them is not kept.
//!
//! ```text
//! y = act(u)·Wᵀ + b        gated: y = (act(g)·u)·Wᵀ + b        each with s·(…·Aᵀ)·Bᵀ on top with a low-rank adapter
//! ```

use crate::activation::{Activate, Activation, Gate, activate, gated};
use crate::chain::Chain;
use crate::host::on_host;
use crate::kernel::{Kernel, apply};
use crate::linear::{Linear, LinearLowRank, LowRank, assert_shapes, linear, linear_low_rank};
use burn::tensor::Tensor;

/// `act(up)·Wᵀ + b`, or with a gate `(act(gate)·up)·Wᵀ + b`; an adapter acts on the same product.
///
/// # Shapes
/// `gate`, `up`: `[tokens, inner width]`; `weight`: `[width, inner width]`; `bias`: `[width]`; the output: `[tokens, width]`.
pub fn activated_linear(
    gate: Option<Tensor<2>>,
    up: Tensor<2>,
    kind: Activation,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    adapter: Option<LowRank>,
) -> Tensor<2> {
    if !on_host(&up.device()) {
        let inner = match gate {
            Some(gate) => gated(gate, up, kind),
            None => activate(up, kind),
        };
        return match adapter {
            Some(adapter) => linear_low_rank(inner, weight, bias, adapter),
            None => linear(inner, weight, bias),
        };
    }
    assert!(gate.as_ref().is_none_or(|gate| gate.dims() == up.dims()), "gate and up have the same shape");
    assert_shapes(&up, &weight, &bias, adapter.as_ref());
    let first: Box<dyn Kernel> = if gate.is_some() { Box::new(Gate(kind)) } else { Box::new(Activate(kind)) };
    let second: Box<dyn Kernel> = match &adapter {
        Some(adapter) => Box::new(LinearLowRank { scale: adapter.scale }),
        None => Box::new(Linear),
    };
    let n_first = if gate.is_some() { 2 } else { 1 };
    let factors = adapter.into_iter().flat_map(|adapter| [adapter.a, adapter.b]);
    let matrices = gate.into_iter().chain([up, weight]).chain(factors).map(Tensor::into_dispatch);
    apply(Chain { first, n_first, second }, matrices.chain(bias.map(Tensor::into_dispatch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::TensorData;

    const KINDS: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];
    const UP: [usize; 2] = [7, 33];
    const WEIGHT: [usize; 2] = [19, 33];
    const FACTORS: [[usize; 2]; 2] = [[4, 33], [19, 4]];

    fn plain(gate: Option<Tensor<2>>, up: Tensor<2>, kind: Activation) -> Tensor<2> {
        let plain = crate::activation::plain;
        match gate {
            Some(gate) => plain(gate, kind) * up,
            None => plain(up, kind),
        }
    }

    #[test]
    fn it_matches_plain_burn() {
        let linear = crate::linear::plain;
        for kind in KINDS {
            assert_kernel(
                [UP, WEIGHT, [1, 19]],
                1e-5,
                |[u, w, b]| activated_linear(None, u, kind, w, Some(b.squeeze_dim(0)), None),
                |[u, w, b]| linear(plain(None, u, kind), w, Some(b.squeeze_dim(0))),
            );
            assert_kernel(
                [UP, UP, WEIGHT],
                1e-5,
                |[g, u, w]| activated_linear(Some(g), u, kind, w, None, None),
                |[g, u, w]| linear(plain(Some(g), u, kind), w, None),
            );
        }
    }

    #[test]
    fn it_matches_plain_burn_with_an_adapter() {
        let low_rank = |a, b| LowRank { a, b, scale: 1.7 };
        for kind in KINDS {
            assert_kernel(
                [UP, UP, WEIGHT, FACTORS[0], FACTORS[1], [1, 19]],
                1e-5,
                |[g, u, w, a, b, bias]| activated_linear(Some(g), u, kind, w, Some(bias.squeeze_dim(0)), Some(low_rank(a, b))),
                |[g, u, w, a, b, bias]| {
                    crate::linear::plain_low_rank(plain(Some(g), u, kind), w, Some(bias.squeeze_dim(0)), low_rank(a, b))
                },
            );
        }
    }

    /// Whatever is frozen, the bytes are those of the two operations one after the other.
    #[test]
    fn it_is_the_two_operations_in_one() {
        let shapes = [UP, UP, WEIGHT, FACTORS[0], FACTORS[1]];
        for device in devices() {
            let device = device.autodiff();
            let results = |tracked: u32, in_one: bool| {
                let leaves: [Tensor<2>; 5] = std::array::from_fn(|i| {
                    let data = TensorData::new(numbers(shapes[i].iter().product(), i as u64 + 1), shapes[i]);
                    Tensor::from_data(data, &device).set_require_grad(tracked >> i & 1 == 1)
                });
                let [g, u, w, a, b] = leaves.clone();
                let (kind, adapter) = (Activation::Silu, LowRank { a, b, scale: 1.7 });
                let y = if in_one {
                    activated_linear(Some(g), u, kind, w, None, Some(adapter))
                } else {
                    linear_low_rank(gated(g, u, kind), w, None, adapter)
                };
                let gradients = (y.clone() * y.clone()).sum().backward();
                (y.into_data(), leaves.map(|x| x.grad(&gradients).map(Tensor::into_data)))
            };
            for tracked in 1..1 << 5 {
                let (in_one, apart) = (results(tracked, true), results(tracked, false));
                assert_eq!(in_one, apart, "tracked {tracked:05b}");
                assert!((0..5).all(|i| in_one.1[i].is_some() == (tracked >> i & 1 == 1)));
            }
        }
    }
}
