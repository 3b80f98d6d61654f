//! Low-rank adapters on a whole model: attaching, saving and loading them in PEFT's files, switching between them and merging them.
//!
//! Source: LoRA, arXiv:2106.09685; rsLoRA, arXiv:2312.03732; DoRA, arXiv:2402.09353; initialisation and file format as in PEFT: A uniform in
//! ±1/√in, B zero and magnitudes the lengths of the weight's rows, or for embeddings A zero and B normal, so a fresh adapter changes nothing.

mod files;
mod joined;
mod merge;
mod settings;
mod switch;
mod targets;

pub use files::{CONFIG_FILE, WEIGHTS_FILE, load, save};
pub use merge::{check_merge, merge, merge_folder};
pub use switch::Adapters;
pub use targets::Targets;

use crate::embedding::EmbeddingAdapter;
use crate::language_model::OUTPUT;
use crate::linear::Adapter;
use crate::model::Model;
use crate::parameters::{Change, change_parameters, parameters};
use crate::{Error, Result};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::adapter::row_lengths;
use kiln_kernels::linear::LowRank;
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What kind of adapter to attach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the update (PEFT's `r`). Default 16.
    pub rank: usize,
    /// Numerator of the scale alpha / rank (PEFT's `lora_alpha`). Default 32.
    pub alpha: f64,
    /// The probability with which an element of an adapter's input is dropped while training (PEFT's `lora_dropout`). Default 0.
    pub dropout: f64,
    /// The layers to adapt; empty for all linear ones, which learns better than attention alone. The token embeddings and the output over the
    /// vocabulary are adapted where they are named.
    pub target_modules: Targets,
    /// Hugging Face names of layers that train in full and are saved beside the adapter; the layers of a new head always are.
    pub modules_to_save: Vec<String>,
    /// Whether the scale is alpha / √rank, which keeps updates of high rank from shrinking. Default false.
    pub use_rslora: bool,
    /// Whether the length of each row of a weight is learnt apart from its direction. Default false.
    pub use_dora: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: Targets::default(),
            modules_to_save: Vec::new(),
            use_rslora: false,
            use_dora: false,
        }
    }
}

