//! The loss of two passes and its gradient, on logits that both sides make from a formula.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, bits, devices, fixture, uniform, values};
use burn::tensor::{Tensor, TensorData};
use kiln_sft::objective::r_drop::{Regularization, loss};
use std::sync::Arc;

const N_ROWS: usize = 7;
const N_CLASSES: usize = 5;

#[test]
fn losses_and_gradients() {
    let golden = Golden::open(&fixture("r_drop").join("golden.safetensors"));
    let logits = ["logits.0", "logits.1"].map(|name| uniform(name, N_ROWS * N_CLASSES, 3.0)).concat();
    let classes: Vec<u32> = bits("classes").take(N_ROWS).map(|bits| (bits % N_CLASSES as u64) as u32).collect();
    let classes: Arc<[u32]> = classes.repeat(2).into();
    for device in devices() {
        for (name, r_drop, label_smoothing) in [("plain", 0.5, 0.0), ("smooth", 4.0, 0.1)] {
            let data = TensorData::new(logits.clone(), [2 * N_ROWS, N_CLASSES]);
            let logits = Tensor::<2>::from_data(data, &device.clone().autodiff()).require_grad();
            let total = loss(logits.clone(), &classes, None, Regularization { r_drop, label_smoothing });
            let gradients = total.backward();
            let gradient = values(logits.grad(&gradients).expect("a gradient"));
            assert_close(name, &values(total), &golden.get(&format!("{name}.loss")).values, COMPOSED);
            assert_close(name, &gradient, &golden.get(&format!("{name}.gradient")).values, SIMPLE);
        }
    }
}
