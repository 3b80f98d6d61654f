//! The divergence of one output head's distributions from another's, over chunks of rows: neither head's logits are ever held whole.
//!
//! ```text
//! p = softmax(y / T) of the teacher        q = softmax(z / T) of the student        loss = Σ_i w_i·KL(p_i ‖ q_i)
//! KL(p ‖ q) = Σ_v p_v·(ln p_v − ln q_v)        d KL/dz_v = (q_v − p_v) / T
//! ```

use super::head::{CHUNK_LOGITS, Head, scaled};
use super::softmax::Softmax;
use super::{HeadOptions, capped, plain_linear};
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use crate::linear::linear;
use crate::math::{exp, simd};
use crate::reduce::sum_pairs;
use burn::tensor::{Tensor, TensorData, activation::log_softmax};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Hidden states and the output weights that turn them into logits.
#[derive(Clone, Debug)]
pub struct OutputHead {
    /// `[rows, width]`.
    pub hidden: Tensor<2>,
    /// `[classes, width]`.
    pub weight: Tensor<2>,
    /// `[classes]`.
    pub bias: Option<Tensor<1>>,
    /// As [`HeadOptions::soft_cap`].
    pub soft_cap: Option<f32>,
}

impl OutputHead {
    /// The logits of all rows, `[rows, classes]`.
    pub fn logits(self) -> Tensor<2> {
        capped(linear(self.hidden, self.weight, self.bias), self.soft_cap)
    }

    fn plain_logits(self) -> Tensor<2> {
        capped(plain_linear(self.hidden, self.weight, self.bias), self.soft_cap)
    }
}

/// Inputs: the student's hidden states, weight and perhaps bias, then the teacher's.
#[derive(Debug)]
struct HeadDivergence {
    weights: Arc<[f32]>,
    temperature: f32,
    soft_cap: Option<f32>,
    chunk_logits: usize,
}

/// Elements summed in f32 before the f64 total takes over.
const BLOCK: usize = 4096;

/// KL of a row; with a `scale`, `scale·(q − p)` replaces the student's logits.
fn divergence(student: &mut [f32], teacher: &mut [f32], options: &HeadOptions, scale: Option<f32>) -> f64 {
    options.shape(student);
    options.shape(teacher);
    let (q, p) = (Softmax::new(student), Softmax::new(teacher));
    let apart: f64 = simd(
        #[inline(always)]
        || {
            let pairs = teacher.chunks(BLOCK).zip(student.chunks(BLOCK));
            let sum = |(y, z)| {
                f64::from(sum_pairs(
                    y,
                    z,
                    #[inline(always)]
                    |y, z| (y - z) * exp(y - p.max),
                ))
            };
            pairs.map(sum).sum()
        },
    );
    if let Some(scale) = scale {
        let (of_q, of_p) = ((1.0 / q.sum) as f32, (1.0 / p.sum) as f32);
        // What the cap leaves of a step of the uncapped logit.
        let per_cap = options.soft_cap.map_or(0.0, |cap| options.temperature / cap);
        simd(
            #[inline(always)]
            || {
                student.iter_mut().zip(&*teacher).for_each(|(z, &y)| {
                    let slope = 1.0 - (*z * per_cap) * (*z * per_cap);
                    *z = scale * (of_q * exp(*z - q.max) - of_p * exp(y - p.max)) * slope;
                });
            },
        );
    }
    let log_sum = |softmax: Softmax| f64::from(softmax.max) + softmax.sum.ln();
    apart / p.sum - log_sum(p) + log_sum(q)
}

