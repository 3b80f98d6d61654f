//! Laws of the losses, and their agreement with plain Burn.

use super::*;
use crate::embedding::embedding;
use crate::testing::{assert_kernel, devices, numbers};
use burn::tensor::Device;

const ROWS: usize = 7;
const CLASSES: usize = 33;
const WIDTH: usize = 12;

fn targets() -> Arc<[u32]> {
    Arc::from([4, 0, 32, 4, 17, 9, 1])
}

fn weights() -> Arc<[f32]> {
    Arc::from([0.25, 1.5, 0.125, 0.0, 2.0, -0.5, 1.0])
}

fn row(x: Tensor<2>) -> Tensor<1> {
    x.squeeze_dim(0)
}

#[test]
fn cross_entropy_matches_plain_burn() {
    let (targets, weights) = (targets(), weights());
    assert_kernel(
        [[ROWS, CLASSES]],
        1e-5,
        |[z]| cross_entropy(z * 5.0, &targets, &weights).unsqueeze(),
        |[z]| plain(z * 5.0, &targets, &weights, &HeadOptions::default()).unsqueeze(),
    );
}

/// Every option by itself, and all together.
const OPTIONS: [HeadOptions; 5] = [
    HeadOptions { temperature: 1.0, soft_cap: None, label_smoothing: 0.0 },
    HeadOptions { temperature: 0.7, soft_cap: None, label_smoothing: 0.0 },
    HeadOptions { temperature: 1.0, soft_cap: Some(2.5), label_smoothing: 0.0 },
    HeadOptions { temperature: 1.0, soft_cap: None, label_smoothing: 0.1 },
    HeadOptions { temperature: 1.6, soft_cap: Some(3.5), label_smoothing: 0.2 },
];

#[test]
fn head_matches_plain_burn() {
    let (targets, weights) = (targets(), weights());
    let (hidden, head, bias) = ([ROWS, WIDTH], [CLASSES, WIDTH], [1, CLASSES]);
    for options in OPTIONS {
        assert_kernel(
            [hidden, head],
            1e-5,
            |[h, w]| head_cross_entropy(h, w * 3.0, None, &targets, &weights, options).unsqueeze(),
            |[h, w]| plain(plain_linear(h, w * 3.0, None), &targets, &weights, &options).unsqueeze(),
        );
        assert_kernel(
            [hidden, head, bias],
            1e-5,
            |[h, w, b]| head_cross_entropy(h, w, Some(row(b)), &targets, &weights, options).unsqueeze(),
            |[h, w, b]| plain(plain_linear(h, w, Some(row(b))), &targets, &weights, &options).unsqueeze(),
        );
    }
}

#[test]
fn log_probabilities_and_entropies_match_plain_burn() {
    let targets = targets();
    let (hidden, head, bias) = ([ROWS, WIDTH], [CLASSES, WIDTH], [1, CLASSES]);
    for options in OPTIONS {
        assert_kernel(
            [hidden, head],
            1e-5,
            |[h, w]| head_log_probabilities(h, w * 3.0, None, &targets, options),
            |[h, w]| plain_with_entropy(plain_linear(h, w * 3.0, None), &targets, &options),
        );
        assert_kernel(
            [hidden, head, bias],
            1e-5,
            |[h, w, b]| head_log_probabilities(h, w, Some(row(b)), &targets, options),
            |[h, w, b]| plain_with_entropy(plain_linear(h, w, Some(row(b))), &targets, &options),
        );
    }
}

/// A sum of log-probabilities is a cross-entropy, so their gradients are one.
#[test]
fn summed_log_probabilities_are_the_loss() {
    let ones: Arc<[f32]> = vec![1.0; ROWS].into();
    for device in devices() {
        let gradients = |of: &dyn Fn(Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<1>| {
            let (hidden, head, bias) = leaves(0b111, &device);
            let loss = of(hidden.clone(), head.clone(), bias.clone());
            let gradients = loss.backward();
            let [of_hidden, of_head] = [hidden, head].map(|x| x.grad(&gradients).expect("a gradient").into_data());
            [loss.into_data(), of_hidden, of_head, bias.grad(&gradients).expect("a gradient").into_data()]
        };
        for options in OPTIONS.into_iter().filter(|options| options.label_smoothing == 0.0) {
            let fused = gradients(&|h, w, b| head_cross_entropy(h, w, Some(b), &targets(), &ones, options));
            let summed =
                gradients(&|h, w, b| head_log_probabilities(h, w, Some(b), &targets(), options).slice([0..ROWS, 0..1]).sum().neg());
            for (fused, summed) in fused.iter().zip(&summed) {
                fused.assert_approx_eq::<f32>(summed, Default::default());
            }
        }
    }
}

#[test]
fn a_tied_head_adds_its_gradient_to_the_embedding() {
    let (targets, weights) = (targets(), weights());
    let ids: Arc<[u32]> = Arc::from([3, 3, 0, 8, 31, 4, 2]);
    assert_kernel(
        [[CLASSES, WIDTH]],
        1e-5,
        |[w]| head_cross_entropy(embedding(w.clone(), &ids), w, None, &targets, &weights, HeadOptions::default()).unsqueeze(),
        |[w]| {
            let indices = Tensor::<1, Int>::from_data(TensorData::from([3, 3, 0, 8, 31, 4, 2]), &w.device());
            plain(plain_linear(w.clone().select(0, indices), w, None), &targets, &weights, &HeadOptions::default()).unsqueeze()
        },
    );
}

/// Hidden states, head and bias, each tracked or not.
fn leaves(tracked: u32, device: &Device) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    let device = device.clone().autodiff();
    let of = |shape: [usize; 2], i: u32| {
        let data = TensorData::new(numbers(shape[0] * shape[1], u64::from(i) + 1), shape);
        Tensor::<2>::from_data(data, &device)
    };
    let bias: Tensor<1> = row(of([1, CLASSES], 2));
    (
        of([ROWS, WIDTH], 0).set_require_grad(tracked & 1 != 0),
        of([CLASSES, WIDTH], 1).set_require_grad(tracked & 2 != 0),
        bias.set_require_grad(tracked & 4 != 0),
    )
}

