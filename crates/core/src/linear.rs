//! The linear layer, with a slot for a low-rank adapter.

use crate::Result;
use crate::builder::{Builder, Init};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_kernels::adapter::{self, Dora, linear_adapted, row_lengths};
use kiln_kernels::linear::{LowRank, linear};
use kiln_kernels::random::Key;

/// `y = x·Wᵀ + b`, and with an adapter what [`kiln_kernels::adapter`] makes of it.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as Hugging Face stores it.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The low-rank adapter, if one is attached.
    pub adapter: Option<Adapter>,
}

/// A low-rank adapter (LoRA, arXiv:2106.09685, Eq. 3; with a magnitude DoRA, arXiv:2402.09353, Eq. 5).
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`.
    pub b: Param<Tensor<2>>,
    /// The length of each row of the weight, `[out]`, where it is learnt apart.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// The factor of the adapter's output: alpha / rank, or alpha / √rank.
    pub scale: f64,
    /// The probability with which an element of the adapter's input is dropped while training.
    pub dropout: f64,
    /// The lengths that magnitudes are compared with, while neither weight nor adapter changes.
    #[module(skip)]
    lengths: Option<Tensor<1>>,
}

impl Adapter {
    /// An adapter of these factors.
    pub fn new(a: Tensor<2>, b: Tensor<2>, magnitude: Option<Tensor<1>>, scale: f64, dropout: f64) -> Self {
        let magnitude = magnitude.map(Param::from_tensor);
        Self { a: Param::from_tensor(a), b: Param::from_tensor(b), magnitude, scale, dropout, lengths: None }
    }

    /// The update of the weight, off the tape.
    fn low_rank(&self) -> LowRank {
        LowRank { a: self.a.val().inner(), b: self.b.val().inner(), scale: self.scale as f32 }
    }

    /// The adapter of a layer with this weight, as the kernels take it. `key` is the randomness of this step; `None` when not training.
    fn operand(&self, weight: &Param<Tensor<2>>, key: Option<Key>) -> adapter::Adapter {
        let dora = self.magnitude.as_ref().map(|magnitude| {
            let magnitude = magnitude.val();
            let lengths = self.lengths.clone().unwrap_or_else(|| row_lengths(weight.val().inner(), self.low_rank()));
            let lengths = if magnitude.is_autodiff() { Tensor::from_inner(lengths) } else { lengths };
            Dora { magnitude, lengths }
        });
        adapter::Adapter {
            low_rank: LowRank { a: self.a.val(), b: self.b.val(), scale: self.scale as f32 },
            dropout: key.filter(|_| self.dropout > 0.0).map(|key| (self.dropout as f32, key)),
            dora,
        }
    }
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
        self.forward_dropping(x, None)
    }

    /// The same with the adapter's dropout. `key` is the randomness of this step; `None` when not training.
    ///
    /// # Shapes
    /// As [`Self::forward`].
    pub fn forward_dropping(&self, x: Tensor<2>, key: Option<Key>) -> Tensor<2> {
        let (weight, bias, adapter) = self.operands(key);
        linear_adapted(x, weight, bias, adapter)
    }

    /// Weight, bias and adapter, as the kernels take them.
    pub fn operands(&self, key: Option<Key>) -> (Tensor<2>, Option<Tensor<1>>, Option<adapter::Adapter>) {
        let adapter = self.adapter.as_ref().map(|adapter| adapter.operand(&self.weight, key));
        (self.weight.val(), self.bias.as_ref().map(Param::val), adapter)
    }

    /// Inputs and weight of a layer without an adapter that computes the same, as `x·Wᵀ + s·(x·Aᵀ)·Bᵀ = [x, s·x·Aᵀ]·[W, B]ᵀ`: for kernels that
    /// know no adapters. It costs a copy of the weight.
    ///
    /// # Shapes
    /// `x`: `[rows, in]`; the inputs: `[rows, in + rank]`; the weight: `[out, in + rank]`.
    pub fn widened(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let weight = self.weight.val();
        let Some(adapter) = &self.adapter else { return (x, weight) };
        assert!(adapter.magnitude.is_none(), "a layer with a magnitude is not widened");
        let low = linear(x.clone(), adapter.a.val(), None) * adapter.scale;
        (Tensor::cat(vec![x, low], 1), Tensor::cat(vec![weight, adapter.b.val()], 1))
    }

    /// Compares magnitudes with the lengths of the rows of `weight` and the adapter as they are now, once and for all: for models that do not
    /// change, and for adapters that are merged one after the other, whose lengths are those of the base.
    pub fn fix_lengths(&mut self, weight: Tensor<2>) {
        if let Some(adapter) = self.adapter.as_mut().filter(|adapter| adapter.magnitude.is_some()) {
            adapter.lengths = Some(row_lengths(weight.inner(), adapter.low_rank()));
        }
    }

    /// The weight with the adapter in it, `W + s·B·A`, each row of DoRA's of the length it shall have; off the tape.
    pub fn merged_weight(&self) -> Tensor<2> {
        let weight = self.weight.val().inner();
        let Some(adapter) = &self.adapter else { return weight };
        let LowRank { a, b, scale } = adapter.low_rank();
        let updated = weight.clone() + b.matmul(a).mul_scalar(scale);
        match &adapter.magnitude {
            Some(magnitude) => {
                let lengths = adapter.lengths.clone().unwrap_or_else(|| row_lengths(weight, adapter.low_rank()));
                let factors = magnitude.val().inner() / lengths;
                updated * factors.unsqueeze_dim(1)
            }
            None => updated,
        }
    }
}
