//! What all models have in common: a configuration, a Hugging Face class, linear layers to adapt, and a folder to be saved in.

use crate::config::{GENERATION_FILE, ModelConfig};
use crate::family::{Layout, Place};
use crate::linear::Linear;
use crate::packed::Packed;
use crate::parameters::{Parameter, parameters};
use crate::tokenizer::Tokenizer;
use crate::transformer::Transformer;
use crate::{Result, adapter, checkpoint, files};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;
use std::path::Path;

/// A trunk with its head.
pub trait Model: Module {
    /// The shape of the model.
    fn config(&self) -> &ModelConfig;

    /// The Hugging Face class that loads what this model saves.
    fn class(&self) -> String;

    /// Its trunk.
    fn trunk_mut(&mut self) -> &mut Transformer;

    /// Calls `visit` with every linear layer an adapter may be attached to, and its path.
    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear));

    /// The layers of a head, which train in full beside an adapter.
    fn new_heads(&self) -> &'static [&'static str];

    /// What it says of a batch without training: logits, classes or vectors.
    ///
    /// # Shapes
    /// Output `[rows, width]`, as many of either as the model has.
    fn outputs(&self, batch: &Packed) -> Tensor<2>;

    /// Gives the output over the vocabulary a copy of the token embeddings for weights of its own; whether there was something to untie.
    fn untie(&mut self) -> bool {
        false
    }

    /// Where its checkpoints hold its parameters.
    fn layout(&self) -> Layout {
        Layout::new(self.config().family)
    }
}

/// Every parameter of a model with its place in a checkpoint. Adapters are not among them: they are merged into the weights.
pub fn stored<M: Model>(model: &M) -> impl Iterator<Item = (Place, Parameter)> {
    let mut adapted: BTreeMap<String, Box<dyn Fn() -> TensorData>> = BTreeMap::new();
    let mut copy = model.clone();
    copy.linears_mut(&mut |path, linear| {
        if linear.adapter.is_some() {
            let linear = linear.clone();
            adapted.insert(format!("{path}.weight"), Box::new(move || linear.merged_weight().into_data()));
        }
    });
    let table = copy.trunk_mut().embeddings.token.clone();
    if table.adapter.is_some() {
        adapted.insert("trunk.embeddings.token.weight".into(), Box::new(move || table.merged_weight().into_data()));
    }
    let layout = model.layout();
    let copy = move |parameter: Parameter| {
        let name = layout.family.copy_name(&layout.place(&parameter.path).tensor)?;
        Some((Place::plain(name.to_owned()), parameter))
    };
    let is_stored = |parameter: &Parameter| !parameter.path.contains(".adapter.");
    let copies: Vec<_> = parameters(model).into_iter().filter(is_stored).filter_map(copy).collect();
    let all = parameters(model).into_iter().filter(is_stored).map(move |parameter| {
        let place = layout.place(&parameter.path);
        match adapted.remove(&parameter.path) {
            // Merged when its turn to be written comes: a merged copy of the whole model would double the memory.
            Some(merged) => (place, Parameter::computed(parameter, merged)),
            None => (place, parameter),
        }
    });
    all.chain(copies)
}

/// Writes a model folder that transformers loads: `config.json`, `model.safetensors` and the tokenizer's files. Adapters are merged into
/// the weights of the written copy.
///
/// # Errors
/// If a file cannot be written, or an adapter cannot be merged.
pub fn save<M: Model>(model: &M, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    adapter::check_merge(model)?;
    let mut config = model.config().clone();
    config.set_architecture(&model.class());
    checkpoint::write_model(folder, stored(model))?;
    tokenizer.save(folder)?;
    if let Some(generation) = &config.generation {
        files::write_json(&folder.join(GENERATION_FILE), generation)?;
    }
    // Last, because a folder without it is not a model.
    files::write_json(&folder.join("config.json"), &config.raw)
}
