//! What all models have in common: a configuration, a Hugging Face class, linear layers to adapt, and a folder to be saved in.

use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::parameters::parameters;
use crate::tokenizer::Tokenizer;
use crate::{Result, checkpoint, files};
use burn::module::Module;
use std::path::Path;

/// A trunk with its head.
pub trait Model: Module {
    /// The shape of the model.
    fn config(&self) -> &ModelConfig;

    /// The Hugging Face class that loads what this model saves.
    fn class(&self) -> String;

    /// Calls `visit` with every linear layer an adapter may be attached to, and its path.
    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear));

    /// The prefix of head parameters, which train in full beside an adapter.
    fn new_head(&self) -> Option<&'static str>;
}

/// Writes a model folder that transformers loads: `config.json`, `model.safetensors` and the tokenizer's files. Adapters are merged into
/// the weights of the written copy.
///
/// # Errors
/// If a file cannot be written.
pub fn save<M: Model>(model: &M, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let mut config = model.config().clone();
    config.set_architecture(&model.class());
    let mut merged = model.clone();
    merged.linears_mut(&mut |_, linear| linear.merge());
    let family = config.family;
    let named = parameters(&merged).into_iter().map(|parameter| (family.place(&parameter.path), parameter));
    checkpoint::write(&folder.join(checkpoint::WEIGHTS_FILE), named)?;
    tokenizer.save(folder)?;
    // Last, because a folder without it is not a model.
    files::write_json(&folder.join("config.json"), &config.raw)
}
