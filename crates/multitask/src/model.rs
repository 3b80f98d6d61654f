//! One trunk and a head for each task.

use crate::config::Kind;
use crate::data::{Batch, Head, Part, Targets};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_core::Result;
use kiln_core::builder::{Builder, Init};
use kiln_core::classifier::squared_error;
use kiln_core::config::ModelConfig;
use kiln_core::language_model;
use kiln_core::linear::Linear;
use kiln_core::packed::Packed;
use kiln_core::transformer::Transformer;
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::dropout::dropout;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use std::path::Path;
use std::sync::Arc;

/// A trunk and a head for each task (arXiv:1706.05098, Section 2.1). Heads of texts and pairs share the pooler; tasks of next or hidden
/// tokens share the model's own output head.
#[derive(Module, Debug)]
pub struct MultitaskModel {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    /// Width to width before classes and numbers, in encoders that have such tasks.
    pub pooler: Option<Linear>,
    /// The output head, if a task predicts tokens.
    pub head: Option<language_model::Head>,
    /// Width to classes, tags or one number; none for a task that predicts tokens.
    pub heads: Vec<Option<Linear>>,
    #[module(skip)]
    pub(crate) tasks: Vec<Head>,
    #[module(skip)]
    pub(crate) config: ModelConfig,
}

/// The place of dropout before the first task's head, then downward: places that no block has.
const BEFORE_HEADS: u64 = u64::MAX - 1;

/// The path of the parameters that belong to one task alone.
pub(crate) const PRIVATE: &str = "heads.";