impl LoraConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("adapter.rank", "found 0, expected at least 1"));
        }
        // It scales in f32.
        if !(self.alpha as f32).is_finite() {
            return Err(Error::config("adapter.alpha", format!("found {}, expected a finite number", self.alpha)));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("adapter.dropout", format!("found {}, expected at least 0 and below 1", self.dropout)));
        }
        Ok(())
    }

    /// The factor of the output of an adapter of this rank (arXiv:2312.03732, Section 3).
    fn scale(&self, alpha: f64, rank: usize) -> f64 {
        alpha / self.divisor(rank)
    }

    /// What alpha is divided by.
    fn divisor(&self, rank: usize) -> f64 {
        if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// Whether the parameter at our `path` is of one of the layers `layers`.
fn is_in(layers: &[impl AsRef<str>], path: &str) -> bool {
    layers.iter().any(|layer| path.strip_prefix(layer.as_ref()).is_some_and(|rest| rest.starts_with('.')))
}

/// The path of the token embeddings, which an adapter is attached to only where they are named.
const TABLE: &str = "trunk.embeddings.token";

/// Whether the output over the vocabulary has no weights but the token embeddings.
fn is_tied<M: Model>(model: &M) -> bool {
    model.config().tied_head && model.class() == model.layout().family.language_model_class()
}

/// The layers an adapter may be attached to, ours with Hugging Face's path; the output over the vocabulary too where it would have to be
/// untied first.
fn layers<M: Model>(model: &mut M) -> Vec<(String, String)> {
    let layout = model.layout();
    let mut paths = Vec::new();
    model.linears_mut(&mut |path, _| paths.push(path.to_owned()));
    if is_tied(model) {
        paths.push(OUTPUT.to_owned());
    }
    paths.push(TABLE.to_owned());
    paths.into_iter().map(|path| (path.clone(), layout.layer(&path))).collect()
}

/// Gives the output over the vocabulary weights of its own.
fn untie<M: Model>(model: &mut M, name: &str) -> std::result::Result<(), String> {
    match model.untie() {
        true => Ok(()),
        false => Err(format!("{name:?} is tied to the output over the vocabulary, which this model cannot untie")),
    }
}

/// Freezes the model and attaches fresh adapters; they, the layers of a new head ([`Model::new_heads`]) and those named in
/// `modules_to_save` are what trains. To train one of two tied layers unties them.
///
/// # Errors
/// [`Error::Config`] if a setting makes no sense or names no layer.
pub fn attach<M: Model>(mut model: M, config: &LoraConfig, device: &Device, key: Key) -> Result<M> {
    config.validate()?;
    let full = full_layers(&mut model, &config.modules_to_save)?;
    let layers: Vec<_> = layers(&mut model).into_iter().filter(|(path, _)| !is_in(&full, &format!("{path}.weight"))).collect();
    let adapted: BTreeSet<String> = config.target_modules.among(&layers)?;
    if let Some((path, name)) = layers.iter().find(|(path, _)| [OUTPUT, TABLE].contains(&path.as_str()) && adapted.contains(path)) {
        let error = |key: &str, message: String| Error::config(format!("adapter.{key}"), message);
        if is_tied(&model) {
            untie(&mut model, name).map_err(|message| error("target_modules", message))?;
        }
        if config.use_dora {
            return Err(error("use_dora", format!("found true, which {name:?} among the targets cannot have")));
        }
        if config.dropout > 0.0 && path == OUTPUT {
            return Err(error("dropout", format!("found {}, which {name:?} among the targets cannot have", config.dropout)));
        }
    }
    let mut model = freeze_but(model, &full);
    let scale = config.scale(config.alpha, config.rank);
    let key_of = |path: &str| path.bytes().fold(key, |key, byte| key.fold(u64::from(byte)));
    model.linears_mut(&mut |path, linear| {
        if adapted.contains(path) {
            let [n_out, n_in] = linear.weight.val().dims();
            let (bound, key) = ((n_in as f32).powf(-0.5), key_of(path));
            let a: Vec<f32> = (0..(config.rank * n_in) as u64).map(|index| (2.0 * key.uniform(index) - 1.0) * bound).collect();
            let a = Tensor::from_data(TensorData::new(a, [config.rank, n_in]), device);
            let b = Tensor::zeros([n_out, config.rank], device);
            let magnitude = config.use_dora.then(|| {
                let low_rank = LowRank { a: a.clone().inner(), b: b.clone().inner(), scale: scale as f32 };
                Tensor::from_data(row_lengths(linear.weight.val().inner(), low_rank).into_data(), device)
            });
            linear.adapter = Some(Adapter::new(a, b, magnitude, scale, config.dropout));
        }
    });
    if adapted.contains(TABLE) {
        let table = &mut model.trunk_mut().embeddings.token;
        let [n_ids, width] = table.weight.val().dims();
        let b = TensorData::new(key_of(TABLE).normals(width * config.rank, 1.0), [width, config.rank]);
        table.adapter = Some(EmbeddingAdapter::new(Tensor::zeros([n_ids, config.rank], device), Tensor::from_data(b, device), scale));
    }
    Ok(model)
}

/// The model without its adapters, that is, the base.
pub fn detach<M: Model>(mut model: M) -> M {
    model.linears_mut(&mut |_, linear| linear.adapter = None);
    model.trunk_mut().embeddings.token.adapter = None;
    model
}

/// Our paths of the layers that train in full beside an adapter: those of a new head, and those that `names` name.
fn full_layers<M: Model>(model: &mut M, names: &[String]) -> Result<Vec<String>> {
    let fail = |message: String| Error::config("adapter.modules_to_save", message);
    let layout = model.layout();
    if is_tied(model) {
        let tied = [TABLE, OUTPUT].map(|path| layout.layer(path));
        if let Some(name) = names.iter().find(|name| tied.iter().any(|path| targets::is_named(path, name))) {
            untie(model, name).map_err(fail)?;
        }
    }
    let mut full: Vec<String> = model.new_heads().iter().map(|&head| head.to_owned()).collect();
    let mut layers: Vec<(String, String)> = parameters(model)
        .iter()
        .filter(|parameter| !parameter.path.contains(".adapter."))
        .filter_map(|parameter| parameter.path.rsplit_once('.'))
        .map(|(path, _)| (path.to_owned(), layout.layer(path)))
        .collect();
    layers.dedup();
    for name in names {
        let named: Vec<String> = layers.iter().filter(|(_, layer)| targets::is_named(layer, name)).map(|(path, _)| path.clone()).collect();
        if named.is_empty() {
            return Err(fail(format!("{name:?} names no layer; there are {}", targets::listed(layers.iter().map(|(_, name)| name)))));
        }
        full.extend(named.into_iter().filter(|path| !is_in(&full, &format!("{path}.weight"))).collect::<Vec<_>>());
    }
    Ok(full)
}

/// Freezes every parameter but those of the layers `full`.
fn freeze_but<M: Model>(model: M, full: &[String]) -> M {
    struct Freeze<'a>(&'a [String]);

    impl Change for Freeze<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(is_in(self.0, path))
        }
    }

    change_parameters(model, &mut Freeze(full))
}
