//! The attention layer of a block.

use crate::Result;
use crate::builder::Builder;
use crate::cache::LayerCache;
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::rotary::Turn;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::attention::{AttentionShape, attention, attention_of_newest, cached_attention};
use kiln_kernels::random::Key;
use kiln_kernels::rotary::rotate;
use kiln_kernels::rows::take_rows;
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
    /// What the tokens of each sequence look at, if not only at each other: the sequences with what they go on from, and the row of each of
    /// their tokens.
    pub keys: Option<(Segments, Arc<[u32]>)>,
    /// How queries and keys turn, in families with rotary positions.
    pub turn: Option<Turn>,
    /// The tokens whose output is wanted; `None` for all.
    pub rows: Option<Arc<[u32]>>,
    /// The randomness of dropout; `None` when not training.
    pub dropout: Option<Key>,
}

/// A place of dropout that no attention probabilities have.
const ADAPTERS: u64 = u64::MAX;

impl Pass {
    /// The randomness of the adapter's dropout in one of the layers.
    fn adapter_dropout(&self, layer: u64) -> Option<Key> {
        self.dropout.map(|key| key.fold(ADAPTERS).fold(layer))
    }
}

impl Attention {
    /// The layer of the block `layer`, whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, layer: usize, config: &ModelConfig) -> Result<Self> {
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
                window: config.window(layer),
                scale: if config.attention_scale_by_layer { config.attention_scale / (layer + 1) as f32 } else { config.attention_scale },
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
        let wanted = match &pass.rows {
            Some(rows) => take_rows(attended, rows),
            None => attended,
        };
        self.output.forward_dropping(wanted, pass.adapter_dropout(3))
    }

    /// Attention of the newest tokens of each sequence over its earlier ones in the cache, to which they are added.
    ///
    /// # Shapes
    /// `x` and the output: `[new tokens, width]`.
    pub fn forward_cached(&self, x: Tensor<2>, pass: &Pass, cache: &mut LayerCache) -> Tensor<2> {
        let (query, key, value) = self.project(x, pass);
        cache.append(key, value, &pass.segments);
        let attended = cached_attention(query, cache.keys(), cache.values(), &pass.segments, &cache.spans(), &self.shape);
        cache.shrink();
        self.output.forward(attended)
    }

    /// An empty cache of this layer for so many sequences of up to `capacity` tokens each.
    pub fn cache(&self, n_sequences: usize, capacity: usize, device: &Device) -> LayerCache {
        LayerCache::new(n_sequences, capacity, self.shape.window, self.shape.kv_heads * self.shape.head_dim, device)
    }

    fn project(&self, x: Tensor<2>, pass: &Pass) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let turn = |x, norm: &Option<Norm>| {
            let x = match norm {
                Some(norm) => self.normalised(x, norm),
                None => x,
            };
            match &pass.turn {
                Some(Turn { rotary, rows }) => rotate(x, rotary, rows, self.shape.head_dim),
                None => x,
            }
        };
        let query = self.query.forward_dropping(x.clone(), pass.adapter_dropout(0));
        let key = self.key.forward_dropping(x.clone(), pass.adapter_dropout(1));
        let value = self.value.forward_dropping(x, pass.adapter_dropout(2));
        (turn(query, &self.query_norm), turn(key, &self.key_norm), value)
    }

    /// Each head on its own.
    fn normalised(&self, x: Tensor<2>, norm: &Norm) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let head_dim = self.shape.head_dim;
        norm.forward(x.reshape([tokens * width / head_dim, head_dim])).reshape([tokens, width])
    }
}
