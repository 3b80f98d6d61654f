//! Cross-entropy of class logits, alone or fused with the output head; and the head's log-probabilities and entropies, from which any
//! other objective can be made.
//!
//! ```text
//! r = h·Wᵀ + b        z = cap·tanh(r / cap) / temperature        ln p = z − ln Σ_v exp(z_v)        entropy = −Σ_v p_v·ln p_v
//! ce(z, t) = −(1 − ε)·ln p_t − ε·mean_v(ln p_v)        loss = Σ_i w_i·ce(z_i, t_i)        d ce/dz_v = p_v − (1 − ε)·[v = t] − ε / V
//! ```
//!
//! [`distillation`] compares one head with another.
//!
//! The fused head never holds the logits of all rows. The loss's forward pass turns a chunk of them into its gradient while it is there,
//! and its backward pass only multiplies by the upstream scalar; so does any loss that is a function of each target's log-probability
//! ([`head_token_loss`]). The log-probabilities' own gradients differ by row and are known only in the backward pass, which computes the
//! logits again.

pub mod distillation;
mod head;
mod softmax;
#[cfg(test)]
mod tests;
mod token_loss;

pub use token_loss::{TokenLoss, TokenLosses, head_token_loss};

use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::linear::plain as plain_linear;
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
pub use head::CHUNK_LOGITS;
use head::{HeadCrossEntropy, HeadLogProbabilities, cross_entropies, scaled};
use std::sync::Arc;

/// How an output head's logits become probabilities, and these a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadOptions {
    /// Divides the logits. Default 1.
    pub temperature: f32,
    /// Squashes the logits smoothly into (-cap, cap), before the temperature (Gemma 2, arXiv:2408.00118, Section 2). Default none.
    pub soft_cap: Option<f32>,
    /// ε, the share of the loss that falls on all classes alike (arXiv:1512.00567, Section 7, as PyTorch has it). Log-probabilities do not
    /// know it. Default 0.
    pub label_smoothing: f32,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { temperature: 1.0, soft_cap: None, label_smoothing: 0.0 }
    }
}

/// Input: logits.
#[derive(Debug)]
struct CrossEntropy {
    targets: Arc<[u32]>,
    weights: Arc<[f32]>,
    options: HeadOptions,
}

impl Kernel for CrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let mut gradient = inputs[0].data.to_vec();
        let loss = cross_entropies(&mut gradient, &self.targets, &self.weights, &self.options, wanted[0]);
        Forward { data: vec![loss as f32], shape: vec![1], saved: if wanted[0] { vec![gradient] } else { Vec::new() } }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
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

fn assert_head(hidden: &Tensor<2>, weight: &Tensor<2>, bias: &Option<Tensor<1>>, targets: &[u32], options: &HeadOptions) {
    let [rows, width] = hidden.dims();
    let [classes, head_width] = weight.dims();
    assert_eq!(width, head_width, "the hidden states' width is the head's");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [classes]), "one bias for each of {classes} classes");
    assert!(options.temperature > 0.0, "a temperature is above 0, not {}", options.temperature);
    assert!(options.soft_cap.is_none_or(|cap| cap > 0.0), "a cap is above 0, not {:?}", options.soft_cap);
    assert_targets(rows, classes, targets);
}

/// Logits squashed into (-cap, cap), if there is a cap.
fn capped(logits: Tensor<2>, soft_cap: Option<f32>) -> Tensor<2> {
    match soft_cap {
        Some(cap) => (logits / cap).tanh() * cap,
        None => logits,
    }
}

/// ln p of every class, and its value at each row's target, `[rows, 1]`.
fn plain_log_probabilities(logits: Tensor<2>, targets: &[u32], options: &HeadOptions) -> [Tensor<2>; 2] {
    let log_p = log_softmax(capped(logits, options.soft_cap) / options.temperature, 1);
    let indices: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [targets.len(), 1]), &log_p.device());
    [log_p.clone(), log_p.gather(1, indices)]
}

fn plain(logits: Tensor<2>, targets: &[u32], weights: &[f32], options: &HeadOptions) -> Tensor<1> {
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1]), (&logits.device(), logits.dtype()));
    let [all, of_target] = plain_log_probabilities(logits, targets, options);
    let smooth = of_target * (1.0 - options.label_smoothing) + all.mean_dim(1) * options.label_smoothing;
    (smooth * weights).sum().neg()
}

fn plain_with_entropy(logits: Tensor<2>, targets: &[u32], options: &HeadOptions) -> Tensor<2> {
    let [all, of_target] = plain_log_probabilities(logits, targets, options);
    Tensor::cat(vec![of_target, (all.clone().exp() * all).sum_dim(1).neg()], 1)
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
    options: HeadOptions,
) -> Tensor<1> {
    assert_head(&hidden, &weight, &bias, targets, &options);
    assert_eq!(weights.len(), targets.len(), "one weight for each target");
    if !on_host(&hidden.device()) {
        return plain(plain_linear(hidden, weight, bias), targets, weights, &options);
    }
    let kernel = HeadCrossEntropy { targets: targets.clone(), weights: weights.clone(), options, chunk_logits: CHUNK_LOGITS };
    apply(kernel, [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch)))
}

/// For each row, the log-probability of its target under the output head and the entropy of the whole distribution, in nats.
///
/// # Shapes
/// As [`head_cross_entropy`]; the output: `[rows, 2]`, log-probabilities in column 0, entropies in column 1.
///
/// # Panics
/// If a target is no class.
pub fn head_log_probabilities(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: &Arc<[u32]>,
    options: HeadOptions,
) -> Tensor<2> {
    assert_head(&hidden, &weight, &bias, targets, &options);
    if !on_host(&hidden.device()) {
        return plain_with_entropy(plain_linear(hidden, weight, bias), targets, &options);
    }
    let kernel = HeadLogProbabilities { targets: targets.clone(), options, chunk_logits: CHUNK_LOGITS };
    apply(kernel, [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch)))
}

/// `Σ_i weights_i·ce(logits_i, targets_i)`.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `targets` and `weights`: one per row; the output: `[1]`.
///
/// # Panics
/// If a target is no class.
pub fn cross_entropy(logits: Tensor<2>, targets: &Arc<[u32]>, weights: &Arc<[f32]>) -> Tensor<1> {
    smooth_cross_entropy(logits, targets, weights, 0.0)
}

/// The same with a share ε of the loss on all classes alike.
///
/// # Shapes
/// As [`cross_entropy`].
///
/// # Panics
/// If a target is no class.
pub fn smooth_cross_entropy(logits: Tensor<2>, targets: &Arc<[u32]>, weights: &Arc<[f32]>, label_smoothing: f32) -> Tensor<1> {
    let options = HeadOptions { label_smoothing, ..HeadOptions::default() };
    let [rows, classes] = logits.dims();
    assert_targets(rows, classes, targets);
    assert_eq!(weights.len(), targets.len(), "one weight for each target");
    if !on_host(&logits.device()) {
        return plain(logits, targets, weights, &options);
    }
    apply(CrossEntropy { targets: targets.clone(), weights: weights.clone(), options }, [logits.into_dispatch()])
}
