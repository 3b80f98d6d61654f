//! AdamW in place, one sweep over parameter, gradient and moments; and the squared norm that clipping needs.
//!
//! ```text
//! g ← c·g     p ← p - η·λ·p     m ← β₁·m + (1-β₁)·g     v ← β₂·v + (1-β₂)·g²     p ← p - η·(m / (1-β₁ᵗ)) / (√(v / (1-β₂ᵗ)) + ε)
//! ```
//!
//! Source: Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2; constants and order as in PyTorch's `AdamW`.

use crate::host::{on_host, read};
use crate::math::simd;
use crate::sweep::{CHUNK, sweep};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// η.
    pub learning_rate: f64,
    /// β₁, decay of the mean gradient.
    pub beta_1: f64,
    /// β₂, decay of the mean squared gradient.
    pub beta_2: f64,
    /// ε, added to the root.
    pub epsilon: f64,
    /// λ, decoupled weight decay.
    pub weight_decay: f64,
    /// t, updates including this one.
    pub step: usize,
    /// c, the factor of the gradient: averaging and clipping in one.
    pub gradient_scale: f64,
}

/// The same numbers as the sweep uses them.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    beta_1: f32,
    beta_2: f32,
    scale: f32,
    step_size: f32,
    root_scale: f32,
    epsilon: f32,
}

