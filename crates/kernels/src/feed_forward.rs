//! The second half of a feed-forward layer: activation and linear layer in one, so that what lies between them is not kept.
//!
//! ```text
//! y = act(u)·Wᵀ + b        gated: y = (act(g)·u)·Wᵀ + b        each as an adapter changes it, if there is one
//! ```

use crate::activation::{Activate, Activation, Gate, activate, gated};
use crate::adapter::{Adapter, linear_adapted};
use crate::chain::Chain;
use crate::host::on_host;
use crate::kernel::{Kernel, apply};
use crate::linear::{Linear, assert_shapes};
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
    adapter: Option<Adapter>,
) -> Tensor<2> {
    if !on_host(&up.device()) {
        let inner = match gate {
            Some(gate) => gated(gate, up, kind),
            None => activate(up, kind),
        };
        return linear_adapted(inner, weight, bias, adapter);
    }
    assert!(gate.as_ref().is_none_or(|gate| gate.dims() == up.dims()), "gate and up have the same shape");
    match &adapter {
        Some(adapter) => adapter.assert_shapes(&up, &weight, &bias),
        None => assert_shapes(&up, &weight, &bias, None),
    }
    let first: Box<dyn Kernel> = if gate.is_some() { Box::new(Gate(kind)) } else { Box::new(Activate(kind)) };
    let (second, factors) = match adapter {
        Some(adapter) => adapter.kernel(),
        None => (Box::new(Linear) as Box<dyn Kernel>, Vec::new()),
    };
    let n_first = if gate.is_some() { 2 } else { 1 };
    let matrices = gate.into_iter().chain([up, weight]).map(Tensor::into_dispatch).chain(factors);
    apply(Chain { first, n_first, second }, matrices.chain(bias.map(Tensor::into_dispatch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Dora;
    use crate::linear::LowRank;
    use crate::random::Key;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::TensorData;

    const KINDS: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];
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
        let adapted = |a, b| Adapter { low_rank: low_rank(a, b), dropout: None, dora: None };
        for kind in KINDS {
            assert_kernel(
                [UP, UP, WEIGHT, FACTORS[0], FACTORS[1], [1, 19]],
                1e-5,
                |[g, u, w, a, b, bias]| activated_linear(Some(g), u, kind, w, Some(bias.squeeze_dim(0)), Some(adapted(a, b))),
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
            let results = |tracked: u32, is_dora: bool, in_one: bool| {
                let leaves: [Tensor<2>; 5] = std::array::from_fn(|i| {
                    let data = TensorData::new(numbers(shapes[i].iter().product(), i as u64 + 1), shapes[i]);
                    Tensor::from_data(data, &device).set_require_grad(tracked >> i & 1 == 1)
                });
                let [g, u, w, a, b] = leaves.clone();
                let dora = is_dora
                    .then(|| Dora { magnitude: Tensor::full([WEIGHT[0]], 2.1, &device), lengths: Tensor::full([WEIGHT[0]], 1.3, &device) });
                let dropout = is_dora.then_some((0.2, Key::new(3)));
                let (kind, adapter) = (Activation::Silu, Adapter { low_rank: LowRank { a, b, scale: 1.7 }, dropout, dora });
                let y = if in_one {
                    activated_linear(Some(g), u, kind, w, None, Some(adapter))
                } else {
                    linear_adapted(gated(g, u, kind), w, None, Some(adapter))
                };
                let gradients = (y.clone() * y.clone()).sum().backward();
                (y.into_data(), leaves.map(|x| x.grad(&gradients).map(Tensor::into_data)))
            };
            for (tracked, is_dora) in (1..1 << 5).flat_map(|tracked| [(tracked, false), (tracked, true)]) {
                let (in_one, apart) = (results(tracked, is_dora, true), results(tracked, is_dora, false));
                assert_eq!(in_one, apart, "tracked {tracked:05b}, DoRA {is_dora}");
                assert!((0..5).all(|i| in_one.1[i].is_some() == (tracked >> i & 1 == 1)));
            }
        }
    }
}
