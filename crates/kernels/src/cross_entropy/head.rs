//! The output head over chunks of rows: logits are made, read, turned into gradients and forgotten.

use super::HeadOptions;
use super::softmax::{Gradient, Softmax, mean};
use crate::kernel::{Context, Forward, Kernel, Operand};
use crate::linear::{affine, affine_product, matrix};
use crate::matmul::{Matrix, Onto, multiply, product};
use crate::reduce::add_rows;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The most logits held at a time. Fewer would save memory, but every chunk sweeps over the whole gradient of the weight.
pub const CHUNK_LOGITS: usize = 16 << 20;

/// How many rows a chunk has: all chunks nearly as many.
fn chunk_rows(rows: usize, classes: usize, chunk_logits: usize) -> usize {
    let most = (chunk_logits / classes.max(1)).max(1);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// Hidden states, weight and perhaps bias.
pub(super) struct Head<'a> {
    hidden: Operand<'a>,
    weight: Operand<'a>,
    bias: Option<&'a [f32]>,
    chunk_rows: usize,
}

impl<'a> Head<'a> {
    pub(super) fn new(hidden: Operand<'a>, weight: Operand<'a>, bias: Option<Operand<'a>>, chunk_logits: usize) -> Self {
        let chunk_rows = chunk_rows(hidden.rows(), weight.rows(), chunk_logits);
        Self { hidden, weight, bias: bias.map(|bias| bias.data), chunk_rows }
    }

    /// Puts the logits of some rows into `buffer`, in place of what it holds.
    pub(super) fn logits_of(&self, chunk: Range<usize>, buffer: &mut Vec<f32>) {
        let width = self.hidden.width();
        let hidden = Matrix::new(&self.hidden.data[chunk.start * width..chunk.end * width], chunk.len(), width);
        if buffer.len() < chunk.len() * self.weight.rows() {
            *buffer = affine_product(hidden, matrix(self.weight), self.bias);
        } else {
            buffer.truncate(chunk.len() * self.weight.rows());
            affine(buffer, hidden, matrix(self.weight), self.bias);
        }
    }

    /// Calls `each` with the logits of every chunk and their rows.
    pub(super) fn chunks(&self, mut each: impl FnMut(Range<usize>, &mut [f32])) {
        let (rows, mut buffer) = (self.hidden.rows(), Vec::new());
        for start in (0..rows).step_by(self.chunk_rows) {
            let chunk = start..rows.min(start + self.chunk_rows);
            // The first chunk is as large as any.
            self.logits_of(chunk.clone(), &mut buffer);
            each(chunk, &mut buffer);
        }
    }

    /// The gradients of the wanted inputs, if `each` leaves those of the logits in their place; empty for the others.
    pub(super) fn gradients(&self, wanted: &[bool], mut each: impl FnMut(Range<usize>, &mut [f32])) -> Vec<Vec<f32>> {
        let (width, classes) = (self.hidden.width(), self.weight.rows());
        let mut of_hidden = Vec::with_capacity(if wanted[0] { self.hidden.data.len() } else { 0 });
        let mut of_weight = Vec::new();
        let mut of_bias = vec![0.0; if wanted.get(2) == Some(&true) { classes } else { 0 }];
        self.chunks(|chunk, logits| {
            each(chunk.clone(), logits);
            let dz = Matrix::new(logits, chunk.len(), classes);
            if wanted[0] {
                of_hidden.append(&mut product(1.0, dz, matrix(self.weight)));
            }
            if wanted[1] {
                let hidden = Matrix::new(&self.hidden.data[chunk.start * width..chunk.end * width], chunk.len(), width);
                if of_weight.is_empty() {
                    of_weight = product(1.0, dz.t(), hidden);
                } else {
                    multiply(&mut of_weight, Onto::Output(1.0), 1.0, dz.t(), hidden);
                }
            }
            if !of_bias.is_empty() {
                add_rows(&mut of_bias, logits);
            }
        });
        if wanted[1] && of_weight.is_empty() {
            of_weight = vec![0.0; self.weight.data.len()];
        }
        let mut gradients = vec![of_hidden, of_weight, of_bias];
        gradients.truncate(wanted.len());
        gradients
    }
}

/// The gradients of the wanted inputs.
fn only_wanted(gradients: Vec<Vec<f32>>, wanted: &[bool]) -> Vec<Option<Vec<f32>>> {
    gradients.into_iter().zip(wanted).map(|(gradient, &wanted)| wanted.then_some(gradient)).collect()
}

/// Gradients that the forward pass saved, times the upstream scalar.
pub(super) fn scaled(context: Context<'_>) -> Vec<Option<Vec<f32>>> {
    let upstream = context.grad.data[0];
    let mut gradients = context.saved;
    if upstream != 1.0 {
        gradients.iter_mut().for_each(|gradient| gradient.par_iter_mut().for_each(|g| *g *= upstream));
    }
    only_wanted(gradients, context.wanted)
}

