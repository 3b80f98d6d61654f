//! Adam on a handful of numbers, such as the weights of tasks. Source: Kingma and Ba, arXiv:1412.6980, Algorithm 1.

use burn::tensor::{Device, Tensor};
use kiln_kernels::adamw::{AdamW, adamw};
use serde::{Deserialize, Serialize};

/// What it takes to go on learning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdamState {
    step: usize,
    numbers: [Vec<f32>; 3],
}

/// Numbers that are learnt, and what Adam remembers of their gradients.
#[derive(Clone, Debug)]
pub(crate) struct Adam {
    learning_rate: f64,
    step: usize,
    device: Device,
    /// The numbers, and the first and second moments of their gradients.
    state: [Tensor<1>; 3],
}

impl Adam {
    /// `n` numbers that start at 0.
    pub(super) fn new(n: usize, learning_rate: f64, device: &Device) -> Self {
        Self { learning_rate, step: 0, device: device.clone(), state: [0, 1, 2].map(|_| Tensor::zeros([n], device)) }
    }

    pub(super) fn values(&self) -> Vec<f64> {
        let values: Vec<f32> = self.state[0].to_data().try_to_vec().expect("floats");
        values.into_iter().map(f64::from).collect()
    }

    pub(crate) fn state(&self) -> AdamState {
        AdamState { step: self.step, numbers: self.state.clone().map(|tensor| tensor.into_data().try_to_vec().expect("floats")) }
    }

    pub(crate) fn restore(&mut self, AdamState { step, numbers }: AdamState) {
        self.step = step;
        self.state = numbers.map(|numbers| Tensor::from_floats(numbers.as_slice(), &self.device));
    }

    pub(super) fn step(&mut self, gradient: &[f64]) {
        self.step += 1;
        let update = AdamW {
            learning_rate: self.learning_rate,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            step: self.step,
            gradient_scale: 1.0,
        };
        let gradient: Vec<f32> = gradient.iter().map(|&value| value as f32).collect();
        let [values, first, second] = self.state.clone();
        self.state = adamw(values, Tensor::from_floats(gradient.as_slice(), &self.device), first, second, &update);
    }
}
