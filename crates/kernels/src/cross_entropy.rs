//! Cross-entropy of class logits, alone or fused with the output head.
//!
//! ```text
//! ce(z, t) = ln Σ_v exp(z_v) − z_t        dz_v = softmax(z)_v − [v = t]        loss = Σ_i w_i·ce(z_i, t_i)        z = h·Wᵀ + b
//! ```
//!
//! The fused head never holds the logits of all rows. While a chunk of them is there, the forward pass turns it into its gradient and adds
//! what it contributes to the gradients of h, W and b; the backward pass only multiplies these by the upstream scalar.

use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::linear::{affine, plain as plain_linear};
use crate::math::{exp, simd};
use crate::matmul::{Matrix, multiply};
use crate::reduce::{add_rows, max, sum_pairs};
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows of logits held at a time.
const CHUNK_ROWS: usize = 256;

/// The largest logit m and Σ exp(z − m). Blocks of the sum are added in f64: a vocabulary is too long for f32.
#[inline(always)]
fn normaliser(logits: &[f32]) -> (f32, f64) {
    const BLOCK: usize = 4096;
    let max = max(logits);
    let mut sum = 0.0;
    for block in logits.chunks(BLOCK) {
        sum += f64::from(sum_pairs(
            block,
            block,
            #[inline(always)]
            |z, _| exp(z - max),
        ));
    }
    (max, sum)
}

/// Cross-entropy of each row of `logits`.
fn cross_entropies(logits: &[f32], targets: &[u32]) -> Vec<f64> {
    let classes = logits.len() / targets.len().max(1);
    let row = |(logits, &target): (&[f32], &u32)| {
        let (max, sum) = simd(
            #[inline(always)]
            || normaliser(logits),
        );
        sum.ln() + f64::from(max) - f64::from(logits[target as usize])
    };
    logits.par_chunks(classes.max(1)).zip(targets).map(row).collect()
}

/// Cross-entropy of each row of `logits`, which the gradients of the weighted cross-entropies replace.
fn cross_entropies_and_gradients(logits: &mut [f32], targets: &[u32], weights: &[f32]) -> Vec<f64> {
    let classes = logits.len() / targets.len().max(1);
    let row = |((logits, &target), &weight): ((&mut [f32], &u32), &f32)| {
        let target = target as usize;
        let of_target = f64::from(logits[target]);
        let (max, sum) = simd(
            #[inline(always)]
            || {
                let (max, sum) = normaliser(logits);
                let share = weight / sum as f32;
                logits.iter_mut().for_each(|z| *z = share * exp(*z - max));
                (max, sum)
            },
        );
        logits[target] -= weight;
        sum.ln() + f64::from(max) - of_target
    };
    logits.par_chunks_mut(classes.max(1)).zip(targets).zip(weights).map(row).collect()
}

/// Σ w·ce, in order.
fn weighted_sum(cross_entropies: &[f64], weights: &[f32]) -> f64 {
    cross_entropies.iter().zip(weights).map(|(ce, &weight)| f64::from(weight) * ce).sum()
}

/// The saved gradients times the upstream scalar, where they lie; an unwanted one was saved empty.
fn scaled(context: Context<'_>) -> Vec<Option<Vec<f32>>> {
    let upstream = context.grad.data[0];
    let scale = |(mut saved, &wanted): (Vec<f32>, &bool)| {
        saved.par_iter_mut().for_each(|gradient| *gradient *= upstream);
        wanted.then_some(saved)
    };
    context.saved.into_iter().zip(context.wanted).map(scale).collect()
}

/// Inputs: hidden states, head weight and perhaps bias.
#[derive(Debug)]
struct HeadCrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
    chunk_rows: usize,
}

