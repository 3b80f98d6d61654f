//! The attention layer of a block, and the cache of keys and values that generation keeps.

use crate::Result;
use crate::builder::Builder;
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::norm::Norm;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::attention::{AttentionShape, attention, attention_of_newest, cached_attention};
use kiln_kernels::random::Key;
use kiln_kernels::rotary::{Rotary, rotate};
use kiln_kernels::rows::{take_rows, write_rows};
use kiln_kernels::segments::Segments;
use std::sync::Arc;

/// Multi-head attention over segments (arXiv:1706.03762, Section 3.2), with grouped key/value heads and rotary positions where the family
/// has them.
#[derive(Module, Debug)]
pub struct Attention {
    /// Width to heads x head width.
    pub query: Linear,
    /// Width to key/value heads x head width.
    pub key: Linear,
    /// Width to key/value heads x head width.
    pub value: Linear,
    /// Heads x head width to width.
    pub output: Linear,
    /// Normalisation of each head's query, in families that have it.
    pub query_norm: Option<Norm>,
    /// Normalisation of each head's key, in families that have it.
    pub key_norm: Option<Norm>,
    #[module(skip)]
    shape: AttentionShape,
    #[module(skip)]
    dropout: f32,
}

/// What a block needs to know about the tokens that pass through it.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Where each sequence starts and ends.
    pub segments: Segments,
    /// Each token's position in its sequence, `[tokens]`.
    pub positions: Arc<[u32]>,
    /// What the tokens of each sequence look at, if not only at each other: the sequences with what they go on from, and the row of each of
    /// their tokens.
    pub keys: Option<(Segments, Arc<[u32]>)>,
    /// Rotary tables, in families that have them.
    pub rotary: Option<Rotary>,
    /// The tokens whose output is wanted; `None` for all.
    pub rows: Option<Arc<[u32]>>,
    /// The randomness of dropout; `None` when not training.
    pub dropout: Option<Key>,
}

impl Attention {
    /// The layer whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, config: &ModelConfig) -> Result<Self> {
        let width = config.hidden_size;
        let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let mut linear =
            |name: &str, n_in, n_out, bias| Linear::build(builder, &format!("{path}.{name}"), n_in, n_out, bias, config.initializer_range);
        let query = linear("query", width, queries, config.query_key_value_bias)?;
        let key = linear("key", width, keys, config.query_key_value_bias)?;
        let value = linear("value", width, keys, config.query_key_value_bias)?;
        let output = linear("output", queries, width, config.attention_output_bias)?;
        let mut norm = |name: &str| {
            config.query_key_norm.then(|| Norm::build(builder, &format!("{path}.{name}"), config.head_dim, config)).transpose()
        };
        Ok(Self {
            query_norm: norm("query_norm")?,
            key_norm: norm("key_norm")?,
            query,
            key,
            value,
            output,
            shape: AttentionShape {
                heads: config.n_heads,
                kv_heads: config.n_kv_heads,
                head_dim: config.head_dim,
                causal: config.causal,
                window: config.window,
                scale: (config.head_dim as f32).powf(-0.5),
                softcap: None,
            },
            dropout: config.attention_dropout,
        })
    }

    /// # Shapes
    /// `x`: `[tokens, width]`; the output: the same, or `[wanted rows, width]`.
    pub fn forward(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let (query, key, value) = self.project(x, pass);
        let dropout = pass.dropout.filter(|_| self.dropout > 0.0).map(|key| (self.dropout, key));
        let attended = match &pass.keys {
            Some((segments, rows)) => {
                let [key, value] = [key, value].map(|x| take_rows(x, rows));
                attention_of_newest(query, key, value, [&pass.segments, segments], &self.shape, dropout)
            }
            None => attention(query, key, value, &pass.segments, &self.shape, dropout),
        };
        self.output.forward(match &pass.rows {
            Some(rows) => take_rows(attended, rows),
            None => attended,
        })
    }

    /// Attention of new tokens over the cache, to which they are added first. `spans` are the cache rows of each sequence with its new tokens.
    ///
    /// # Shapes
    /// `x` and the output: `[new tokens, width]`.
    pub fn forward_cached(&self, x: Tensor<2>, pass: &Pass, cache: &mut LayerCache, spans: &[(usize, usize)]) -> Tensor<2> {
        let (query, key, value) = self.project(x, pass);
        cache.append(key, value, &pass.segments, spans);
        let (keys, values) = cache.tensors();
        self.output.forward(cached_attention(query, keys, values, &pass.segments, spans, &self.shape))
    }

    /// An empty cache of `rows` tokens for this layer.
    pub fn cache(&self, rows: usize, device: &Device) -> LayerCache {
        let empty = || Some(Tensor::zeros([rows, self.shape.kv_heads * self.shape.head_dim], device));
        LayerCache { keys: empty(), values: empty() }
    }

    fn project(&self, x: Tensor<2>, pass: &Pass) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let turn = |x, norm: &Option<Norm>| {
            let x = match norm {
                Some(norm) => self.normalised(x, norm),
                None => x,
            };
            match &pass.rotary {
                Some(rotary) => rotate(x, rotary, &pass.positions, self.shape.head_dim),
                None => x,
            }
        };
        let (query, key) = (self.query.forward(x.clone()), self.key.forward(x.clone()));
        (turn(query, &self.query_norm), turn(key, &self.key_norm), self.value.forward(x))
    }

    /// Each head on its own.
    fn normalised(&self, x: Tensor<2>, norm: &Norm) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let head_dim = self.shape.head_dim;
        norm.forward(x.reshape([tokens * width / head_dim, head_dim])).reshape([tokens, width])
    }
}

/// Keys and values of one layer, `[rows, kv width]`; each sequence owns a span of rows.
#[derive(Debug)]
pub struct LayerCache {
    // Options only so that the tensors can be moved out, written in place and moved back.
    keys: Option<Tensor<2>>,
    values: Option<Tensor<2>>,
}

impl LayerCache {
    fn append(&mut self, key: Tensor<2>, value: Tensor<2>, segments: &Segments, spans: &[(usize, usize)]) {
        let moves: Vec<(usize, usize, usize)> =
            segments.ranges().zip(spans).map(|(new, (start, count))| (start + count - new.len(), new.start, new.len())).collect();
        self.keys = self.keys.take().map(|keys| write_rows(keys, key, &moves));
        self.values = self.values.take().map(|values| write_rows(values, value, &moves));
    }

    /// Moves of rows `(to, from, count)` into an empty cache of `rows` tokens.
    pub fn moved(&self, rows: usize, moves: &[(usize, usize, usize)]) -> Self {
        let moved = |tensor: Tensor<2>| {
            let empty = Tensor::zeros([rows, tensor.dims()[1]], &tensor.device());
            Some(write_rows(empty, tensor, moves))
        };
        let (keys, values) = self.tensors();
        Self { keys: moved(keys), values: moved(values) }
    }

    fn tensors(&self) -> (Tensor<2>, Tensor<2>) {
        match (&self.keys, &self.values) {
            (Some(keys), Some(values)) => (keys.clone(), values.clone()),
            _ => unreachable!("the tensors are only away inside append"),
        }
    }
}
