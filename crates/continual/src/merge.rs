//! Several checkpoints of one model as one: WiSE-FT and TIES on whole folders, and adapters put into their base.

use crate::objective::{ties, wise_ft};
use burn::tensor::Device;
use kiln_core::checkpoint::{self, Weights};
use kiln_core::config::ModelConfig;
use kiln_core::family::Place;
use kiln_core::parameters::Parameter;
use kiln_core::sentence_encoder::SentenceHead;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter, files};
use kiln_data::source::required;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How checkpoints are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A point between the base and one model.
    WiseFt,
    /// What the models agree on, on top of the base.
    Ties,
}

/// The settings of a merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// The folder of the model that all others were trained from.
    pub base: PathBuf,
    /// The folders of the trained models.
    pub models: Vec<PathBuf>,
    /// The folders of adapters of the base, in PEFT's layout, which are added up on it instead.
    pub adapters: Vec<PathBuf>,
    /// How models are joined. Default ties.
    pub method: Method,
    /// The share of the way from the base to the model, in wise-ft. Default 0.5.
    pub alpha: f64,
    /// The share of each tensor's changes that is kept, in ties. Default 0.2 (arXiv:2306.01708).
    pub density: f64,
    /// The weight of each model, in ties. Default 1 for each.
    pub weights: Vec<f64>,
    /// The folder to write the merged model to.
    pub output: PathBuf,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self {
            base: PathBuf::new(),
            models: Vec::new(),
            adapters: Vec::new(),
            method: Method::Ties,
            alpha: 0.5,
            density: 0.2,
            weights: Vec::new(),
            output: PathBuf::new(),
        }
    }
}

impl MergeConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("base", &self.base, "the folder of the model that the others were trained from")?;
        required("output", &self.output, "the folder to write the merged model to")?;
        match (self.method, self.models.len()) {
            (_, 0) if self.adapters.is_empty() => {
                return Err(Error::config("models", "missing: the folders of the trained models, or adapters"));
            }
            (_, 1..) if !self.adapters.is_empty() => {
                return Err(Error::config("adapters", "found beside models: merge adapters into the base, or join models"));
            }
            (Method::WiseFt, 2..) => return Err(Error::config("models", "wise-ft takes one; join several by ties")),
            _ => {}
        }
        for (key, share) in [("alpha", self.alpha), ("density", self.density)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::config(key, format!("found {share}, expected 0 to 1")));
            }
        }
        if !self.weights.is_empty() && self.weights.len() != self.models.len() {
            let message = format!("found {} for {} models, expected one for each", self.weights.len(), self.models.len());
            return Err(Error::config("weights", message));
        }
        if let Some(weight) = self.weights.iter().find(|weight| !weight.is_finite()) {
            return Err(Error::config("weights", format!("found {weight}, expected a finite number")));
        }
        if self.output.join("config.json").exists() {
            return Err(Error::config("output", format!("{} already holds a model: choose another folder", self.output.display())));
        }
        Ok(())
    }
}

/// What a merge made.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Tensors of the merged model.
    pub n_tensors: usize,
    /// Numbers in them.
    pub n_parameters: usize,
}

/// Merges checkpoints, or adapters, as `config` says and writes the folder of the merged model, with the base's configuration and tokenizer.
///
/// Weights that are tied are merged once, whatever copies of them the files hold.
///
/// # Errors
/// If a setting or file is bad, the models differ in shape, or an adapter cannot be merged.
pub fn merge(config: &MergeConfig, device: &Device) -> Result<Summary> {
    config.validate()?;
    files::check_writable("output", &config.output)?;
    if !config.adapters.is_empty() {
        let n_parameters = adapter::merge_folder(&config.base, &config.adapters, &config.output, device)?;
        return Ok(Summary { n_tensors: Weights::open(&config.output)?.names().count(), n_parameters });
    }
    let shape = ModelConfig::from_folder(&config.base)?;
    let tokenizer = Tokenizer::for_model(&config.base, &shape)?;
    let base = Weights::open(&config.base)?;
    let mut tuned = Vec::with_capacity(config.models.len());
    for folder in &config.models {
        let other = ModelConfig::from_folder(folder)?;
        if other.family != shape.family || other.tied_head != shape.tied_head {
            let message = format!("another kind of model than {}: model_type and tie_word_embeddings must agree", config.base.display());
            return Err(Error::checkpoint(&folder.join("config.json"), message));
        }
        tuned.push(Weights::open(folder)?);
    }
    let output_weight = shape.family.tensor_name("head.output.weight");
    let is_left_out = |name: &str| shape.family.is_constant(name) || shape.tied_head && name == output_weight;
    let is_merged = |name: &&str| !is_left_out(name);
    let names: Vec<&str> = base.names().filter(is_merged).collect();
    for weights in &tuned {
        if let Some(extra) = weights.names().filter(is_merged).find(|name| !base.contains(name)) {
            let message = format!("tensor {extra:?} is not in {}: was the model trained from it?", base.path().display());
            return Err(Error::checkpoint(weights.path(), message));
        }
    }
    let weights = if config.weights.is_empty() { vec![1.0; tuned.len()] } else { config.weights.clone() };
    let mut merged = Vec::with_capacity(names.len());
    for name in names {
        let shape = base.shape(name).expect("the names are the base's").to_vec();
        let of_base = base.read(name, &shape)?;
        let of_tuned = tuned.iter().map(|weights| weights.read(name, &shape)).collect::<Result<Vec<_>>>()?;
        let values = match config.method {
            Method::WiseFt => wise_ft::interpolate(&of_base, &of_tuned[0], config.alpha),
            Method::Ties => ties::merge(&of_base, &of_tuned, &weights, config.density),
        };
        merged.push((Place::plain(name.to_owned()), Parameter::stored(name.to_owned(), shape, values)));
    }
    let summary = Summary { n_tensors: merged.len(), n_parameters: merged.iter().map(|(_, parameter)| parameter.len()).sum() };
    checkpoint::write_model(&config.output, merged)?;
    tokenizer.save(&config.output)?;
    save_head(&shape, &config.base, &config.output)?;
    // Last, because a folder without it is not a model.
    files::write_json(&config.output.join("config.json"), &shape.raw)?;
    Ok(summary)
}

/// Writes what makes a sentence encoder of a transformer, if `from` is one.
pub(crate) fn save_head(shape: &ModelConfig, from: &Path, folder: &Path) -> Result<()> {
    if shape.causal {
        return Ok(());
    }
    match SentenceHead::of_folder(from, shape)? {
        Some(head) => head.save(shape.hidden_size, from, folder),
        None => Ok(()),
    }
}
