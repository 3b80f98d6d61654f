//! The trunk with a head that puts a whole sequence into one of several classes.

use crate::builder::{Builder, Fit};
use crate::config::ModelConfig;
use crate::family::Family;
use crate::linear::Linear;
use crate::model::Model;
use crate::packed::Packed;
use crate::transformer::Transformer;
use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::dropout::dropout;
use kiln_kernels::pool::{Pooling, pool};
use kiln_kernels::random::Key;
use std::path::Path;

/// Encoders pool the first token through a tanh layer (arXiv:1810.04805, Section 3), decoders take the last token as it is.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    /// Width to width before the classes, in encoders.
    pub pooler: Option<Linear>,
    /// Width to classes.
    pub classifier: Linear,
    #[module(skip)]
    config: ModelConfig,
}

/// A place of dropout that no block has.
const POOLED: u64 = u64::MAX - 1;

impl SequenceClassifier {
    /// Reads a classifier's folder, with its labels in `config.json`.
    ///
    /// # Errors
    /// If a file is missing, damaged, does not fit `config.json`, or has no classification head.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Fit)> {
        let config = ModelConfig::from_folder(folder)?;
        let n_labels = config.label_names().len();
        if n_labels == 0 {
            let message = "no id2label: not a classifier; fine-tune one with `cargo xtask sft --set task=classification`";
            return Err(Error::checkpoint(&folder.join("config.json"), message));
        }
        let mut builder = Builder::from_checkpoint(folder, config.family, device, Key::new(0))?;
        if builder.stored_shape("classifier.weight").is_none() {
            let message = format!("tensor {:?} is missing: not a classifier", config.family.tensor_name("classifier.weight"));
            return Err(Error::checkpoint(folder, message));
        }
        let model = Self::build(&mut builder, config, n_labels)?;
        Ok((model, builder.fit()))
    }

    /// Reads a model folder and puts a classification head for `labels` on it: the folder's own if it is a classifier for as many, else
    /// a new one from `key`.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn from_pretrained(folder: &Path, labels: &[String], device: &Device, key: Key) -> Result<(Self, Fit)> {
        let mut config = ModelConfig::from_folder(folder)?;
        config.set_label_names(labels);
        let mut builder = Builder::from_checkpoint(folder, config.family, device, key)?;
        if let Some(shape) = builder.stored_shape("classifier.weight")
            && shape[0] != labels.len()
        {
            let message = format!("the checkpoint classifies into {} classes, the data has {} labels", shape[0], labels.len());
            return Err(Error::checkpoint(folder, message));
        }
        let model = Self::build(&mut builder, config, labels.len())?;
        Ok((model, builder.fit()))
    }

    /// A classifier with random weights throughout.
    ///
    /// # Errors
    /// None at present: nothing is read.
    pub fn new(mut config: ModelConfig, labels: &[String], device: &Device, key: Key) -> Result<Self> {
        config.set_label_names(labels);
        let mut builder = Builder::from_random(config.family, device, key);
        Self::build(&mut builder, config, labels.len())
    }

    fn build(builder: &mut Builder, config: ModelConfig, n_labels: usize) -> Result<Self> {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let encoder = config.family == Family::Bert;
        Ok(Self {
            trunk: Transformer::build(builder, &config)?,
            pooler: encoder.then(|| Linear::build_new(builder, "pooler", width, width, true, deviation)).transpose()?,
            classifier: Linear::build_new(builder, "classifier", width, n_labels, encoder, deviation)?,
            config,
        })
    }

    /// Class logits of each sequence.
    ///
    /// # Shapes
    /// Output `[sequences, classes]`.
    pub fn forward(&self, batch: &Packed, key: Option<Key>) -> Tensor<2> {
        let hidden = self.trunk.forward(batch, key);
        let Some(pooler) = &self.pooler else {
            return self.classifier.forward(pool(hidden, &batch.segments, Pooling::Last));
        };
        let pooled = pooler.forward(pool(hidden, &batch.segments, Pooling::Cls)).tanh();
        let pooled = match key {
            Some(key) if self.config.hidden_dropout > 0.0 => dropout(pooled, self.config.hidden_dropout, key.fold(POOLED)),
            _ => pooled,
        };
        self.classifier.forward(pooled)
    }
}

impl Model for SequenceClassifier {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn class(&self) -> String {
        self.config.family.classifier_class()
    }

    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.trunk.linears_mut(visit);
        if let Some(pooler) = &mut self.pooler {
            visit("pooler", pooler);
        }
    }

    fn new_head(&self) -> Option<&'static str> {
        Some("classifier")
    }
}