impl AdamW {
    fn factors(&self) -> Factors {
        let correction = |beta: f64| 1.0 - beta.powi(self.step as i32);
        Factors {
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
            beta_1: self.beta_1 as f32,
            beta_2: self.beta_2 as f32,
            scale: self.gradient_scale as f32,
            step_size: (self.learning_rate / correction(self.beta_1)) as f32,
            root_scale: correction(self.beta_2).sqrt().recip() as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

#[inline(always)]
fn step(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], f: Factors) {
    for (((p, &g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
        let g = g * f.scale;
        *m = f.beta_1 * *m + (1.0 - f.beta_1) * g;
        *v = f.beta_2 * *v + (1.0 - f.beta_2) * g * g;
        *p = f.keep * *p - f.step_size * *m / (v.sqrt() * f.root_scale + f.epsilon);
    }
}

/// Updates a parameter and its two moments, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// All four tensors have the same; none is on an autodiff device.
pub fn adamw(parameter: Tensor<1>, gradient: Tensor<1>, first: Tensor<1>, second: Tensor<1>, update: &AdamW) -> [Tensor<1>; 3] {
    if !on_host(&parameter.device()) {
        return plain(parameter, gradient, first, second, update);
    }
    let factors = update.factors();
    sweep(
        [parameter, first, second],
        gradient,
        #[inline(always)]
        |[p, m, v], g| step(p, g, m, v, factors),
    )
}

fn plain(parameter: Tensor<1>, gradient: Tensor<1>, first: Tensor<1>, second: Tensor<1>, update: &AdamW) -> [Tensor<1>; 3] {
    let correction = |beta: f64| 1.0 - beta.powi(update.step as i32);
    let gradient = gradient * update.gradient_scale;
    let first = first * update.beta_1 + gradient.clone() * (1.0 - update.beta_1);
    let second = second * update.beta_2 + gradient.clone() * gradient * (1.0 - update.beta_2);
    let root = second.clone().sqrt() / correction(update.beta_2).sqrt() + update.epsilon;
    let kept = parameter * (1.0 - update.learning_rate * update.weight_decay);
    [kept - first.clone() / root * (update.learning_rate / correction(update.beta_1)), first, second]
}

/// Σ x·y in f64, in sums side by side: a single one would wait for each addition.
#[inline(always)]
pub(crate) fn products(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The sum of squares of all elements, accumulated in a fixed order.
pub fn sum_of_squares(tensor: Tensor<1>) -> f64 {
    inner_product(tensor.clone(), tensor)
}

/// The sum of the products of corresponding elements, accumulated in a fixed order.
///
/// # Panics
/// If the tensors have other lengths.
pub fn inner_product(a: Tensor<1>, b: Tensor<1>) -> f64 {
    assert_eq!(a.dims(), b.dims(), "elements correspond");
    if !on_host(&a.device()) {
        return f64::from(a.mul(b).sum().into_scalar::<f32>());
    }
    let chunk = |(a, b): (&[f32], &[f32])| {
        simd(
            #[inline(always)]
            || products(a, b),
        )
    };
    read(a, |a| read(b, |b| a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).map(chunk).collect::<Vec<f64>>().into_iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, numbers};
    use burn::tensor::Device;

    fn vector(seed: u64, device: &Device) -> Tensor<1> {
        Tensor::from_floats(numbers(40_000, seed).as_slice(), device)
    }

    fn update(step: usize) -> AdamW {
        AdamW { learning_rate: 1e-2, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.1, step, gradient_scale: 0.5 }
    }

    #[test]
    fn sweep_matches_plain_burn_over_several_steps() {
        for device in devices() {
            let zeros = || Tensor::<1>::zeros([40_000], &device);
            let (mut fast, mut slow) = ([vector(1, &device), zeros(), zeros()], [vector(1, &device), zeros(), zeros()]);
            for step in 1..6 {
                let gradient = vector(step as u64 + 10, &device);
                let [p, m, v] = fast;
                fast = adamw(p, gradient.clone(), m, v, &update(step));
                let [p, m, v] = slow;
                slow = plain(p, gradient, m, v, &update(step));
            }
            for (fast, slow) in fast.into_iter().zip(slow) {
                assert!((fast - slow).abs().max().into_scalar::<f32>() < 1e-6);
            }
        }
    }

    /// With a constant gradient every bias-corrected step has size η: the definition's fixed point.
    #[test]
    fn a_constant_gradient_moves_by_the_learning_rate() {
        let device = Device::flex();
        let gradient = Tensor::<1>::from_floats([3.0, -7.0], &device);
        let [mut p, mut m, mut v] = [0, 1, 2].map(|_| Tensor::<1>::zeros([2], &device));
        for step in 1..=10 {
            [p, m, v] = adamw(p, gradient.clone(), m, v, &AdamW { weight_decay: 0.0, ..update(step) });
        }
        let moved: Vec<f32> = p.into_data().try_to_vec().unwrap();
        assert!((moved[0] + 0.1).abs() < 1e-5 && (moved[1] - 0.1).abs() < 1e-5, "{moved:?}");
    }

    /// The whole point of the sweep: no copy of a parameter that nothing else holds.
    #[test]
    fn an_unshared_parameter_is_updated_where_it_lies() {
        let device = Device::flex();
        let parameter = vector(1, &device);
        let before = read(parameter.clone(), |values| values.as_ptr() as usize);
        let zeros = || Tensor::<1>::zeros([40_000], &device);
        let [parameter, ..] = adamw(parameter, vector(2, &device), zeros(), zeros(), &update(1));
        assert_eq!(read(parameter, |values| values.as_ptr() as usize), before);
    }

    #[test]
    fn squares_sum_the_same_on_any_number_of_threads() {
        let sum = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| sum_of_squares(vector(3, &Device::flex())))
        };
        let exact: f64 = numbers(40_000, 3).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((sum(1) - exact).abs() < 1e-6);
        assert_eq!(sum(1).to_bits(), sum(4).to_bits());
    }

    #[test]
    fn an_inner_product_is_the_sum_of_products() {
        let exact: f64 = numbers(40_001, 3).iter().zip(numbers(40_001, 4)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum();
        for device in devices() {
            let vector = |seed| Tensor::from_floats(numbers(40_001, seed).as_slice(), &device);
            assert!((inner_product(vector(3), vector(4)) - exact).abs() < 1e-6);
        }
    }
}