impl Kernel for HeadCrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let (hidden, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
        let (width, classes) = (hidden.width(), weight.rows());
        let head = Matrix::new(weight.data, classes, width);
        let any_wanted = wanted.contains(&true);
        let mut gradients: Vec<Vec<f32>> =
            inputs.iter().zip(wanted).map(|(input, &wanted)| vec![0.0; if wanted { input.data.len() } else { 0 }]).collect();
        let mut logits = vec![0.0; self.chunk_rows.min(hidden.rows()) * classes];
        let mut loss = 0.0;
        for start in (0..hidden.rows()).step_by(self.chunk_rows) {
            let chunk = start..hidden.rows().min(start + self.chunk_rows);
            let (targets, weights) = (&self.targets[chunk.clone()], &self.weights[chunk.clone()]);
            let elements = chunk.start * width..chunk.end * width;
            let hidden = Matrix::new(&hidden.data[elements.clone()], chunk.len(), width);
            let logits = &mut logits[..chunk.len() * classes];
            affine(logits, hidden, head, bias.map(|bias| bias.data));
            if !any_wanted {
                loss += weighted_sum(&cross_entropies(logits, targets), weights);
                continue;
            }
            loss += weighted_sum(&cross_entropies_and_gradients(logits, targets, weights), weights);
            let dz = Matrix::new(logits, chunk.len(), classes);
            if wanted[0] {
                multiply(&mut gradients[0][elements], 0.0, 1.0, dz, head);
            }
            if wanted[1] {
                multiply(&mut gradients[1], 1.0, 1.0, dz.t(), hidden);
            }
            if wanted.get(2).is_some_and(|&wanted| wanted) {
                add_rows(&mut gradients[2], logits);
            }
        }
        Forward { data: vec![loss as f32], shape: vec![1], saved: if any_wanted { gradients } else { Vec::new() } }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

/// Input: logits.
#[derive(Debug)]
struct CrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
}

impl Kernel for CrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let (cross_entropies, saved) = if wanted[0] {
            let mut gradient = inputs[0].data.to_vec();
            (cross_entropies_and_gradients(&mut gradient, &self.targets, &self.weights), vec![gradient])
        } else {
            (cross_entropies(inputs[0].data, &self.targets), Vec::new())
        };
        Forward { data: vec![weighted_sum(&cross_entropies, &self.weights) as f32], shape: vec![1], saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

/// Inputs: hidden states, head weight and perhaps bias. The output is read by the host at once, so there is no gradient.
#[derive(Debug)]
struct HeadLogProbabilities {
    targets: Arc<[u32]>,
}

impl Kernel for HeadLogProbabilities {
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let (hidden, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
        let head = Matrix::new(weight.data, weight.rows(), weight.width());
        let mut data = Vec::with_capacity(hidden.rows());
        let mut logits = vec![0.0; CHUNK_ROWS.min(hidden.rows()) * weight.rows()];
        for (targets, hidden) in self.targets.chunks(CHUNK_ROWS).zip(hidden.data.chunks(CHUNK_ROWS * hidden.width())) {
            let logits = &mut logits[..targets.len() * weight.rows()];
            affine(logits, Matrix::new(hidden, targets.len(), weight.width()), head, bias.map(|bias| bias.data));
            data.extend(cross_entropies(logits, targets).into_iter().map(|ce| -ce as f32));
        }
        Forward { shape: vec![data.len()], data, saved: Vec::new() }
    }

    fn backward(&self, _: Context<'_>) -> Vec<Option<Vec<f32>>> {
        unreachable!("its inputs are detached")
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

fn assert_targets(rows: usize, classes: usize, targets: &[u32]) {
    assert_eq!(targets.len(), rows, "one target for each of {rows} rows");
    if let Some(target) = targets.iter().find(|&&target| target as usize >= classes) {
        panic!("target {target} is outside {classes} classes");
    }
}

fn assert_head(hidden: &Tensor<2>, weight: &Tensor<2>, bias: &Option<Tensor<1>>, targets: &[u32]) {
    let [rows, width] = hidden.dims();
    let [classes, head_width] = weight.dims();
    assert_eq!(width, head_width, "the hidden states' width is the head's");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [classes]), "one bias for each of {classes} classes");
    assert_targets(rows, classes, targets);
}

/// Log-probability of each row's target, `[rows, 1]`.
fn plain_log_probabilities(logits: Tensor<2>, targets: &[u32]) -> Tensor<2> {
    let indices: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [targets.len(), 1]), &logits.device());
    log_softmax(logits, 1).gather(1, indices)
}

