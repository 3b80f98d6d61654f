//! Any loss of the targets' log-probabilities, token by token, fused with the output head.

use super::head::{CHUNK_LOGITS, Head, scaled};
use super::softmax::{Gradient, Softmax};
use super::{HeadOptions, assert_head, plain_linear, plain_log_probabilities};
use crate::host::on_host;
use crate::kernel::{Context, Forward, Kernel, Operand, apply};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What a token costs, and how that changes with its log-probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenLoss {
    /// The cost.
    pub loss: f64,
    /// Its derivative.
    pub slope: f64,
}

/// The cost of the token of a row, given the row and the token's log-probability in nats.
pub type TokenLosses = Arc<dyn Fn(usize, f64) -> TokenLoss + Send + Sync>;

/// Inputs: hidden states, weight and perhaps bias. The output is the summed loss, then the log-probability of each row, which has no
/// gradient.
pub(super) struct HeadTokenLoss {
    pub(super) targets: Arc<[u32]>,
    pub(super) options: HeadOptions,
    pub(super) losses: TokenLosses,
    pub(super) chunk_logits: usize,
}

impl fmt::Debug for HeadTokenLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeadTokenLoss of {} tokens", self.targets.len())
    }
}

impl Kernel for HeadTokenLoss {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let head = Head::new(inputs[0], inputs[1], inputs.get(2).copied(), self.chunk_logits);
        let (rows, classes) = (inputs[0].rows(), inputs[1].rows());
        let differentiate = wanted.contains(&true);
        let (mut data, mut losses) = (vec![0.0; 1 + rows], vec![0.0; rows]);
        let each = |chunk: Range<usize>, logits: &mut [f32]| {
            let out = data[1 + chunk.start..1 + chunk.end].par_iter_mut().zip(&mut losses[chunk.clone()]);
            let rows = logits.par_chunks_mut(classes).zip(&self.targets[chunk.clone()]).zip(out).zip(chunk);
            rows.for_each(|(((logits, &target), (out, loss)), row)| {
                let target = target as usize;
                self.options.shape(logits);
                let softmax = Softmax::new(logits);
                let log_probability = softmax.log_probability(logits[target]);
                let token = (self.losses)(row, log_probability);
                (*out, *loss) = (log_probability as f32, token.loss);
                if differentiate {
                    let slope = token.slope as f32;
                    let gradient = Gradient { by_p: -slope, by_p_ln_p: 0.0, to_all: 0.0, to_target: slope };
                    gradient.replace(logits, target, softmax, &self.options);
                }
            });
        };
        let saved = if differentiate {
            head.gradients(wanted, each)
        } else {
            head.chunks(each);
            Vec::new()
        };
        data[0] = losses.into_iter().sum::<f64>() as f32;
        Forward { data, shape: vec![1 + rows], saved }
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        scaled(context)
    }

    fn keeps_input(&self, _: usize, _: &[bool]) -> bool {
        false
    }
}

/// The value is that of the losses; the gradient that of the log-probabilities weighted by the losses' slopes.
pub(super) fn plain(logits: Tensor<2>, targets: &[u32], options: &HeadOptions, losses: &TokenLosses) -> (Tensor<1>, Vec<f32>) {
    let [_, of_target] = plain_log_probabilities(logits, targets, options);
    let n = targets.len();
    let values: Vec<f64> = of_target.clone().detach().into_data().convert::<f64>().try_to_vec().expect("floats");
    let tokens: Vec<TokenLoss> = values.iter().enumerate().map(|(row, &value)| losses(row, value)).collect();
    let slopes = TensorData::new(tokens.iter().map(|token| token.slope).collect::<Vec<_>>(), [n, 1]);
    let sum: f64 = tokens.iter().map(|token| token.loss).sum();
    let moving = (of_target.clone() * Tensor::from_data(slopes, (&of_target.device(), of_target.dtype()))).sum();
    let loss = moving.clone() - moving.detach() + sum;
    (loss, values.into_iter().map(|value| value as f32).collect())
}

