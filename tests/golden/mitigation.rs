//! The weights, losses and gradients of reweighing and of group DRO, on logits that both sides make from a formula.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, bits, devices, fixture, uniform, values};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_sft::objective::r_drop::{Regularization, loss};
use kiln_sft::objective::{group_dro, reweighing};
use kiln_train::evaluate::cross_entropies;
use std::sync::Arc;

const N_ROWS: usize = 12;
const N_GROUPS: usize = 2;
const N_CLASSES: usize = 3;
const N_STEPS: usize = 4;
const STEP_SIZE: f64 = 0.3;
const ADJUSTMENT: f64 = 2.0;

fn drawn(name: &str, below: usize) -> Vec<usize> {
    bits(name).take(N_ROWS).map(|bits| (bits % below as u64) as usize).collect()
}

fn logits(step: usize, device: &Device) -> Tensor<2> {
    let data = TensorData::new(uniform(&format!("logits.{step}"), N_ROWS * N_CLASSES, 3.0), [N_ROWS, N_CLASSES]);
    Tensor::from_data(data, &device.clone().autodiff()).require_grad()
}

/// The classes as the loss takes them, and the cell of each row.
fn rows() -> (Vec<u32>, Vec<usize>) {
    let (groups, classes) = (drawn("groups", N_GROUPS), drawn("classes", N_CLASSES));
    let cells = groups.iter().zip(&classes).map(|(group, class)| group * N_CLASSES + class).collect();
    (classes.into_iter().map(|class| class as u32).collect(), cells)
}

#[test]
fn reweighed_losses() {
    let golden = Golden::open(&fixture("mitigation").join("golden.safetensors"));
    let (classes, cells) = rows();
    let mut counts = vec![0; N_GROUPS * N_CLASSES];
    cells.iter().for_each(|&cell| counts[cell] += 1);
    let of_cells = reweighing::weights(&counts, N_CLASSES);
    let weights: Vec<f32> = cells.iter().map(|&cell| of_cells[cell] as f32).collect();
    assert_close("weights", &weights, &golden.get("reweighing.weights").values, SIMPLE);
    let classes: Arc<[u32]> = classes.into();
    for device in devices() {
        let logits = logits(0, &device);
        let mean = loss(logits.clone(), &classes, Some(&weights), Regularization::default()) / weights.iter().sum::<f32>();
        let gradient = values(logits.grad(&mean.backward()).expect("a gradient"));
        assert_close("loss", &values(mean), &golden.get("reweighing.loss").values, SIMPLE);
        assert_close("gradient", &gradient, &golden.get("reweighing.gradient").values, SIMPLE);
    }
}

#[test]
fn steps_of_group_dro() {
    let golden = Golden::open(&fixture("mitigation").join("golden.safetensors"));
    let (classes, cells) = rows();
    let mut counts = vec![0; N_GROUPS * N_CLASSES];
    cells.iter().for_each(|&cell| counts[cell] += 1);
    for (device, adjustment) in devices().into_iter().flat_map(|device| [(device.clone(), 0.0), (device, ADJUSTMENT)]) {
        let mut weights = vec![1.0 / (N_GROUPS * N_CLASSES) as f64; N_GROUPS * N_CLASSES];
        for step in 0..N_STEPS {
            let all = logits(step, &device);
            let places: Vec<usize> = (step..N_ROWS).step_by(1 + step % 2).collect();
            let batch = Tensor::cat(places.iter().map(|&place| all.clone().slice([place..place + 1, 0..N_CLASSES])).collect(), 0);
            let labels: Vec<u32> = places.iter().map(|&place| classes[place]).collect();
            let groups: Vec<usize> = places.iter().map(|&place| cells[place]).collect();
            let losses: Vec<f64> = cross_entropies(batch.clone().inner(), &labels).into_iter().map(|(_, loss)| loss).collect();
            let of_rows = group_dro::step(&mut weights, &losses, &groups, STEP_SIZE, &group_dro::adjustments(&counts, adjustment));
            let robust = loss(batch, &labels.into(), Some(&of_rows), Regularization::default());
            let gradient = values(all.grad(&robust.backward()).expect("a gradient"));
            let of = |what: &str| {
                golden.get(&format!("group_dro.{}.{step}.{what}", if adjustment > 0.0 { "adjusted" } else { "plain" })).values.clone()
            };
            assert_close("weights", &weights.iter().map(|&weight| weight as f32).collect::<Vec<_>>(), &of("weights"), SIMPLE);
            assert_close("loss", &values(robust), &of("loss"), COMPOSED);
            assert_close("gradient", &gradient, &of("gradient"), SIMPLE);
        }
    }
}
