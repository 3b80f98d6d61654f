//! The trunk with its language-model head: next-token prediction in decoders, masked-token prediction in encoders.

use crate::builder::{Builder, Fit, Init};
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::embedding::Embedding;
use crate::family::Layout;
use crate::linear::Linear;
use crate::model::Model;
use crate::norm::Norm;
use crate::packed::{Packed, Supervised};
use crate::transformer::Transformer;
use crate::{Error, Result};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use kiln_kernels::activation::{Activation, activate};
use kiln_kernels::cross_entropy::distillation::OutputHead;
use kiln_kernels::cross_entropy::{HeadOptions, TokenLosses, head_cross_entropy, head_log_probabilities, head_token_loss};
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use kiln_kernels::segments::Segments;
use std::path::Path;
use std::sync::Arc;

/// A trunk and the head that predicts tokens.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    /// The output head.
    pub head: Head,
    #[module(skip)]
    config: ModelConfig,
}

/// Hidden states to logits.
#[derive(Module, Debug)]
pub struct Head {
    /// Width to width before the output, in encoders.
    pub transform: Option<Linear>,
    /// Normalisation of the transformed states, in encoders.
    pub norm: Option<Norm>,
    /// The output weights, `[vocab, width]`, where they are not the embedding table.
    pub output: Option<Linear>,
    /// The output bias, `[vocab]`, in encoders whose output weights are the embedding table.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    activation: Activation,
    /// Bound of the logits.
    #[module(skip)]
    cap: Option<f32>,
}

/// The path of the output over the vocabulary, where it has weights of its own.
pub(crate) const OUTPUT: &str = "head.output";

