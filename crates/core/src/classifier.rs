//! The trunk with a head that puts a whole sequence into one of several classes, or gives it a number.

use crate::builder::{Builder, Fit, Init};
use crate::config::ModelConfig;
use crate::family::Family;
use crate::linear::Linear;
use crate::model::Model;
use crate::packed::Packed;
use crate::transformer::Transformer;
use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::dropout::dropout;
use kiln_kernels::pool::Pooling;
use kiln_kernels::random::Key;
use std::path::Path;

/// Encoders pool the first token through a tanh layer (arXiv:1810.04805, Section 3), decoders take the last token as it is.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    /// Width to width before the classes, in encoders.
    pub pooler: Option<Linear>,
    /// Width to classes, or to one number.
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
        let (mut builder, n_outputs) = open(folder, &config, device)?;
        let model = Self::build(&mut builder, config, n_outputs, Init::Zeros)?;
        Ok((model, builder.fit()))
    }

    /// Reads a model folder and puts a head on it: for the classes `labels`, or without any for one number. It is the folder's own if that
    /// has one with as many outputs, else a new one with weights from `key` and, in encoders, the bias `prior`: a value for each
    /// output, or none for 0.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`.
    pub fn from_pretrained(folder: &Path, labels: &[String], prior: &[f32], device: &Device, key: Key) -> Result<(Self, Fit)> {
        let mut config = ModelConfig::from_folder(folder)?;
        let n_outputs = set_outputs(&mut config, labels);
        let mut builder = open_for(folder, &config, n_outputs, device, key)?;
        let model = Self::build(&mut builder, config, n_outputs, Init::Values(prior))?;
        Ok((model, builder.fit()))
    }

    /// A classifier with random weights throughout; without `labels` its output is one number.
    ///
    /// # Errors
    /// None at present: nothing is read.
    pub fn new(mut config: ModelConfig, labels: &[String], device: &Device, key: Key) -> Result<Self> {
        let n_outputs = set_outputs(&mut config, labels);
        let mut builder = Builder::from_random(config.family, device, key);
        Self::build(&mut builder, config, n_outputs, Init::Zeros)
    }

    /// A classifier of these parts, for the classes `labels`, or without any for one number.
    pub fn from_parts(trunk: Transformer, pooler: Option<Linear>, classifier: Linear, mut config: ModelConfig, labels: &[String]) -> Self {
        set_outputs(&mut config, labels);
        Self { trunk, pooler, classifier, config }
    }

    fn build(builder: &mut Builder, config: ModelConfig, n_outputs: usize, prior: Init<'_>) -> Result<Self> {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let encoder = config.family == Family::Bert;
        Ok(Self {
            trunk: Transformer::build(builder, &config)?,
            pooler: encoder.then(|| Linear::build_new(builder, "pooler", width, width, Some(Init::Zeros), deviation)).transpose()?,
            classifier: Linear::build_new(builder, "classifier", width, n_outputs, encoder.then_some(prior), deviation)?,
            config,
        })
    }

    /// Class logits, or the number, of each sequence.
    ///
    /// # Shapes
    /// Output `[sequences, classes]`, or `[sequences, 1]`.
    pub fn forward(&self, batch: &Packed, key: Option<Key>) -> Tensor<2> {
        let pooling = if self.pooler.is_some() { Pooling::Cls } else { Pooling::Last };
        let rows = pooling.rows(&batch.segments).expect("these poolings take one token of each sequence");
        let hidden = self.trunk.forward_rows(batch, &rows, key);
        let Some(pooler) = &self.pooler else { return self.classifier.forward(hidden) };
        let pooled = pooler.forward(hidden).tanh();
        let pooled = match key {
            Some(key) if self.config.hidden_dropout > 0.0 => dropout(pooled, self.config.hidden_dropout, key.fold(POOLED)),
            _ => pooled,
        };
        self.classifier.forward(pooled)
    }
}

/// Σ (prediction − number)², `[1]`.
///
/// # Shapes
/// `predictions`: `[sequences, 1]`; `numbers`: one for each.
pub fn squared_error(predictions: Tensor<2>, numbers: &[f32]) -> Tensor<1> {
    let numbers = Tensor::from_data(TensorData::new(numbers.to_vec(), [numbers.len(), 1]), &predictions.device());
    let errors: Tensor<2> = predictions - numbers;
    (errors.clone() * errors).sum()
}

/// Records the classes, or without any that the output is a number; how many outputs that makes.
fn set_outputs(config: &mut ModelConfig, labels: &[String]) -> usize {
    if labels.is_empty() {
        // The name transformers gives to an output that has none.
        config.set_label_names(&["LABEL_0".to_owned()]);
        config.set_problem_type("regression");
        return 1;
    }
    config.set_label_names(labels);
    config.set_problem_type("single_label_classification");
    labels.len()
}

/// Opens a folder that must have a head, and says how many outputs it has.
pub(crate) fn open(folder: &Path, config: &ModelConfig, device: &Device) -> Result<(Builder, usize)> {
    let n_outputs = config.label_names().len();
    if n_outputs == 0 {
        let message = "no id2label: not a classifier; fine-tune one with `cargo xtask sft --set task=classification`";
        return Err(Error::checkpoint(&folder.join("config.json"), message));
    }
    let builder = Builder::from_checkpoint(folder, config.family, device, Key::new(0))?;
    if builder.stored_shape("classifier.weight").is_none() {
        let message = format!("tensor {:?} is missing: not a classifier", config.family.tensor_name("classifier.weight"));
        return Err(Error::checkpoint(folder, message));
    }
    Ok((builder, n_outputs))
}

/// Opens a folder that may have a head, but none of another size than `n_outputs`.
pub(crate) fn open_for(folder: &Path, config: &ModelConfig, n_outputs: usize, device: &Device, key: Key) -> Result<Builder> {
    let builder = Builder::from_checkpoint(folder, config.family, device, key)?;
    match builder.stored_shape("classifier.weight") {
        Some(shape) if shape[0] != n_outputs => {
            let needs =
                if config.is_regression() { "a regression has one output".to_owned() } else { format!("the data has {n_outputs} labels") };
            let message = format!("the checkpoint classifies into {} classes, {needs}", shape[0]);
            Err(Error::checkpoint(folder, message))
        }
        _ => Ok(builder),
    }
}

impl Model for SequenceClassifier {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn class(&self) -> String {
        self.config.family.classifier_class()
    }

    fn trunk_mut(&mut self) -> &mut Transformer {
        &mut self.trunk
    }

    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.trunk.linears_mut(visit);
        if let Some(pooler) = &mut self.pooler {
            visit("pooler", pooler);
        }
    }

    fn new_heads(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}
