//! A table of vectors, with a slot for a low-rank adapter.

use crate::Result;
use crate::builder::{Builder, Init};
use crate::config::ModelConfig;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_kernels::embedding::embedding;
use kiln_kernels::linear::linear;
use std::sync::Arc;

/// A table of vectors, one per id: row `i` of `E`, and with an adapter of `E + s·A·Bᵀ`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[ids, width]`.
    pub weight: Param<Tensor<2>>,
    /// The low-rank adapter, if one is attached.
    pub adapter: Option<EmbeddingAdapter>,
}

/// A low-rank adapter of a table (LoRA, arXiv:2106.09685, Eq. 3), which only the rows looked up are computed of.
#[derive(Module, Debug)]
pub struct EmbeddingAdapter {
    /// `[ids, rank]`; PEFT stores it transposed.
    pub a: Param<Tensor<2>>,
    /// `[width, rank]`.
    pub b: Param<Tensor<2>>,
    /// The factor of the adapter's output: alpha / rank, or alpha / √rank.
    pub scale: f64,
}

impl EmbeddingAdapter {
    /// An adapter of these factors.
    pub fn new(a: Tensor<2>, b: Tensor<2>, scale: f64) -> Self {
        Self { a: Param::from_tensor(a), b: Param::from_tensor(b), scale }
    }
}

impl Embedding {
    /// The table of so many rows that the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks it.
    pub fn build(builder: &mut Builder, path: &str, rows: usize, config: &ModelConfig) -> Result<Self> {
        let shape = [rows, config.hidden_size];
        Ok(Self { weight: builder.parameter(&format!("{path}.weight"), shape, Init::Normal(config.initializer_range))?, adapter: None })
    }

    /// # Shapes
    /// Output `[ids, width]`.
    pub fn forward(&self, ids: &Arc<[u32]>) -> Tensor<2> {
        let rows = embedding(self.weight.val(), ids);
        match &self.adapter {
            Some(EmbeddingAdapter { a, b, scale }) => rows + linear(embedding(a.val(), ids), b.val(), None) * *scale,
            None => rows,
        }
    }

    /// The table with the adapter in it; off the tape.
    pub fn merged_weight(&self) -> Tensor<2> {
        let weight = self.weight.val().inner();
        match &self.adapter {
            Some(EmbeddingAdapter { a, b, scale }) => weight + a.val().inner().matmul(b.val().inner().transpose()) * *scale,
            None => weight,
        }
    }
}