impl LanguageModel {
    /// Reads a model folder in Hugging Face layout.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Fit)> {
        let (model, fit) = Self::from_pretrained(folder, device, Key::new(0))?;
        match fit.new.first() {
            None => Ok((model, fit)),
            Some(name) => {
                Err(Error::checkpoint(folder, format!("tensor {name:?} is missing: the checkpoint has no head to predict tokens")))
            }
        }
    }

    /// The same, but the checkpoint of an encoder may lack the head, as those of sentence encoders do: what it lacks starts from `key`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn from_pretrained(folder: &Path, device: &Device, key: Key) -> Result<(Self, Fit)> {
        let mut config = ModelConfig::from_folder(folder)?;
        let mut builder = Builder::from_checkpoint(folder, Layout::new(config.family), device, key)?;
        if config.tied_head && builder.parts_head()? {
            config.untie();
        }
        let model = Self::build(&mut builder, config)?;
        Ok((model, builder.fit()))
    }

    /// A model with random weights.
    ///
    /// # Errors
    /// None at present: nothing is read.
    pub fn new(config: ModelConfig, device: &Device, key: Key) -> Result<Self> {
        let mut builder = Builder::from_random(Layout::new(config.family), device, key);
        Self::build(&mut builder, config)
    }

    /// A model of these parts.
    pub fn from_parts(trunk: Transformer, head: Head, config: ModelConfig) -> Self {
        Self { trunk, head, config }
    }

    fn build(builder: &mut Builder, config: ModelConfig) -> Result<Self> {
        Ok(Self { trunk: Transformer::build(builder, &config)?, head: Head::build(builder, &config, Init::Zeros)?, config })
    }

    /// Sum over the supervised tokens of weight x cross-entropy in nats.
    ///
    /// # Shapes
    /// Output `[1]`.
    pub fn loss(&self, batch: &Packed, supervised: &Supervised, dropout: Option<Key>) -> Tensor<1> {
        Self::head_loss(self.output_head(batch, &supervised.rows, dropout), supervised, 0.0)
    }

    /// The same from the head's inputs at the supervised rows, with a share of the loss on all tokens alike.
    pub fn head_loss(head: OutputHead, supervised: &Supervised, label_smoothing: f32) -> Tensor<1> {
        let OutputHead { hidden, weight, bias, soft_cap } = head;
        let options = HeadOptions { soft_cap, label_smoothing, ..HeadOptions::default() };
        head_cross_entropy(hidden, weight, bias, &supervised.targets, &supervised.weights, options)
    }

    /// What the given rows of a batch are predicted from: the states that the output weights turn into logits, and these weights.
    ///
    /// # Shapes
    /// The states: `[rows, width]`.
    pub fn output_head(&self, batch: &Packed, rows: &Arc<[u32]>, dropout: Option<Key>) -> OutputHead {
        self.head.on(self.trunk.forward_rows(batch, rows, dropout), &self.trunk.embeddings.token)
    }

    /// The summed loss of each sequence in nats, without weights, and over how many tokens it is summed. The supervised rows rise.
    pub fn sequence_losses(&self, batch: &Packed, supervised: &Supervised) -> Vec<(f64, u64)> {
        let columns = self.log_probabilities(batch, supervised, HeadOptions::default(), None).into_data();
        let columns: Vec<f32> = columns.try_to_vec().expect("f32");
        // Column 1 holds entropies.
        let mut rows = supervised.rows.iter().zip(columns.iter().step_by(2)).peekable();
        let sequence = |range: std::ops::Range<usize>| {
            let (mut loss, mut n_tokens) = (0.0, 0);
            while let Some((_, &log_probability)) = rows.next_if(|(row, _)| (**row as usize) < range.end) {
                loss -= f64::from(log_probability);
                n_tokens += 1;
            }
            (loss, n_tokens)
        };
        batch.segments.ranges().map(sequence).collect()
    }

    /// The log-probability of each supervised token, and the entropy of the distribution it was taken from, in nats.
    ///
    /// # Shapes
    /// Output `[supervised, 2]`, log-probabilities in column 0, entropies in column 1.
    pub fn log_probabilities(&self, batch: &Packed, supervised: &Supervised, options: HeadOptions, dropout: Option<Key>) -> Tensor<2> {
        let hidden = self.trunk.forward_rows(batch, &supervised.rows, dropout);
        self.head.log_probabilities(hidden, &self.trunk.embeddings.token, &supervised.targets, options)
    }

    /// The sum of any function of the targets' log-probabilities, and these themselves, in nats.
    ///
    /// # Shapes
    /// `hidden`: `[rows, width]`, of the trunk; `targets` and the log-probabilities: one per row; the loss: `[1]`.
    pub fn token_loss(&self, hidden: Tensor<2>, targets: &Arc<[u32]>, options: HeadOptions, losses: TokenLosses) -> (Tensor<1>, Vec<f32>) {
        let OutputHead { hidden, weight, bias, soft_cap } = self.head.on(hidden, &self.trunk.embeddings.token);
        head_token_loss(hidden, weight, bias, targets, HeadOptions { soft_cap, ..options }, losses)
    }

    /// Logits of the given rows of hidden states.
    ///
    /// # Shapes
    /// `hidden`: `[rows, width]`, output `[rows, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head.on(hidden, &self.trunk.embeddings.token).logits()
    }

    /// Logits after the last of the new tokens of each sequence that has any.
    ///
    /// # Shapes
    /// Output `[sequences with new tokens, vocab]`.
    pub fn next_logits(&self, ids: &Arc<[u32]>, segments: &Segments, cache: &mut Cache) -> Tensor<2> {
        let hidden = self.trunk.forward_cached(ids, segments, cache);
        let last: Arc<[u32]> = segments.ranges().filter(|range| !range.is_empty()).map(|range| range.end as u32 - 1).collect();
        self.logits(take_rows(hidden, &last))
    }

    /// The device the weights are on.
    pub fn device(&self) -> Device {
        self.trunk.embeddings.token.weight.val().device()
    }
}