impl Kernel for HeadDivergence {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let (student, teacher) = inputs.split_at(inputs.len() / 2);
        let of = |inputs: &[Operand<'_>]| (inputs[0].rows(), inputs[1].rows());
        assert_eq!(of(student), of(teacher), "the rows and classes of the student are the teacher's");
        let student = Head::new(student[0], student[1], student.get(2).copied(), self.chunk_logits);
        let teacher = Head::new(teacher[0], teacher[1], teacher.get(2).copied(), self.chunk_logits);
        let (of_student, of_teacher) = wanted.split_at(wanted.len() / 2);
        assert!(!of_teacher.contains(&true), "the teacher does not learn");
        let differentiate = of_student.contains(&true);
        let options = HeadOptions { temperature: self.temperature, soft_cap: self.soft_cap, ..HeadOptions::default() };
        let (mut loss, mut others, classes) = (0.0, Vec::new(), inputs[1].rows());
        let each = |chunk: Range<usize>, logits: &mut [f32]| {
            teacher.logits_of(chunk.clone(), &mut others);
            let rows = logits.par_chunks_mut(classes).zip(others.par_chunks_mut(classes)).zip(&self.weights[chunk]);
            let row = |((student, teacher), &weight): ((&mut [f32], &mut [f32]), &f32)| {
                let scale = differentiate.then_some(weight / self.temperature);
                f64::from(weight) * divergence(student, teacher, &options, scale)
            };
            let losses: Vec<f64> = rows.map(row).collect();
            loss += losses.into_iter().sum::<f64>();
        };
        let mut saved = Vec::new();
        if differentiate {
            saved = student.gradients(of_student, each);
            saved.resize(inputs.len(), Vec::new());
        } else {
            student.chunks(each);
        }
        Forward { data: vec![loss as f32], shape: vec![1], saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

/// `Σ_i weights_i·KL(teacher_i ‖ student_i)` of the distributions two heads make at a temperature, in nats. No gradient reaches the teacher.
///
/// # Shapes
/// Both heads have the same rows and classes, and both or neither a bias; `weights`: one per row; the output: `[1]`.
///
/// # Panics
/// If the heads do not fit together.
pub fn head_divergence(student: OutputHead, teacher: OutputHead, weights: &Arc<[f32]>, temperature: f32) -> Tensor<1> {
    assert!(temperature > 0.0, "a temperature is above 0, not {temperature}");
    assert_eq!(weights.len(), student.hidden.dims()[0], "one weight for each row");
    assert_eq!(student.bias.is_some(), teacher.bias.is_some(), "both heads or neither have a bias");
    assert_eq!(student.soft_cap, teacher.soft_cap, "both heads have the same cap");
    if !on_host(&student.hidden.device()) {
        return plain(student, teacher, weights, temperature);
    }
    let kernel = HeadDivergence { weights: weights.clone(), temperature, soft_cap: student.soft_cap, chunk_logits: CHUNK_LOGITS };
    apply(kernel, [student, teacher].into_iter().flat_map(dispatched))
}

fn dispatched(head: OutputHead) -> impl Iterator<Item = burn::backend::DispatchTensor> {
    let OutputHead { hidden, weight, bias, .. } = head;
    [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch))
}

fn plain(student: OutputHead, teacher: OutputHead, weights: &[f32], temperature: f32) -> Tensor<1> {
    let of_teacher = log_softmax(teacher.plain_logits().detach() / temperature, 1);
    let of_student = log_softmax(student.plain_logits() / temperature, 1);
    let place = (&of_student.device(), of_student.dtype());
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1]), place);
    (of_teacher.clone().exp() * (of_teacher - of_student) * weights).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_kernel, devices, numbers};
    use burn::tensor::DType;

    const ROWS: usize = 7;
    const CLASSES: usize = 33;
    const WIDTH: usize = 12;

    fn fixed(seed: u64, shape: [usize; 2], like: &Tensor<2>) -> Tensor<2> {
        let data = TensorData::new(numbers(shape[0] * shape[1], seed), shape);
        // Off the tape, as a teacher is.
        Tensor::from_data(data, (&like.clone().inner().device(), like.dtype()))
    }

    fn teacher(like: &Tensor<2>, has_bias: bool, soft_cap: Option<f32>) -> OutputHead {
        OutputHead {
            hidden: fixed(21, [ROWS, WIDTH], like),
            weight: fixed(22, [CLASSES, WIDTH], like) * 3.0,
            bias: has_bias.then(|| fixed(23, [1, CLASSES], like).squeeze_dim(0)),
            soft_cap,
        }
    }

    #[test]
    fn values_and_gradients_match_plain_burn() {
        let weights: Arc<[f32]> = Arc::from([0.25, 1.5, 0.125, 0.0, 2.0, 0.5, 1.0]);
        for (temperature, soft_cap) in [(1.0, None), (2.0, Some(1.5)), (0.7, None)] {
            let student = |[hidden, weight]: [Tensor<2>; 2]| OutputHead { hidden, weight: weight * 3.0, bias: None, soft_cap };
            assert_kernel(
                [[ROWS, WIDTH], [CLASSES, WIDTH]],
                1e-5,
                |x| head_divergence(student(x.clone()), teacher(&x[0], false, soft_cap), &weights, temperature).unsqueeze(),
                |x| plain(student(x.clone()), teacher(&x[0], false, soft_cap), &weights, temperature).unsqueeze(),
            );
            let student = |[hidden, weight, bias]: [Tensor<2>; 3]| OutputHead {
                hidden,
                weight: weight * 3.0,
                bias: Some(bias.squeeze_dim(0)),
                soft_cap,
            };
            assert_kernel(
                [[ROWS, WIDTH], [CLASSES, WIDTH], [1, CLASSES]],
                1e-5,
                |x| head_divergence(student(x.clone()), teacher(&x[0], true, soft_cap), &weights, temperature).unsqueeze(),
                |x| plain(student(x.clone()), teacher(&x[0], true, soft_cap), &weights, temperature).unsqueeze(),
            );
        }
    }

    #[test]
    fn a_head_does_not_differ_from_itself_and_chunks_change_nothing() {
        for device in devices() {
            let tracked = |seed, shape| {
                let place = (&device.clone().autodiff(), DType::F32);
                Tensor::<2>::from_data(TensorData::new(numbers(shape, seed), [shape / WIDTH, WIDTH]), place).require_grad()
            };
            let (hidden, weight) = (tracked(1, ROWS * WIDTH), tracked(2, CLASSES * WIDTH));
            let weights: Arc<[f32]> = vec![1.0; ROWS].into();
            let student = OutputHead { hidden: hidden.clone(), weight: weight.clone(), bias: None, soft_cap: None };
            let same = OutputHead { hidden: hidden.clone().inner(), weight: weight.clone().inner(), bias: None, soft_cap: None };
            let loss = head_divergence(student.clone(), same, &weights, 2.0);
            let gradients = loss.backward();
            assert_eq!(loss.into_scalar::<f32>(), 0.0);
            for tensor in [&hidden, &weight] {
                assert_eq!(tensor.grad(&gradients).expect("a gradient").abs().max().into_scalar::<f32>(), 0.0);
            }
            let other = teacher(&hidden, false, None);
            let of = |chunk_logits| {
                let kernel = HeadDivergence { weights: weights.clone(), temperature: 2.0, soft_cap: None, chunk_logits };
                let loss: Tensor<1> = apply(kernel, [student.clone(), other.clone()].into_iter().flat_map(dispatched));
                let mut gradients = loss.backward();
                (loss.into_scalar::<f32>(), weight.grad_remove(&mut gradients).expect("a gradient"))
            };
            let (whole, chunked) = (of(CHUNK_LOGITS), of(2 * CLASSES));
            assert!((whole.0 - chunked.0).abs() < 1e-5 * whole.0.abs());
            assert!((whole.1 - chunked.1).abs().max().into_scalar::<f32>() < 1e-5);
        }
    }
}
