//! The output head's loss, log-probabilities and entropies, and pooling, against PyTorch.

use crate::support::{Golden, SIMPLE, assert_close, devices, fixture, values};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::cross_entropy::{HeadOptions, head_cross_entropy, head_log_probabilities};
use kiln_kernels::embedding::embedding;
use kiln_kernels::pool::{Pooling, normalize_l2, pool};
use kiln_kernels::segments::Segments;
use std::sync::Arc;

fn golden() -> Golden {
    Golden::open(&fixture("head").join("golden.safetensors"))
}

fn floats(golden: &Golden, name: &str) -> Vec<f32> {
    golden.get(name).values.iter().map(|&value| value as f32).collect()
}

fn ids(golden: &Golden, name: &str) -> Arc<[u32]> {
    golden.get(name).values.iter().map(|&value| value as u32).collect()
}

fn matrix(golden: &Golden, name: &str, device: &Device) -> Tensor<2> {
    let shape = &golden.get(name).shape;
    Tensor::from_data(TensorData::new(floats(golden, name), [shape[0], shape[1]]), device)
}

fn options() -> [(&'static str, HeadOptions); 5] {
    let default = HeadOptions::default();
    [
        ("default", default),
        ("temperature", HeadOptions { temperature: 0.7, ..default }),
        ("soft_cap", HeadOptions { soft_cap: Some(3.0), ..default }),
        ("smoothing", HeadOptions { label_smoothing: 0.15, ..default }),
        ("all", HeadOptions { temperature: 1.4, soft_cap: Some(2.5), label_smoothing: 0.1 }),
    ]
}

/// The leaves hidden, weight and bias, and what reaches the head: with a tied table, the embeddings of some ids too.
fn head(golden: &Golden, tied: bool, device: &Device) -> (Tensor<2>, Tensor<2>, Tensor<1>, Tensor<2>) {
    let [hidden, weight] = ["hidden", "weight"].map(|name| matrix(golden, name, device).require_grad());
    let bias = Tensor::<1>::from_floats(floats(golden, "bias").as_slice(), device).require_grad();
    let states = if tied { hidden.clone() + embedding(weight.clone(), &ids(golden, "ids")) } else { hidden.clone() };
    (hidden, weight, bias, states)
}

fn for_every_case(kind: &str, outcome: impl Fn(&Golden, &str, HeadOptions, Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<1>) {
    let golden = golden();
    for device in devices() {
        for (name, options) in options() {
            for tied in [false, true] {
                let name = format!("{name}{}", if tied { ".tied" } else { "" });
                let (hidden, weight, bias, states) = head(&golden, tied, &device.clone().autodiff());
                let gradients = outcome(&golden, &name, options, states, weight.clone(), bias.clone()).backward();
                let expected = |leaf: &str| &golden.get(&format!("{name}.{kind}.grad.{leaf}")).values;
                for (leaf, tensor) in [("hidden", hidden), ("weight", weight)] {
                    let gradient = tensor.grad(&gradients).expect("a gradient");
                    assert_close(&format!("{name}: {kind}: gradient of {leaf}"), &values(gradient), expected(leaf), SIMPLE);
                }
                let gradient = bias.grad(&gradients).expect("a gradient");
                assert_close(&format!("{name}: {kind}: gradient of bias"), &values(gradient), expected("bias"), SIMPLE);
            }
        }
    }
}

#[test]
fn the_loss_of_the_head() {
    for_every_case("loss", |golden, name, options, states, weight, bias| {
        let weights: Arc<[f32]> = floats(golden, "weights").into();
        let loss = head_cross_entropy(states, weight, Some(bias), &ids(golden, "targets"), &weights, options);
        assert_close(&format!("{name}: loss"), &values(loss.clone()), &golden.get(&format!("{name}.loss")).values, SIMPLE);
        loss
    });
}

#[test]
fn log_probabilities_and_entropies_of_the_head() {
    for_every_case("log_probability", |golden, name, options, states, weight, bias| {
        let device = states.device();
        let out = head_log_probabilities(states, weight, Some(bias), &ids(golden, "targets"), options);
        let columns = [("log_probability", "by_log_probability"), ("entropy", "by_entropy")].into_iter().enumerate();
        let weighted = columns.map(|(index, (column, by))| {
            let found = out.clone().slice([0..out.dims()[0], index..index + 1]).squeeze_dim::<1>(1);
            assert_close(&format!("{name}: {column}"), &values(found.clone()), &golden.get(&format!("{name}.{column}")).values, SIMPLE);
            (found * Tensor::<1>::from_floats(floats(golden, by).as_slice(), &device)).sum()
        });
        weighted.reduce(|sum, column| sum + column).expect("two columns")
    });
}

#[test]
fn pooling_and_normalisation() {
    let golden = golden();
    let segments = Segments::from_lengths([3, 1, 5]);
    for device in devices() {
        let device = device.autodiff();
        for (name, kind) in [("mean", Pooling::Mean), ("max", Pooling::Max), ("cls", Pooling::Cls), ("last", Pooling::Last)] {
            for normalized in [false, true] {
                let name = format!("pool.{name}{}", if normalized { ".normalized" } else { "" });
                let x = matrix(&golden, "pool.x", &device).require_grad();
                let pooled = pool(x.clone(), &segments, kind);
                let out = if normalized { normalize_l2(pooled) } else { pooled };
                assert_close(&name, &values(out.clone()), &golden.get(&name).values, SIMPLE);
                let gradients = (out * matrix(&golden, "pool.upstream", &device)).sum().backward();
                let gradient = x.grad(&gradients).expect("a gradient");
                assert_close(&format!("{name}: gradient"), &values(gradient), &golden.get(&format!("{name}.grad")).values, SIMPLE);
            }
        }
    }
}