fn plain(logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> Tensor<1> {
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1]), (&logits.device(), logits.dtype()));
    (plain_log_probabilities(logits, targets) * weights).sum().neg()
}

/// `Σ_i weights_i·ce(hidden_i·weightᵀ + bias, targets_i)`, the loss of an output head, which may be tied to the embedding or frozen.
///
/// # Shapes
/// `hidden`: `[rows, width]`, the supervised positions only; `weight`: `[classes, width]`; `bias`: `[classes]`; `targets` and `weights`:
/// one per row; the output: `[1]`.
///
/// # Panics
/// If a target is no class.
pub fn head_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: &Arc<[u32]>,
    weights: &Arc<[f32]>,
) -> Tensor<1> {
    assert_head(&hidden, &weight, &bias, targets);
    assert_eq!(weights.len(), targets.len(), "one weight for each target");
    if !on_host(&hidden.device()) {
        return plain(plain_linear(hidden, weight, bias), targets, weights);
    }
    let kernel = HeadCrossEntropy { targets: targets.clone(), weights: weights.clone(), chunk_rows: CHUNK_ROWS };
    apply(kernel, [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch)))
}

/// Log-probability of each row's target under the output head, natural logarithm. Not differentiable.
///
/// # Shapes
/// As [`head_cross_entropy`]; the output: one per row.
///
/// # Panics
/// If a target is no class.
pub fn head_log_probabilities(hidden: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, targets: &[u32]) -> Vec<f32> {
    assert_head(&hidden, &weight, &bias, targets);
    let (hidden, weight, bias) = (hidden.detach(), weight.detach(), bias.map(Tensor::detach));
    let log_probabilities = if on_host(&hidden.device()) {
        let inputs = [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch));
        apply::<1>(HeadLogProbabilities { targets: targets.into() }, inputs).into_data()
    } else {
        plain_log_probabilities(plain_linear(hidden, weight, bias), targets).into_data()
    };
    log_probabilities.convert::<f32>().try_to_vec().expect("floats")
}

/// `Σ_i weights_i·ce(logits_i, targets_i)`.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `targets` and `weights`: one per row; the output: `[1]`.
///
/// # Panics
/// If a target is no class.
pub fn cross_entropy(logits: Tensor<2>, targets: &Arc<[u32]>, weights: &Arc<[f32]>) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    assert_targets(rows, classes, targets);
    assert_eq!(weights.len(), targets.len(), "one weight for each target");
    if !on_host(&logits.device()) {
        return plain(logits, targets, weights);
    }
    apply(CrossEntropy { targets: targets.clone(), weights: weights.clone() }, [logits.into_dispatch()])
}