/// `Σ_i losses(i, ln p(targets_i))` under an output head, and the log-probabilities themselves, in nats and without a gradient. As with
/// [`head_cross_entropy`](super::head_cross_entropy), a chunk of logits becomes its own gradient while it is there, so nothing is computed
/// twice.
///
/// # Shapes
/// `hidden`: `[rows, width]`; `weight`: `[classes, width]`; `bias`: `[classes]`; `targets` and the log-probabilities: one per row; the
/// loss: `[1]`.
///
/// # Panics
/// If a target is no class.
pub fn head_token_loss(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: &Arc<[u32]>,
    options: HeadOptions,
    losses: TokenLosses,
) -> (Tensor<1>, Vec<f32>) {
    assert_head(&hidden, &weight, &bias, targets, &options);
    if !on_host(&hidden.device()) {
        return plain(plain_linear(hidden, weight, bias), targets, &options, &losses);
    }
    let kernel = HeadTokenLoss { targets: targets.clone(), options, losses, chunk_logits: CHUNK_LOGITS };
    let out: Tensor<1> = apply(kernel, [hidden.into_dispatch(), weight.into_dispatch()].into_iter().chain(bias.map(Tensor::into_dispatch)));
    let mut values: Vec<f32> = out.clone().detach().into_data().try_to_vec().expect("the kernel's output is f32");
    (out.narrow(0, 0, 1), values.split_off(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_kernel;

    /// Quadratic in the log-probability, with a factor of each row's own; one row does not count.
    fn losses() -> TokenLosses {
        Arc::new(|row, x| {
            let factor = [0.25, -1.5, 0.0, 2.0, 1.0][row];
            TokenLoss { loss: factor * (x + 1.0).powi(2), slope: 2.0 * factor * (x + 1.0) }
        })
    }

    /// The same in Burn's operations, whose gradient is Burn's own.
    fn quadratic(logits: Tensor<2>, targets: &[u32], options: &HeadOptions) -> Tensor<2> {
        let [_, x] = plain_log_probabilities(logits, targets, options);
        let factors = TensorData::new(vec![0.25, -1.5, 0.0, 2.0, 1.0], [5, 1]);
        let factors = Tensor::from_data(factors, (&x.device(), x.dtype()));
        ((x.clone() + 1.0) * (x + 1.0) * factors).sum().unsqueeze()
    }

    #[test]
    fn fused_and_plain_match_burn() {
        let targets: Arc<[u32]> = Arc::from([4, 0, 32, 4, 17]);
        for (temperature, soft_cap) in [(1.0, None), (0.7, None), (1.3, Some(2.5))] {
            let options = HeadOptions { temperature, soft_cap, label_smoothing: 0.0 };
            let exact = |[h, w]: [Tensor<2>; 2]| quadratic(plain_linear(h, w * 3.0, None), &targets, &options);
            assert_kernel(
                [[5, 12], [33, 12]],
                1e-5,
                |[h, w]| head_token_loss(h, w * 3.0, None, &targets, options, losses()).0.unsqueeze(),
                exact,
            );
            assert_kernel(
                [[5, 12], [33, 12]],
                1e-5,
                |[h, w]| plain(plain_linear(h, w * 3.0, None), &targets, &options, &losses()).0.unsqueeze(),
                exact,
            );
        }
    }

    #[test]
    fn chunks_make_no_difference_and_log_probabilities_come_along() {
        let targets: Arc<[u32]> = Arc::from([4, 0, 32, 4, 17]);
        let tensor = |rows: usize, seed| {
            let data = TensorData::new(crate::testing::numbers(rows * 12, seed), [rows, 12]);
            Tensor::<2>::from_data(data, &burn::tensor::Device::flex())
        };
        let (hidden, weight) = (tensor(5, 1), tensor(33, 2));
        let options = HeadOptions::default();
        let (loss, found) = head_token_loss(hidden.clone(), weight.clone(), None, &targets, options, losses());
        let expected = super::super::head_log_probabilities(hidden.clone(), weight.clone(), None, &targets, options);
        let expected: Vec<f32> = expected.into_data().try_to_vec().expect("f32");
        assert_eq!(found, expected.iter().step_by(2).copied().collect::<Vec<_>>());
        let cut = HeadTokenLoss { targets, options, losses: losses(), chunk_logits: 66 };
        let cut: Tensor<1> = apply(cut, [hidden.into_dispatch(), weight.into_dispatch()]);
        let cut: Vec<f32> = cut.into_data().try_to_vec().expect("f32");
        assert!((cut[0] - loss.into_scalar::<f32>()).abs() < 1e-5);
        assert_eq!(cut[1..], found);
    }
}
