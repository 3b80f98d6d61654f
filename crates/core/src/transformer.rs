//! The transformer's trunk: embeddings and blocks, for every family.

use crate::attention::{Attention, Pass};
use crate::builder::Builder;
use crate::cache::Cache;
use crate::config::{ModelConfig, NormPlace, PositionKind};
use crate::embedding::Embedding;
use crate::feed_forward::FeedForward;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::packed::{Branched, Packed};
use crate::recompute::recompute;
use crate::rotary::{Tables, Turn};
use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::dropout::dropout;
use kiln_kernels::host::on_host;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use kiln_kernels::segments::Segments;
use std::sync::Arc;

/// Token embeddings, and what some families add to them.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// One vector per token of the vocabulary.
    pub token: Embedding,
    /// One vector per position, in families with learned positions.
    pub position: Option<Embedding>,
    /// One vector per token type, in families with token types.
    pub token_type: Option<Embedding>,
    /// Normalisation of the sum, in encoders.
    pub norm: Option<Norm>,
    /// Factor of the token embeddings.
    #[module(skip)]
    scale: f32,
    /// The row of the position table for a sequence's first token.
    #[module(skip)]
    first_position: u32,
}

/// One block: attention and feed-forward, each with its residual and normalisation.
#[derive(Module, Debug)]
pub struct Layer {
    /// Attention.
    pub attention: Attention,
    /// Its normalisation; the first block of some families has none.
    pub attention_norm: Option<Norm>,
    /// Normalisation of its output, in families with sandwich normalisation.
    pub attention_output_norm: Option<Norm>,
    /// Feed-forward.
    pub feed_forward: FeedForward,
    /// Its normalisation.
    pub feed_forward_norm: Norm,
    /// Normalisation of its output, in families with sandwich normalisation.
    pub feed_forward_output_norm: Option<Norm>,
    #[module(skip)]
    place: NormPlace,
    /// Whether its attention has a window.
    #[module(skip)]
    slides: bool,
    #[module(skip)]
    attention_dropout: f32,
    #[module(skip)]
    feed_forward_dropout: f32,
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
    /// Rotary tables of blocks without and with a window.
    #[module(skip)]
    rotary: Option<[Tables; 2]>,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    gradient_checkpointing: bool,
}

/// Places of dropout inside a block, for keys of their own.
const ATTENTION_PROBABILITIES: u64 = 0;
const ATTENTION_OUTPUT: u64 = 1;
const FEED_FORWARD_OUTPUT: u64 = 2;
const IN_FEED_FORWARD: u64 = 3;
const EMBEDDINGS: u64 = u64::MAX;

fn drop(x: Tensor<2>, probability: f32, key: Option<Key>) -> Tensor<2> {
    match key {
        Some(key) if probability > 0.0 => dropout(x, probability, key),
        _ => x,
    }
}

