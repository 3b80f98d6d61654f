//! The linear layer, with a slot for a low-rank adapter.

use crate::Result;
use crate::builder::{Builder, Init};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_kernels::linear::{LowRank, linear, linear_low_rank};

/// `y = x·Wᵀ + b`, and with an adapter `y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as Hugging Face stores it.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The low-rank adapter, if one is attached.
    pub adapter: Option<Adapter>,
}

/// A low-rank adapter (LoRA, arXiv:2106.09685, Eq. 3).
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`.
    pub b: Param<Tensor<2>>,
    /// The factor of the adapter's output, alpha / rank.
    pub scale: f64,
}

impl Linear {
    /// The layer whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, n_in: usize, n_out: usize, bias: bool, deviation: f32) -> Result<Self> {
        let weight = builder.parameter(&format!("{path}.weight"), [n_out, n_in], Init::Normal(deviation))?;
        let bias = bias.then(|| builder.parameter(&format!("{path}.bias"), [n_out], Init::Zeros)).transpose()?;
        Ok(Self { weight, bias, adapter: None })
    }

    /// The same for a head, which a checkpoint may lack: how its `bias` starts then, if it has one.
    ///
    /// # Errors
    /// If the builder's checkpoint has it in another shape.
    pub fn build_new(builder: &mut Builder, path: &str, n_in: usize, n_out: usize, bias: Option<Init<'_>>, deviation: f32) -> Result<Self> {
        let weight = builder.new_parameter(&format!("{path}.weight"), [n_out, n_in], Init::Normal(deviation))?;
        let bias = bias.map(|init| builder.new_parameter(&format!("{path}.bias"), [n_out], init)).transpose()?;
        Ok(Self { weight, bias, adapter: None })
    }

    /// # Shapes
    /// `x`: `[rows, in]`, output `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self.operands() {
            (weight, bias, None) => linear(x, weight, bias),
            (weight, bias, Some(adapter)) => linear_low_rank(x, weight, bias, adapter),
        }
    }

    /// Weight, bias and adapter, as the kernels take them.
    pub fn operands(&self) -> (Tensor<2>, Option<Tensor<1>>, Option<LowRank>) {
        let low_rank = |adapter: &Adapter| LowRank { a: adapter.a.val(), b: adapter.b.val(), scale: adapter.scale as f32 };
        (self.weight.val(), self.bias.as_ref().map(Param::val), self.adapter.as_ref().map(low_rank))
    }

    /// The weight with the adapter in it, `W + s·B·A`, off the tape.
    pub fn merged_weight(&self) -> Tensor<2> {
        let weight = self.weight.val().inner();
        match &self.adapter {
            Some(Adapter { a, b, scale }) => weight + b.val().inner().matmul(a.val().inner()).mul_scalar(*scale),
            None => weight,
        }
    }
}
