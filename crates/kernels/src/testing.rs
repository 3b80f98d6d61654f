//! The test every kernel passes: same value and same gradients as its plain-Burn path, which in turn matches finite differences in f64.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Reproducible numbers in [-1, 1).
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Every CPU device of this build.
#[allow(deprecated)]
pub(crate) fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

fn tensor(data: &[f64], shape: [usize; 2], dtype: DType, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), (device, dtype))
}

fn values(tensor: Tensor<2>) -> Vec<f64> {
    tensor.inner().into_data().convert::<f64>().try_to_vec().expect("a float tensor")
}

fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    for (index, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * e.abs().max(1.0), "{what}[{index}]: got {g}, expected {e}");
    }
}

/// Runs `fast` in f32 on every CPU device and `plain` in f64 on Flex over inputs of the given `[rows, width]` shapes; compares value and
/// gradients with relative `tolerance`, and the plain gradients with central differences.
pub(crate) fn assert_kernel<const N: usize>(
    shapes: [[usize; 2]; N],
    tolerance: f64,
    fast: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let inputs: [Vec<f64>; N] =
        std::array::from_fn(|i| numbers(shapes[i][0] * shapes[i][1], i as u64 + 1).into_iter().map(f64::from).collect());
    let leaves = |dtype, device: &Device| -> [Tensor<2>; N] {
        std::array::from_fn(|i| tensor(&inputs[i], shapes[i], dtype, &device.clone().autodiff()).require_grad())
    };

    let reference = Device::flex();
    let exact = leaves(DType::F64, &reference);
    let output = plain(exact.clone());
    let shape = output.dims();
    let weights: Vec<f64> = numbers(shape[0] * shape[1], 99).into_iter().map(f64::from).collect();
    let weigh = |output: Tensor<2>, dtype, device: &Device| (output * tensor(&weights, shape, dtype, device)).sum();
    let gradients = weigh(output.clone(), DType::F64, &reference).backward();
    let expected: Vec<Vec<f64>> = exact.iter().map(|x| values(x.grad(&gradients).expect("a gradient reaches every input"))).collect();
    let expected_output = values(output);

    for i in 0..N {
        let count = inputs[i].len();
        for element in (0..count).step_by((count / 7).max(1)) {
            let loss_at = |shift: f64| {
                let moved: [Tensor<2>; N] = std::array::from_fn(|j| {
                    let mut data = inputs[j].clone();
                    if i == j {
                        data[element] += shift;
                    }
                    tensor(&data, shapes[j], DType::F64, &reference)
                });
                weigh(plain(moved), DType::F64, &reference).into_scalar::<f64>()
            };
            let slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
            assert_close(&[expected[i][element]], &[slope], 1e-6, &format!("plain gradient of input {i} against finite differences"));
        }
    }

    for device in devices() {
        let approximate = leaves(DType::F32, &device);
        let output = fast(approximate.clone());
        assert_eq!(output.dims(), shape);
        assert_close(&values(output.clone()), &expected_output, tolerance, &format!("value on {device:?}"));
        let gradients = weigh(output, DType::F32, &device).backward();
        for (i, x) in approximate.iter().enumerate() {
            let got = values(x.grad(&gradients).expect("a gradient reaches every input"));
            assert_close(&got, &expected[i], tolerance, &format!("gradient of input {i} on {device:?}"));
        }
    }
}

/// Takes five steps of an update of `N` tensors, the first of them random and the others 0, by random gradients: `fast` and `plain` must
/// agree on every CPU device. The tensors have so many elements.
pub(crate) fn assert_same_steps<const N: usize>(
    elements: [usize; N],
    mut fast: impl FnMut([Tensor<1>; N], Tensor<1>) -> [Tensor<1>; N],
    mut plain: impl FnMut([Tensor<1>; N], Tensor<1>) -> [Tensor<1>; N],
) {
    for device in devices() {
        let vector = |n, seed| Tensor::<1>::from_floats(numbers(n, seed).as_slice(), &device);
        let start = || -> [Tensor<1>; N] {
            std::array::from_fn(|i| if i == 0 { vector(elements[0], 1) } else { Tensor::zeros([elements[i]], &device) })
        };
        let (mut found, mut expected) = (start(), start());
        for step in 0..5 {
            let gradient = || vector(elements[0], step + 10);
            (found, expected) = (fast(found, gradient()), plain(expected, gradient()));
        }
        for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            let apart = (found - expected).abs().max().into_scalar::<f32>();
            assert!(apart < 2e-6, "tensor {index} on {device:?}: {apart:e} apart");
        }
    }
}