impl Head {
    /// The head of a trunk of this shape, which the checkpoint of an encoder may lack: how its `bias` starts then.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks a decoder's, or has it in another shape.
    pub fn build(builder: &mut Builder, config: &ModelConfig, bias: Init<'_>) -> Result<Self> {
        let (width, vocab, deviation) = (config.hidden_size, config.vocab_size, config.initializer_range);
        let Some(masked) = &config.masked_head else {
            let output = || Linear::build(builder, "head.output", width, vocab, false, deviation);
            let output = (!config.tied_head).then(output).transpose()?;
            return Ok(Self { transform: None, norm: None, output, bias: None, activation: config.activation, cap: config.logit_cap });
        };
        let transform = Linear::build_new(builder, "head.transform", width, width, masked.bias.then_some(Init::Zeros), deviation)?;
        let norm = Norm::build_new(builder, "head.norm", width, config)?;
        let (mut output, mut output_bias) = (None, None);
        // Checkpoints of transformers 4 have one bias, whose name is that of a tied head's.
        let path = if config.tied_head || builder.stored_shape("head.output.bias").is_none() { "head.bias" } else { "head.output.bias" };
        let new_bias = masked.output_bias.then(|| builder.new_parameter(path, [vocab], bias)).transpose()?;
        if config.tied_head {
            output_bias = new_bias;
        } else {
            let weight = builder.new_parameter("head.output.weight", [vocab, width], Init::Normal(deviation))?;
            output = Some(Linear { weight, bias: new_bias, adapter: None });
        }
        let (transform, norm, activation) = (Some(transform), Some(norm), masked.activation);
        Ok(Self { transform, norm, output, bias: output_bias, activation, cap: config.logit_cap })
    }

    /// Σ weight x cross-entropy of the targets, in nats. `table` holds the trunk's token embeddings, the output weights of a tied head.
    ///
    /// # Shapes
    /// `hidden`: `[rows, width]`; `targets` and `weights`: one for each row; output `[1]`.
    pub fn loss(&self, hidden: Tensor<2>, table: &Embedding, targets: &Arc<[u32]>, weights: &Arc<[f32]>) -> Tensor<1> {
        let OutputHead { hidden, weight, bias, soft_cap } = self.on(hidden, table);
        head_cross_entropy(hidden, weight, bias, targets, weights, HeadOptions { soft_cap, ..HeadOptions::default() })
    }

    /// The log-probability of each target, and the entropy of the distribution it was taken from, in nats.
    ///
    /// # Shapes
    /// `hidden`: `[rows, width]`; `targets`: one for each row; output `[rows, 2]`, log-probabilities in column 0, entropies in column 1.
    pub fn log_probabilities(&self, hidden: Tensor<2>, table: &Embedding, targets: &Arc<[u32]>, options: HeadOptions) -> Tensor<2> {
        let OutputHead { hidden, weight, bias, soft_cap } = self.on(hidden, table);
        head_log_probabilities(hidden, weight, bias, targets, HeadOptions { soft_cap, ..options })
    }

    fn prepare(&self, hidden: Tensor<2>) -> Tensor<2> {
        let hidden = match &self.transform {
            Some(transform) => activate(transform.forward(hidden), self.activation),
            None => hidden,
        };
        match &self.norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        }
    }

    /// What hidden states of the trunk are predicted from. `table` holds the trunk's token embeddings.
    fn on(&self, hidden: Tensor<2>, table: &Embedding) -> OutputHead {
        let hidden = self.prepare(hidden);
        let (hidden, weight, bias) = match &self.output {
            Some(output) => {
                let (hidden, weight) = output.widened(hidden);
                (hidden, weight, &output.bias)
            }
            None => (hidden, table.weight.val(), &self.bias),
        };
        OutputHead { hidden, weight, bias: bias.as_ref().map(Param::val), soft_cap: self.cap }
    }
}

impl Model for LanguageModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn class(&self) -> String {
        self.config.family.language_model_class()
    }

    fn trunk_mut(&mut self) -> &mut Transformer {
        &mut self.trunk
    }

    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.trunk.linears_mut(visit);
        if let Some(output) = &mut self.head.output {
            visit(OUTPUT, output);
        }
    }

    fn new_heads(&self) -> &'static [&'static str] {
        // Not the bias over the vocabulary: PEFT's files hold layers of a head, not single parameters.
        if self.head.transform.is_some() { &["head.transform", "head.norm"] } else { &[] }
    }

    fn outputs(&self, batch: &Packed) -> Tensor<2> {
        self.logits(self.trunk.forward(batch, None))
    }

    fn untie(&mut self) -> bool {
        let can_untie = self.head.output.is_none() && self.config.causal;
        if can_untie {
            let weight = Param::from_tensor(self.trunk.embeddings.token.weight.val().detach());
            self.head.output = Some(Linear { weight, bias: None, adapter: None });
            self.config.untie();
        }
        can_untie
    }
}
