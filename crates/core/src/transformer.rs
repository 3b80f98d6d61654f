//! The transformer's trunk: embeddings and blocks, for every family.

use crate::attention::{Attention, LayerCache, Pass};
use crate::builder::{Builder, Init};
use crate::config::{Llama3Scaling, ModelConfig, NormPlace, PositionKind};
use crate::feed_forward::FeedForward;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::packed::{Branched, Packed};
use crate::recompute::recompute;
use crate::{Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use kiln_kernels::dropout::dropout;
use kiln_kernels::embedding::embedding;
use kiln_kernels::host::on_host;
use kiln_kernels::random::Key;
use kiln_kernels::rotary::Rotary;
use kiln_kernels::rows::take_rows;
use kiln_kernels::segments::Segments;
use std::sync::Arc;

/// A table of vectors, one per id.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[ids, width]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    fn build(builder: &mut Builder, path: &str, rows: usize, config: &ModelConfig) -> Result<Self> {
        let shape = [rows, config.hidden_size];
        Ok(Self { weight: builder.parameter(&format!("{path}.weight"), shape, Init::Normal(config.initializer_range))? })
    }

    fn forward(&self, ids: &Arc<[u32]>) -> Tensor<2> {
        embedding(self.weight.val(), ids)
    }
}

/// Token embeddings, and what some families add to them.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// One vector per token of the vocabulary.
    pub token: Embedding,
    /// One vector per position, in families with learned positions.
    pub position: Option<Embedding>,
    /// One vector per token type, in families with token types.
    pub token_type: Option<Embedding>,
    /// Normalisation of the sum, in families with post-normalisation.
    pub norm: Option<Norm>,
}

/// One block: attention and feed-forward, each with its residual and normalisation.
#[derive(Module, Debug)]
pub struct Layer {
    /// Attention.
    pub attention: Attention,
    /// Its normalisation.
    pub attention_norm: Norm,
    /// Feed-forward.
    pub feed_forward: FeedForward,
    /// Its normalisation.
    pub feed_forward_norm: Norm,
    #[module(skip)]
    place: NormPlace,
    #[module(skip)]
    dropout: f32,
}

/// Embeddings and blocks: token ids to hidden states.
#[derive(Module, Debug)]
pub struct Transformer {
    /// Embeddings.
    pub embeddings: Embeddings,
    /// Blocks, first to last.
    pub layers: Vec<Layer>,
    /// Normalisation after the last block, in families with pre-normalisation.
    pub final_norm: Option<Norm>,
    #[module(skip)]
    rotary: Option<Rotary>,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    gradient_checkpointing: bool,
}

/// Places of dropout inside a block, for keys of their own.
const ATTENTION_PROBABILITIES: u64 = 0;
const ATTENTION_OUTPUT: u64 = 1;
const FEED_FORWARD_OUTPUT: u64 = 2;
const EMBEDDINGS: u64 = u64::MAX;

fn drop(x: Tensor<2>, probability: f32, key: Option<Key>) -> Tensor<2> {
    match key {
        Some(key) if probability > 0.0 => dropout(x, probability, key),
        _ => x,
    }
}

impl Layer {
    fn build(builder: &mut Builder, path: &str, config: &ModelConfig) -> Result<Self> {
        Ok(Self {
            attention: Attention::build(builder, &format!("{path}.attention"), config)?,
            attention_norm: Norm::build(builder, &format!("{path}.attention_norm"), config.hidden_size, config)?,
            feed_forward: FeedForward::build(builder, &format!("{path}.feed_forward"), config)?,
            feed_forward_norm: Norm::build(builder, &format!("{path}.feed_forward_norm"), config.hidden_size, config)?,
            place: config.norm_place,
            dropout: config.hidden_dropout,
        })
    }

    /// `attend` is the block's attention, with or without a cache; it gives `rows` only, or all without any.
    fn forward(&self, x: Tensor<2>, rows: Option<&Arc<[u32]>>, key: Option<Key>, attend: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let drop = |x, place| drop(x, self.dropout, key.map(|key| key.fold(place)));
        let wanted = |x| match rows {
            Some(rows) => take_rows(x, rows),
            None => x,
        };
        match self.place {
            NormPlace::Pre => {
                let x = wanted(x.clone()) + drop(attend(self.attention_norm.forward(x)), ATTENTION_OUTPUT);
                x.clone() + drop(self.feed_forward.forward(self.feed_forward_norm.forward(x)), FEED_FORWARD_OUTPUT)
            }
            NormPlace::Post => {
                let x = self.attention_norm.forward(wanted(x.clone()) + drop(attend(x), ATTENTION_OUTPUT));
                self.feed_forward_norm.forward(x.clone() + drop(self.feed_forward.forward(x), FEED_FORWARD_OUTPUT))
            }
        }
    }
}