/// A value and its gradients of hidden states, head and bias.
type Outcome = (TensorData, [Option<TensorData>; 3]);

fn outcome<const D: usize>(kernel: impl Kernel, tracked: u32, device: &Device) -> Outcome {
    let (hidden, head, bias) = leaves(tracked, device);
    let inputs = [hidden.clone().into_dispatch(), head.clone().into_dispatch(), bias.clone().into_dispatch()];
    let value: Tensor<D> = apply(kernel, inputs);
    let gradients = (value.clone() * value.clone() * 3.0).sum().backward();
    let data = |x: Tensor<2>| x.into_data();
    let gradients = [hidden.grad(&gradients).map(data), head.grad(&gradients).map(data), bias.grad(&gradients).map(Tensor::into_data)];
    (value.into_data(), gradients)
}

/// What both kernels of the head give when they hold `chunk_rows` rows of logits at a time.
fn outcomes(tracked: u32, chunk_rows: usize, device: &Device) -> [Outcome; 2] {
    let (options, chunk_logits) = (OPTIONS[4], chunk_rows * CLASSES);
    let loss = HeadCrossEntropy { targets: targets(), weights: weights(), options, chunk_logits };
    let log_probabilities = HeadLogProbabilities { targets: targets(), options, chunk_logits };
    [outcome::<1>(loss, tracked, device), outcome::<2>(log_probabilities, tracked, device)]
}

#[test]
fn frozen_operands_leave_the_other_gradients_alone() {
    for device in devices() {
        let all = outcomes(0b111, ROWS, &device);
        for tracked in 1..0b111 {
            for ((value, gradients), (same_value, all)) in outcomes(tracked, ROWS, &device).into_iter().zip(&all) {
                assert_eq!(value, *same_value);
                for (i, gradient) in gradients.into_iter().enumerate() {
                    assert_eq!(gradient, if tracked >> i & 1 == 1 { all[i].clone() } else { None }, "input {i}, tracked {tracked:03b}");
                }
            }
        }
        let (hidden, head, bias) = leaves(0, &device);
        let without_gradient = head_cross_entropy(hidden.clone(), head.clone(), Some(bias.clone()), &targets(), &weights(), OPTIONS[4]);
        without_gradient.into_data().assert_eq(&all[0].0, true);
        head_log_probabilities(hidden, head, Some(bias), &targets(), OPTIONS[4]).into_data().assert_eq(&all[1].0, true);
    }
}

#[test]
fn chunks_change_nothing_beyond_rounding() {
    for device in devices() {
        let whole = outcomes(0b111, ROWS, &device);
        for chunk_rows in [1, 3, 4] {
            for ((value, gradients), (whole_value, whole)) in outcomes(0b111, chunk_rows, &device).iter().zip(&whole) {
                value.assert_approx_eq::<f32>(whole_value, Default::default());
                for (chunked, whole) in gradients.iter().zip(whole) {
                    let (chunked, whole) = (chunked.as_ref().expect("tracked"), whole.as_ref().expect("tracked"));
                    chunked.assert_approx_eq::<f32>(whole, Default::default());
                }
            }
        }
    }
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| outcomes(0b111, 3, &devices()[0]))
    };
    assert_eq!(on(1), on(2));
    assert_eq!(on(1), on(4));
}

#[test]
fn uniform_logits_cost_the_logarithm_of_the_classes() {
    let classes = 50_257;
    for device in devices() {
        for level in [0.0, -300.0, 4e4] {
            let logits = Tensor::<2>::full([2, classes], level, &device);
            let loss = cross_entropy(logits, &Arc::from([0, 50_256]), &Arc::from([1.0, 0.5]));
            let expected = TensorData::from([1.5 * (classes as f32).ln()]);
            loss.into_data().assert_approx_eq::<f32>(&expected, Default::default());
        }
    }
}

#[test]
fn uniform_logits_have_the_largest_entropy() {
    let classes = 50_257;
    for device in devices() {
        let (hidden, head) = (Tensor::<2>::zeros([2, 3], &device), Tensor::<2>::ones([classes, 3], &device));
        let found = head_log_probabilities(hidden, head, None, &Arc::from([0, 50_256]), HeadOptions::default());
        let nats = (classes as f32).ln();
        found.into_data().assert_approx_eq::<f32>(&TensorData::from([[-nats, nats], [-nats, nats]]), Default::default());
    }
}

#[test]
fn no_rows_cost_nothing() {
    for device in devices() {
        let (hidden, head) = (Tensor::<2>::ones([0, WIDTH], &device), Tensor::<2>::ones([CLASSES, WIDTH], &device));
        let loss = head_cross_entropy(hidden, head, None, &Arc::from([]), &Arc::from([]), HeadOptions::default());
        loss.into_data().assert_eq(&TensorData::from([0.0f32]), true);
    }
}

#[test]
#[should_panic(expected = "target 33 is outside 33 classes")]
fn targets_outside_the_classes_are_refused() {
    cross_entropy(Tensor::ones([1, CLASSES], &devices()[0]), &Arc::from([33]), &Arc::from([1.0]));
}