/// What `norm` makes of `x`, if there is one.
fn normalised(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

impl Layer {
    fn build(builder: &mut Builder, path: &str, layer: usize, config: &ModelConfig) -> Result<Self> {
        let attention = Attention::build(builder, &format!("{path}.attention"), layer, config)?;
        let feed_forward = FeedForward::build(builder, &format!("{path}.feed_forward"), config)?;
        let mut norm = |name: &str| Norm::build(builder, &format!("{path}.{name}"), config.hidden_size, config);
        let sandwich = config.norm_place == NormPlace::Sandwich;
        Ok(Self {
            attention_norm: (layer > 0 || config.first_norm).then(|| norm("attention_norm")).transpose()?,
            attention_output_norm: sandwich.then(|| norm("attention_output_norm")).transpose()?,
            feed_forward_norm: norm("feed_forward_norm")?,
            feed_forward_output_norm: sandwich.then(|| norm("feed_forward_output_norm")).transpose()?,
            attention,
            feed_forward,
            place: config.norm_place,
            slides: config.window(layer).is_some(),
            attention_dropout: config.attention_output_dropout,
            feed_forward_dropout: config.feed_forward_output_dropout,
        })
    }

    /// `attend` is the block's attention, with or without a cache; it gives `rows` only, or all without any.
    fn forward(&self, x: Tensor<2>, rows: Option<&Arc<[u32]>>, key: Option<Key>, attend: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let at = |place| key.map(|key| key.fold(place));
        let attend = |x| drop(normalised(&self.attention_output_norm, attend(x)), self.attention_dropout, at(ATTENTION_OUTPUT));
        let feed_forward = |x| {
            let y = normalised(&self.feed_forward_output_norm, self.feed_forward.forward(x, at(IN_FEED_FORWARD)));
            drop(y, self.feed_forward_dropout, at(FEED_FORWARD_OUTPUT))
        };
        let wanted = |x| match rows {
            Some(rows) => take_rows(x, rows),
            None => x,
        };
        match self.place {
            NormPlace::Pre | NormPlace::Sandwich => {
                let x = wanted(x.clone()) + attend(normalised(&self.attention_norm, x));
                x.clone() + feed_forward(self.feed_forward_norm.forward(x))
            }
            NormPlace::Post => {
                let x = normalised(&self.attention_norm, wanted(x.clone()) + attend(x));
                self.feed_forward_norm.forward(x.clone() + feed_forward(x))
            }
        }
    }

    /// How the tokens turn in this block.
    fn turn(&self, turns: &Option<[Turn; 2]>) -> Option<Turn> {
        turns.as_ref().map(|[full, sliding]| if self.slides { sliding.clone() } else { full.clone() })
    }
}

impl Transformer {
    /// The trunk whose parameters the builder has at `trunk`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them or they do not fit `config`.
    pub fn build(builder: &mut Builder, config: &ModelConfig) -> Result<Self> {
        // The first rows of the table may stand for no position.
        let first_position = match config.position {
            PositionKind::Learned { first } => Some(first),
            PositionKind::Rotary { .. } => None,
        };
        let mut table = |name: &str, rows| Embedding::build(builder, &format!("trunk.embeddings.{name}"), rows, config);
        let token = table("token", config.vocab_size)?;
        let position = first_position.map(|first| table("position", first + config.max_positions)).transpose()?;
        let token_type = (config.n_token_types > 0).then(|| table("token_type", config.n_token_types)).transpose()?;
        let mut norm = |name: &str| Norm::build(builder, &format!("trunk.{name}"), config.hidden_size, config);
        let embeddings = Embeddings {
            token,
            position,
            token_type,
            norm: config.embedding_norm.then(|| norm("embeddings.norm")).transpose()?,
            scale: config.embedding_scale,
            first_position: first_position.unwrap_or_default() as u32,
        };
        let final_norm = (config.norm_place != NormPlace::Post).then(|| norm("final_norm")).transpose()?;
        let layers = (0..config.n_layers)
            .map(|index| Layer::build(builder, &format!("trunk.layers.{index}"), index, config))
            .collect::<Result<_>>()?;
        let rotary = match &config.position {
            PositionKind::Learned { .. } => None,
            PositionKind::Rotary { full, sliding } => {
                let tables = Tables::new(*full, config.head_dim);
                Some([tables.clone(), if sliding == full { tables } else { Tables::new(*sliding, config.head_dim) }])
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
        let sequences = keys.as_ref().map_or(&batch.segments, |(sequences, _)| sequences);
        let lengths: Vec<usize> = sequences.ranges().map(|tokens| tokens.len()).collect();
        let turns = self.turns(&batch.segments, &positions, &lengths);
        let mut x = self.embed(&batch.ids, &batch.token_types, &positions, dropout);
        for (index, layer) in self.layers.iter().enumerate() {
            let key = dropout.map(|key| key.fold(index as u64));
            let pass = Pass {
                segments: batch.segments.clone(),
                keys: keys.clone(),
                turn: layer.turn(&turns),
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
        let token_types: Arc<[u32]> = vec![0; ids.len()].into();
        let mut x = self.embed(ids, &token_types, &positions, None);
        let turns = self.turns(segments, &positions, &cache.lengths);
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            let pass = Pass { segments: segments.clone(), keys: None, turn: layer.turn(&turns), rows: None, dropout: None };
            x = layer.forward(x, None, None, |x| layer.attention.forward_cached(x, &pass, cache));
        }
        self.finish(x)
    }

    /// An empty cache for `n_sequences` sequences of up to `capacity` tokens each.
    pub fn cache(&self, n_sequences: usize, capacity: usize, device: &Device) -> Cache {
        let layers = self.layers.iter().map(|layer| layer.attention.cache(n_sequences, capacity, device)).collect();
        Cache { layers, lengths: vec![0; n_sequences] }
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

    /// How the tokens turn in blocks without and with a window.
    fn turns(&self, segments: &Segments, positions: &Arc<[u32]>, lengths: &[usize]) -> Option<[Turn; 2]> {
        self.rotary.as_ref().map(|tables| tables.each_ref().map(|tables| tables.turn(segments, positions, lengths)))
    }

    fn embed(&self, ids: &Arc<[u32]>, token_types: &Arc<[u32]>, positions: &Arc<[u32]>, key: Option<Key>) -> Tensor<2> {
        let Embeddings { token, position, token_type, norm, scale, first_position } = &self.embeddings;
        let mut x = token.forward(ids);
        if *scale != 1.0 {
            x = x.mul_scalar(*scale);
        }
        if let Some(table) = token_type {
            x = x + table.forward(token_types);
        }
        if let Some(table) = position {
            let rows = positions.iter().map(|position| first_position + position).collect();
            x = x + table.forward(&rows);
        }
        drop(normalised(norm, x), self.dropout, key.map(|key| key.fold(EMBEDDINGS)))
    }

    fn finish(&self, x: Tensor<2>) -> Tensor<2> {
        normalised(&self.final_norm, x)
    }
}

/// Each token's position in its own sequence.
fn own_positions(batch: &Packed) -> Arc<[u32]> {
    batch.segments.positions().into_iter().map(|position| position as u32).collect()
}