impl Transformer {
    /// The trunk whose parameters the builder has at `trunk`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them or they do not fit `config`.
    pub fn build(builder: &mut Builder, config: &ModelConfig) -> Result<Self> {
        let post = config.norm_place == NormPlace::Post;
        let learned = config.position == PositionKind::Learned;
        let embeddings = Embeddings {
            token: Embedding::build(builder, "trunk.embeddings.token", config.vocab_size, config)?,
            position: learned.then(|| Embedding::build(builder, "trunk.embeddings.position", config.max_positions, config)).transpose()?,
            token_type: (config.n_token_types > 0)
                .then(|| Embedding::build(builder, "trunk.embeddings.token_type", config.n_token_types, config))
                .transpose()?,
            norm: post.then(|| Norm::build(builder, "trunk.embeddings.norm", config.hidden_size, config)).transpose()?,
        };
        let layers =
            (0..config.n_layers).map(|index| Layer::build(builder, &format!("trunk.layers.{index}"), config)).collect::<Result<_>>()?;
        let final_norm = (!post).then(|| Norm::build(builder, "trunk.final_norm", config.hidden_size, config)).transpose()?;
        let rotary = match &config.position {
            PositionKind::Learned => None,
            PositionKind::Rotary { theta, scaling } => {
                Some(Rotary::new(&inverse_frequencies(config.head_dim, *theta, *scaling), 1.0, config.max_positions))
            }
        };
        builder.check_trunk()?;
        Ok(Self { embeddings, layers, final_norm, rotary, dropout: config.embedding_dropout, gradient_checkpointing: false })
    }

    /// Whether a training step keeps only each block's input and computes the block again in the backward pass: less memory, more time,
    /// the same bytes (arXiv:1604.06174, Section 4). Off at first.
    ///
    /// # Errors
    /// [`Error::Config`] if it is asked for on a device without host memory.
    pub fn set_gradient_checkpointing(&mut self, enabled: bool) -> Result<()> {
        let device = self.embeddings.token.weight.val().device();
        if enabled && !on_host(&device) {
            let message =
                format!("found true, which only works on a CPU, not on {device:?}; a smaller micro_batch_tokens saves memory too");
            return Err(Error::config("gradient_checkpointing", message));
        }
        self.gradient_checkpointing = enabled;
        Ok(())
    }

    /// Hidden states of every token. `dropout` is the randomness of this step; `None` when not training.
    ///
    /// # Shapes
    /// Output `[tokens, width]`.
    pub fn forward(&self, batch: &Packed, dropout: Option<Key>) -> Tensor<2> {
        self.run(batch, own_positions(batch), None, None, dropout)
    }

    /// Hidden states of the tokens at `rows`, in their order. The last block computes no others, but for the keys and values they look at.
    ///
    /// # Shapes
    /// Output `[rows, width]`.
    pub fn forward_rows(&self, batch: &Packed, rows: &Arc<[u32]>, dropout: Option<Key>) -> Tensor<2> {
        let all = rows.iter().copied().eq(0..batch.ids.len() as u32);
        self.run(batch, own_positions(batch), None, (!all).then_some(rows), dropout)
    }

    /// The same for sequences that may share a beginning, which is computed once: without dropout what they would be each by itself.
    ///
    /// # Shapes
    /// Output `[rows, width]`.
    pub fn forward_branches(&self, batch: &Branched, rows: &Arc<[u32]>, dropout: Option<Key>) -> Tensor<2> {
        self.run(&batch.packed, batch.positions(), batch.keys(), Some(rows), dropout)
    }

    fn run(
        &self,
        batch: &Packed,
        positions: Arc<[u32]>,
        keys: Option<(Segments, Arc<[u32]>)>,
        rows: Option<&Arc<[u32]>>,
        dropout: Option<Key>,
    ) -> Tensor<2> {
        let mut x = self.embed(&batch.ids, &batch.token_types, &positions, dropout);
        for (index, layer) in self.layers.iter().enumerate() {
            let key = dropout.map(|key| key.fold(index as u64));
            let pass = Pass {
                segments: batch.segments.clone(),
                positions: positions.clone(),
                keys: keys.clone(),
                rotary: self.rotary.clone(),
                rows: rows.filter(|_| index + 1 == self.layers.len()).cloned(),
                dropout: key.map(|key| key.fold(ATTENTION_PROBABILITIES)),
            };
            let block = move |layer: &Layer, x| layer.forward(x, pass.rows.as_ref(), key, |x| layer.attention.forward(x, &pass));
            x = if self.gradient_checkpointing { recompute(layer, x, block) } else { block(layer, x) };
        }
        self.finish(x)
    }