/// The weighted cross-entropies of rows of logits that the options have not shaped yet; with `differentiate`, the gradients of their sum
/// replace the logits.
pub(super) fn cross_entropies(logits: &mut [f32], targets: &[u32], weights: &[f32], options: &HeadOptions, differentiate: bool) -> f64 {
    let classes = logits.len() / targets.len().max(1);
    let smoothing = options.label_smoothing;
    let row = |((logits, &target), &weight): ((&mut [f32], &u32), &f32)| {
        let target = target as usize;
        options.shape(logits);
        let softmax = Softmax::new(logits);
        let mut loss = -softmax.log_probability(logits[target]);
        if smoothing > 0.0 {
            // The mean of −ln p over the classes takes the smoothing's share.
            loss += f64::from(smoothing) * (f64::from(logits[target]) - mean(logits));
        }
        if differentiate {
            let gradient = Gradient {
                by_p: weight,
                by_p_ln_p: 0.0,
                to_all: -weight * smoothing / classes as f32,
                to_target: -weight * (1.0 - smoothing),
            };
            gradient.replace(logits, target, softmax, options);
        }
        f64::from(weight) * loss
    };
    let losses: Vec<f64> = logits.par_chunks_mut(classes.max(1)).zip(targets).zip(weights).map(row).collect();
    losses.into_iter().sum()
}

/// Inputs: hidden states, weight and perhaps bias.
#[derive(Debug)]
pub(super) struct HeadCrossEntropy {
    pub(super) targets: Arc<[u32]>,
    pub(super) weights: Arc<[f32]>,
    pub(super) options: HeadOptions,
    pub(super) chunk_logits: usize,
}

impl Kernel for HeadCrossEntropy {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let head = Head::new(inputs[0], inputs[1], inputs.get(2).copied(), self.chunk_logits);
        let differentiate = wanted.contains(&true);
        let mut loss = 0.0;
        let each = |chunk: Range<usize>, logits: &mut [f32]| {
            let (targets, weights) = (&self.targets[chunk.clone()], &self.weights[chunk]);
            loss += cross_entropies(logits, targets, weights, &self.options, differentiate);
        };
        let saved = if differentiate {
            head.gradients(wanted, each)
        } else {
            head.chunks(each);
            Vec::new()
        };
        Forward { data: vec![loss as f32], shape: vec![1], saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

/// Inputs: hidden states, weight and perhaps bias. The output has two columns: log-probability and entropy.
#[derive(Debug)]
pub(super) struct HeadLogProbabilities {
    pub(super) targets: Arc<[u32]>,
    pub(super) options: HeadOptions,
    pub(super) chunk_logits: usize,
}

impl Kernel for HeadLogProbabilities {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let head = Head::new(inputs[0], inputs[1], inputs.get(2).copied(), self.chunk_logits);
        let (rows, classes) = (inputs[0].rows(), inputs[1].rows());
        let (mut data, mut softmaxes) = (vec![0.0; 2 * rows], vec![0.0; 2 * rows]);
        head.chunks(|chunk, logits| {
            let out = data[2 * chunk.start..2 * chunk.end].as_chunks_mut::<2>().0;
            let saved = softmaxes[2 * chunk.start..2 * chunk.end].as_chunks_mut::<2>().0;
            let rows = logits.par_chunks_mut(classes).zip(&self.targets[chunk]).zip(out).zip(saved);
            rows.for_each(|(((logits, &target), out), saved)| {
                self.options.shape(logits);
                let softmax = Softmax::new(logits);
                *out = [softmax.log_probability(logits[target as usize]) as f32, softmax.entropy(logits) as f32];
                *saved = [softmax.max, softmax.sum as f32];
            });
        });
        Forward { data, shape: vec![rows, 2], saved: if wanted.contains(&true) { vec![softmaxes] } else { Vec::new() } }
    }

    /// With the upstream gradients l of the log-probability and e of the entropy H: `dz_v = l·[v = t] − p_v·(l + e·H + e·ln p_v)`.
    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let bias = (context.wanted.len() > 2).then(|| context.input(2));
        let head = Head::new(context.input(0), context.input(1), bias, self.chunk_logits);
        let classes = context.input(1).rows();
        let [out, upstream, softmaxes] = [context.output().data, context.grad.data, &context.saved[0]].map(|x| x.as_chunks::<2>().0);
        let gradients = head.gradients(context.wanted, |chunk, logits| {
            let rows = logits.par_chunks_mut(classes).zip(&self.targets[chunk.clone()]).zip(chunk);
            rows.for_each(|((logits, &target), row)| {
                let ([_, entropy], [of_log_probability, of_entropy], [max, sum]) = (out[row], upstream[row], softmaxes[row]);
                self.options.shape(logits);
                let gradient = Gradient {
                    by_p: -of_log_probability - of_entropy * entropy,
                    by_p_ln_p: -of_entropy,
                    to_all: 0.0,
                    to_target: of_log_probability,
                };
                gradient.replace(logits, target as usize, Softmax { max, sum: f64::from(sum) }, &self.options);
            });
        });
        only_wanted(gradients, context.wanted)
    }

    /// The logits are computed again.
    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }
}