#[cfg(test)]
mod tests {
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
            |[z]| plain(z * 5.0, &targets, &weights).unsqueeze(),
        );
    }

    #[test]
    fn head_matches_plain_burn() {
        let (targets, weights) = (targets(), weights());
        let (hidden, head, bias) = ([ROWS, WIDTH], [CLASSES, WIDTH], [1, CLASSES]);
        assert_kernel(
            [hidden, head],
            1e-5,
            |[h, w]| head_cross_entropy(h, w * 3.0, None, &targets, &weights).unsqueeze(),
            |[h, w]| plain(plain_linear(h, w * 3.0, None), &targets, &weights).unsqueeze(),
        );
        assert_kernel(
            [hidden, head, bias],
            1e-5,
            |[h, w, b]| head_cross_entropy(h, w, Some(row(b)), &targets, &weights).unsqueeze(),
            |[h, w, b]| plain(plain_linear(h, w, Some(row(b))), &targets, &weights).unsqueeze(),
        );
    }

    #[test]
    fn a_tied_head_adds_its_gradient_to_the_embedding() {
        let (targets, weights) = (targets(), weights());
        let ids: Arc<[u32]> = Arc::from([3, 3, 0, 8, 31, 4, 2]);
        assert_kernel(
            [[CLASSES, WIDTH]],
            1e-5,
            |[w]| head_cross_entropy(embedding(w.clone(), &ids), w, None, &targets, &weights).unsqueeze(),
            |[w]| {
                let indices = Tensor::<1, Int>::from_data(TensorData::from([3, 3, 0, 8, 31, 4, 2]), &w.device());
                plain(plain_linear(w.clone().select(0, indices), w, None), &targets, &weights).unsqueeze()
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

    /// The loss and the gradients of hidden states, head and bias.
    fn loss_and_gradients(tracked: u32, chunk_rows: usize, device: &Device) -> (TensorData, [Option<TensorData>; 3]) {
        let (hidden, head, bias) = leaves(tracked, device);
        let kernel = HeadCrossEntropy { targets: targets(), weights: weights(), chunk_rows };
        let inputs = [hidden.clone().into_dispatch(), head.clone().into_dispatch(), bias.clone().into_dispatch()];
        let loss: Tensor<1> = apply(kernel, inputs);
        let gradients = (loss.clone() * 3.0).backward();
        let data = |x: Tensor<2>| x.into_data();
        let gradients = [hidden.grad(&gradients).map(data), head.grad(&gradients).map(data), bias.grad(&gradients).map(Tensor::into_data)];
        (loss.into_data(), gradients)
    }

    #[test]
    fn frozen_operands_leave_the_other_gradients_alone() {
        for device in devices() {
            let (loss, all) = loss_and_gradients(0b111, CHUNK_ROWS, &device);
            for tracked in 1..0b111 {
                let (same_loss, gradients) = loss_and_gradients(tracked, CHUNK_ROWS, &device);
                assert_eq!(same_loss, loss);
                for (i, gradient) in gradients.into_iter().enumerate() {
                    assert_eq!(gradient, if tracked >> i & 1 == 1 { all[i].clone() } else { None }, "input {i}, tracked {tracked:03b}");
                }
            }
            let (hidden, head, bias) = leaves(0, &device);
            let without_gradient = head_cross_entropy(hidden, head, Some(bias), &targets(), &weights());
            without_gradient.into_data().assert_eq(&loss, true);
        }
    }

    #[test]
    fn chunks_change_nothing_beyond_rounding() {
        for device in devices() {
            let (loss, gradients) = loss_and_gradients(0b111, CHUNK_ROWS, &device);
            for chunk_rows in [1, 3, ROWS] {
                let (chunked_loss, chunked_gradients) = loss_and_gradients(0b111, chunk_rows, &device);
                chunked_loss.assert_approx_eq::<f32>(&loss, Default::default());
                for (chunked, whole) in chunked_gradients.iter().zip(&gradients) {
                    let (chunked, whole) = (chunked.as_ref().expect("tracked"), whole.as_ref().expect("tracked"));
                    chunked.assert_approx_eq::<f32>(whole, Default::default());
                }
            }
        }
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| loss_and_gradients(0b111, 3, &devices()[0]))
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
    fn log_probabilities_are_those_of_the_plain_head() {
        for device in devices() {
            let (hidden, head, bias) = leaves(0b111, &device);
            let got = head_log_probabilities(hidden.clone(), head.clone(), Some(bias.clone()), &targets());
            let expected = plain_log_probabilities(plain_linear(hidden, head, Some(bias)), &targets()).into_data();
            TensorData::new(got, [ROWS, 1]).assert_approx_eq::<f32>(&expected, Default::default());
        }
    }

    #[test]
    fn no_rows_cost_nothing() {
        for device in devices() {
            let (hidden, head) = (Tensor::<2>::ones([0, WIDTH], &device), Tensor::<2>::ones([CLASSES, WIDTH], &device));
            let loss = head_cross_entropy(hidden, head, None, &Arc::from([]), &Arc::from([]));
            loss.into_data().assert_eq(&TensorData::from([0.0f32]), true);
        }
    }

    #[test]
    #[should_panic(expected = "target 33 is outside 33 classes")]
    fn targets_outside_the_classes_are_refused() {
        cross_entropy(Tensor::ones([1, CLASSES], &devices()[0]), &Arc::from([33]), &Arc::from([1.0]));
    }
}
