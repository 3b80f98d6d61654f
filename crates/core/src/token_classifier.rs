//! The trunk with a head that puts every token into one of several classes.

use crate::Result;
use crate::builder::{Builder, Fit, Init};
use crate::classifier::{open, open_for};
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::model::Model;
use crate::packed::Packed;
use crate::transformer::Transformer;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::dropout::dropout;
use kiln_kernels::random::Key;
use std::path::Path;
use std::sync::Arc;

/// A linear layer on the last hidden state of a token (arXiv:1810.04805, Section 5.3).
#[derive(Module, Debug)]
pub struct TokenClassifier {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    /// Width to classes.
    pub classifier: Linear,
    #[module(skip)]
    config: ModelConfig,
}

/// A place of dropout that no block has.
const LAST_HIDDEN: u64 = u64::MAX - 1;

impl TokenClassifier {
    /// Reads a token classifier's folder, with its labels in `config.json`.
    ///
    /// # Errors
    /// If a file is missing, damaged, does not fit `config.json`, or has no classification head.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Fit)> {
        let config = ModelConfig::from_folder(folder)?;
        let (mut builder, n_labels) = open(folder, &config, device)?;
        let model = Self::build(&mut builder, config, n_labels, Init::Zeros)?;
        Ok((model, builder.fit()))
    }

    /// Reads a model folder and puts a head for `labels` on it: the folder's own if it has one for as many, else a new one with weights from
    /// `key` and the bias `prior`: a value for each tag, or none for 0.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn from_pretrained(folder: &Path, labels: &[String], prior: &[f32], device: &Device, key: Key) -> Result<(Self, Fit)> {
        let mut config = ModelConfig::from_folder(folder)?;
        config.set_label_names(labels);
        let mut builder = open_for(folder, &config, labels.len(), device, key)?;
        let model = Self::build(&mut builder, config, labels.len(), Init::Values(prior))?;
        Ok((model, builder.fit()))
    }

    /// A classifier of these parts, for the classes `labels`.
    pub fn from_parts(trunk: Transformer, classifier: Linear, mut config: ModelConfig, labels: &[String]) -> Self {
        config.set_label_names(labels);
        Self { trunk, classifier, config }
    }

    fn build(builder: &mut Builder, config: ModelConfig, n_labels: usize, prior: Init<'_>) -> Result<Self> {
        let trunk = Transformer::build(builder, &config)?;
        let classifier = Linear::build_new(builder, "classifier", config.hidden_size, n_labels, Some(prior), config.initializer_range)?;
        Ok(Self { trunk, classifier, config })
    }

    /// Class logits of the tokens at `rows`: those that count, such as the first of each word.
    ///
    /// # Shapes
    /// Output `[rows, classes]`.
    pub fn forward(&self, batch: &Packed, rows: &Arc<[u32]>, key: Option<Key>) -> Tensor<2> {
        let hidden = self.trunk.forward_rows(batch, rows, key);
        let hidden = match key {
            Some(key) if self.config.hidden_dropout > 0.0 => dropout(hidden, self.config.hidden_dropout, key.fold(LAST_HIDDEN)),
            _ => hidden,
        };
        self.classifier.forward(hidden)
    }
}

impl Model for TokenClassifier {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn class(&self) -> String {
        self.config.family.token_classifier_class()
    }

    fn trunk_mut(&mut self) -> &mut Transformer {
        &mut self.trunk
    }

    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.trunk.linears_mut(visit);
    }

    fn new_heads(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}
