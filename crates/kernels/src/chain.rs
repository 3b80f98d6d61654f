//! Two kernels in a row, of which the first is cheap: its output is computed again in the backward pass instead of kept for it.

use crate::kernel::{Context, Forward, Kernel, Operand};
use std::iter::once;

/// `second(first(x₁ … xₙ), xₙ₊₁ …)`.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) first: Box<dyn Kernel>,
    /// How many of the inputs are those of `first`.
    pub(crate) n_first: usize,
    pub(crate) second: Box<dyn Kernel>,
}

impl Chain {
    /// Which inputs of `second` want a gradient.
    fn second_wanted(&self, wanted: &[bool]) -> Vec<bool> {
        let (first, rest) = wanted.split_at(self.n_first);
        once(first.contains(&true)).chain(rest.iter().copied()).collect()
    }
}

impl Kernel for Chain {
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward {
        let (first, rest) = inputs.split_at(self.n_first);
        let Forward { data, shape, .. } = self.first.forward(first, &vec![false; self.n_first]);
        let inputs: Vec<Operand> = once(Operand { data: &data, shape: &shape }).chain(rest.iter().copied()).collect();
        self.second.forward(&inputs, &self.second_wanted(wanted))
    }

    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        let wanted = &context.wanted[..self.n_first];
        let first: Vec<Operand> = (0..self.n_first).map(|index| context.input(index)).collect();
        let Forward { data, shape, saved } = self.first.forward(&first, wanted);
        let middle = Operand { data: &data, shape: &shape };
        let mut gradients = self.second.backward(Context {
            inputs: once(Some(middle)).chain(context.inputs[self.n_first..].iter().copied()).collect(),
            wanted: &self.second_wanted(context.wanted),
            ..context
        });
        let rest = gradients.split_off(1);
        let of_first = match gradients.pop().flatten() {
            Some(gradient) => self.first.backward(Context {
                inputs: first.into_iter().map(Some).collect(),
                output: Some(middle),
                saved,
                grad: Operand { data: &gradient, shape: &shape },
                wanted,
            }),
            None => vec![None; self.n_first],
        };
        of_first.into_iter().chain(rest).collect()
    }

    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool {
        index < self.n_first || self.second.keeps_input(index + 1 - self.n_first, &self.second_wanted(wanted))
    }

    fn keeps_output(&self) -> bool {
        self.second.keeps_output()
    }
}