impl MultitaskModel {
    /// Reads a model folder and puts a new head on it for each task, with a bias that starts at `priors`: for each task a value for each output,
    /// or none for 0. The weights come from `key`, each head's its own; those of the first are as in a run of its own.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn from_pretrained(folder: &Path, tasks: Vec<Head>, priors: &[Vec<f32>], device: &Device, key: Key) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let family = config.family;
        let mut builder = Builder::from_checkpoint(folder, family, device, key)?;
        let of_tokens = tasks.iter().position(Head::predicts).map_or(Init::Zeros, |task| Init::Values(&priors[task]));
        Self::build(&mut builder, config, tasks, of_tokens, |task, n_in, n_out, bias, deviation| {
            // Heads with the same weights would ask the trunk for the same.
            let key = if task == 0 { key } else { key.fold(task as u64) };
            let bias = bias.then_some(Init::Values(&priors[task]));
            Linear::build_new(&mut Builder::from_random(family, device, key), "classifier", n_in, n_out, bias, deviation)
        })
    }

    /// The model on what the builder holds. `of_tokens`: how the bias of the output head starts if the builder lacks it; `linear` makes a head
    /// from the task's index, its width, its outputs, whether it has a bias, and the deviation of new weights.
    pub(crate) fn build(
        builder: &mut Builder,
        config: ModelConfig,
        tasks: Vec<Head>,
        of_tokens: Init<'_>,
        mut linear: impl FnMut(usize, usize, usize, bool, f32) -> Result<Linear>,
    ) -> Result<Self> {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let pools = tasks.iter().any(Head::pools);
        let predicts = tasks.iter().any(Head::predicts);
        let trunk = Transformer::build(builder, &config)?;
        let pooler = (pools && !config.causal)
            .then(|| Linear::build_new(builder, "pooler", width, width, Some(Init::Zeros), deviation))
            .transpose()?;
        let head = predicts.then(|| language_model::Head::build(builder, &config, of_tokens)).transpose()?;
        let mut head_of = |(index, task): (usize, &Head)| {
            let bias = !config.causal || task.kind == Kind::TokenClassification;
            task.n_outputs().map(|n_outputs| linear(index, width, n_outputs, bias, deviation)).transpose()
        };
        let heads = tasks.iter().enumerate().map(&mut head_of).collect::<Result<_>>()?;
        Ok(Self { trunk, pooler, head, heads, tasks, config })
    }

    /// The shape of the trunk.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the heads are for.
    pub fn tasks(&self) -> &[Head] {
        &self.tasks
    }

    /// The hidden states of the `wanted` tokens, from one pass over the trunk. `key` is the randomness of this step; `None` when not training.
    ///
    /// # Shapes
    /// Each output: `[wanted tokens, width]`, in the order given.
    pub fn hidden(&self, batch: &Packed, wanted: &[&Arc<[u32]>], key: Option<Key>) -> Vec<Tensor<2>> {
        let mut all: Vec<u32> = wanted.iter().flat_map(|tokens| tokens.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let all: Arc<[u32]> = all.into();
        let hidden = self.trunk.forward_rows(batch, &all, key);
        let of = |tokens: &&Arc<[u32]>| {
            if **tokens == all {
                return hidden.clone();
            }
            let place = |token| all.binary_search(token).expect("all wanted tokens are there") as u32;
            take_rows(hidden.clone(), &tokens.iter().map(place).collect())
        };
        wanted.iter().map(of).collect()
    }

    /// What the head of `task` says of hidden states: logits of classes or tags, or numbers.
    ///
    /// # Shapes
    /// `hidden`: `[items, width]`; output `[items, classes]` or `[items, 1]`.
    ///
    /// # Panics
    /// If the task predicts tokens, whose logits are never made.
    pub fn outputs(&self, task: usize, hidden: Tensor<2>, key: Option<Key>) -> Tensor<2> {
        let classifier = self.heads[task].as_ref().expect("a task with a head of its own");
        let (hidden, drops) = match &self.pooler {
            Some(pooler) if self.tasks[task].pools() => (pooler.forward(hidden).tanh(), true),
            // As sequence classifiers of decoders: without dropout.
            _ => (hidden, !self.tasks[task].pools()),
        };
        let probability = self.config.hidden_dropout;
        let hidden = match key {
            Some(key) if drops && probability > 0.0 => dropout(hidden, probability, key.fold(BEFORE_HEADS - task as u64)),
            _ => hidden,
        };
        classifier.forward(hidden)
    }

    /// The summed loss of each part of a batch: cross-entropy in nats, or squared error.
    ///
    /// # Shapes
    /// Each output `[1]`.
    pub fn losses(&self, batch: &Batch, key: Option<Key>) -> Vec<Tensor<1>> {
        let wanted: Vec<&Arc<[u32]>> = batch.parts.iter().map(|part| &part.tokens).collect();
        let hidden = self.hidden(&batch.packed, &wanted, key);
        batch.parts.iter().zip(hidden).map(|(part, hidden)| self.loss(part, hidden, key)).collect()
    }

    fn loss(&self, part: &Part, hidden: Tensor<2>, key: Option<Key>) -> Tensor<1> {
        match (&part.targets, &self.tasks[part.task].kind) {
            (Targets::Numbers(numbers), _) => squared_error(self.outputs(part.task, hidden, key), numbers),
            (Targets::Classes(tokens), Kind::NextToken | Kind::MaskedToken) => {
                let head = self.head.as_ref().expect("a model that predicts tokens has a head for it");
                head.loss(hidden, &self.trunk.embeddings.token, tokens, &ones(tokens.len()))
            }
            (Targets::Classes(classes), _) => cross_entropy(self.outputs(part.task, hidden, key), classes, &ones(classes.len())),
        }
    }
}

fn ones(n: usize) -> Arc<[f32]> {
    vec![1.0; n].into()
}

impl Head {
    /// Whether it reads one token of each sequence, and not those of words.
    pub(crate) fn pools(&self) -> bool {
        matches!(self.kind, Kind::Classification | Kind::Regression)
    }

    /// Whether it predicts tokens, by the output head that all such tasks share.
    pub(crate) fn predicts(&self) -> bool {
        matches!(self.kind, Kind::NextToken | Kind::MaskedToken)
    }

    /// Outputs of its linear layer, if it has one.
    fn n_outputs(&self) -> Option<usize> {
        match self.kind {
            Kind::Classification | Kind::TokenClassification => Some(self.labels.len()),
            Kind::Regression => Some(1),
            Kind::NextToken | Kind::MaskedToken => None,
        }
    }
}