    /// Hidden states of the next tokens of each sequence, whose earlier tokens are in `cache`; the new ones are added to it.
    ///
    /// # Shapes
    /// Output `[new tokens, width]`.
    pub fn forward_cached(&self, ids: &Arc<[u32]>, segments: &Segments, cache: &mut Cache) -> Tensor<2> {
        let positions: Arc<[u32]> =
            segments.ranges().zip(&cache.lengths).flat_map(|(new, &old)| old..old + new.len()).map(|position| position as u32).collect();
        cache.lengths.iter_mut().zip(segments.ranges()).for_each(|(length, new)| *length += new.len());
        let spans: Vec<(usize, usize)> =
            cache.lengths.iter().enumerate().map(|(sequence, &length)| (sequence * cache.capacity, length)).collect();
        let token_types: Arc<[u32]> = vec![0; ids.len()].into();
        let mut x = self.embed(ids, &token_types, &positions, None);
        let pass = Pass { segments: segments.clone(), positions, keys: None, rotary: self.rotary.clone(), rows: None, dropout: None };
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(x, None, None, |x| layer.attention.forward_cached(x, &pass, cache, &spans));
        }
        self.finish(x)
    }

    /// An empty cache for `n_sequences` sequences of up to `capacity` tokens each.
    pub fn cache(&self, n_sequences: usize, capacity: usize, device: &Device) -> Cache {
        let layers = self.layers.iter().map(|layer| layer.attention.cache(n_sequences * capacity, device)).collect();
        Cache { layers, lengths: vec![0; n_sequences], capacity }
    }

    /// Calls `visit` with every linear layer of the blocks and its path.
    pub fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let path = format!("trunk.layers.{index}");
            for (name, linear) in [
                ("query", &mut layer.attention.query),
                ("key", &mut layer.attention.key),
                ("value", &mut layer.attention.value),
                ("output", &mut layer.attention.output),
            ] {
                visit(&format!("{path}.attention.{name}"), linear);
            }
            let FeedForward { gate, up, down, .. } = &mut layer.feed_forward;
            let gate = gate.as_mut().map(|gate| ("gate", gate));
            for (name, linear) in gate.into_iter().chain([("up", up), ("down", down)]) {
                visit(&format!("{path}.feed_forward.{name}"), linear);
            }
        }
    }

    fn embed(&self, ids: &Arc<[u32]>, token_types: &Arc<[u32]>, positions: &Arc<[u32]>, key: Option<Key>) -> Tensor<2> {
        let Embeddings { token, position, token_type, norm } = &self.embeddings;
        let mut x = token.forward(ids);
        if let Some(table) = token_type {
            x = x + table.forward(token_types);
        }
        if let Some(table) = position {
            x = x + table.forward(positions);
        }
        if let Some(norm) = norm {
            x = norm.forward(x);
        }
        drop(x, self.dropout, key.map(|key| key.fold(EMBEDDINGS)))
    }

    fn finish(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

/// Each token's position in its own sequence.
fn own_positions(batch: &Packed) -> Arc<[u32]> {
    batch.segments.positions().into_iter().map(|position| position as u32).collect()
}

/// Keys and values of all layers for a batch of sequences under generation.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
    /// Tokens each sequence has so far.
    lengths: Vec<usize>,
    /// Tokens each sequence may have.
    capacity: usize,
}

impl Cache {
    /// A cache with `n_each` copies of each sequence, one after the other, of up to `capacity` tokens each.
    pub fn copies(&self, n_each: usize, capacity: usize) -> Self {
        let lengths: Vec<usize> = self.lengths.iter().flat_map(|&length| std::iter::repeat_n(length, n_each)).collect();
        let from = |copy: usize| copy / n_each * self.capacity;
        let moves: Vec<_> = lengths.iter().enumerate().map(|(copy, &length)| (copy * capacity, from(copy), length)).collect();
        let layers = self.layers.iter().map(|layer| layer.moved(lengths.len() * capacity, &moves)).collect();
        Self { layers, lengths, capacity }
    }
}

/// Frequencies of the rotary pairs in radians per token, `[head_dim / 2]` (arXiv:2104.09864, Section 3.2.2).
fn inverse_frequencies(head_dim: usize, theta: f64, scaling: Option<Llama3Scaling>) -> Vec<f32> {
    let plain = (0..head_dim / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head_dim as f64));
    plain
        .map(|frequency| match scaling {
            None => frequency as f32,
            Some(s) => {
                let turns = s.original_positions * frequency / (2.0 * std::f64::consts::PI);
                let kept = ((turns - s.low_frequency_factor) / (s.high_frequency_factor - s.low_frequency_factor)).clamp(0.0, 1.0);
                (frequency * (kept + (1.0 - kept) / s.factor)) as f32
            }
        })
        .collect()
}
