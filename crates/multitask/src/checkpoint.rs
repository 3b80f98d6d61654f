//! The folder of a trunk and its heads, and a head's own folder for other programs.
//!
//! ```text
//! config.json, tokenizer.json   as of the model it came from
//! model.safetensors             the trunk: transformers loads it as such, with an output head if a task predicts tokens
//! heads.safetensors             weight and bias of each head, under the task's name
//! heads.json                    what the heads are for
//! ```

use crate::config::Kind;
use crate::data::Head;
use crate::model::{MultitaskModel, PRIVATE};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::builder::{Builder, Init};
use kiln_core::checkpoint::{WEIGHTS_FILE, Weights, write, write_model};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::family::{Layout, Place};
use kiln_core::language_model::LanguageModel;
use kiln_core::linear::Linear;
use kiln_core::parameters::{Parameter, parameters};
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, files, hub, model};
use kiln_data::source::required;
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The weights of the heads.
pub const HEADS_FILE: &str = "heads.safetensors";
/// What the heads are for.
pub const TASKS_FILE: &str = "heads.json";

/// The content of [`TASKS_FILE`].
#[derive(Serialize, Deserialize)]
struct Tasks {
    tasks: Vec<Head>,
}

impl MultitaskModel {
    /// Writes the folder of the trunk and all heads.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
        let family = self.config.family;
        let (private, shared): (Vec<Parameter>, Vec<Parameter>) =
            parameters(self).into_iter().partition(|parameter| parameter.path.starts_with(PRIVATE));
        let of_task = |parameter: Parameter| {
            let (index, leaf) = parameter.path[PRIVATE.len()..].split_once('.').expect("a head's number and its parameter");
            let task = &self.tasks[index.parse::<usize>().expect("a head's number")].name;
            (Place::plain(format!("{task}.{leaf}")), parameter)
        };
        let layout = Layout { bare: self.head.is_none(), ..Layout::new(family) };
        write_model(folder, shared.into_iter().map(|parameter| (layout.place(&parameter.path), parameter)))?;
        write(&folder.join(HEADS_FILE), private.into_iter().map(of_task))?;
        files::write_json(&folder.join(TASKS_FILE), &Tasks { tasks: self.tasks.clone() })?;
        tokenizer.save(folder)?;
        let mut config = self.config.clone();
        config.set_architecture(&if self.head.is_some() { family.language_model_class() } else { family.trunk_class() });
        // Last, because a folder without it is not a model.
        files::write_json(&folder.join("config.json"), &config.raw)
    }

    /// Reads such a folder.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit the others.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        let config = ModelConfig::from_folder(folder)?;
        let path = folder.join(TASKS_FILE);
        if !path.exists() {
            return Err(Error::checkpoint(&path, "no such file: not a model of several tasks; train one with `cargo xtask multitask`"));
        }
        let Tasks { tasks } = files::read_json(&path)?;
        let weights = Weights::open_file(&folder.join(HEADS_FILE))?;
        let mut builder = Builder::from_checkpoint(folder, Layout::new(config.family), device, Key::new(0))?;
        let names: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
        let model = Self::build(&mut builder, config, tasks, Init::Zeros, |task, n_in, n_out, bias, _| {
            let name = &names[task];
            let read = |leaf: &str, shape: &[usize]| weights.read(&format!("{name}.{leaf}"), shape);
            let weight = TensorData::new(read("weight", &[n_out, n_in])?, [n_out, n_in]);
            let bias = bias.then(|| Ok::<_, Error>(TensorData::new(read("bias", &[n_out])?, [n_out]))).transpose()?;
            Ok(Linear {
                weight: Param::from_tensor(Tensor::from_data(weight, device)),
                bias: bias.map(|bias| Param::from_tensor(Tensor::from_data(bias, device))),
                adapter: None,
            })
        })?;
        match builder.fit().new.first() {
            None => Ok(model),
            Some(name) => Err(Error::checkpoint(&folder.join(WEIGHTS_FILE), format!("tensor {name:?} is missing"))),
        }
    }

    /// The index of the task called `name`.
    pub fn task(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.name == name)
    }

    /// Writes the trunk with the head of one task as a model folder that transformers loads, and Kiln evaluates and trains on.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn export(&self, task: usize, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
        let (trunk, config, Head { kind, labels, .. }) = (self.trunk.clone(), self.config.clone(), &self.tasks[task]);
        let linear = || self.heads[task].clone().expect("a task with a head of its own");
        let pooler = || (self.pooler.clone(), self.pooler_norm.clone());
        match kind {
            Kind::Classification | Kind::Regression => {
                let classifier = SequenceClassifier::from_parts(trunk, pooler(), linear(), config, labels);
                model::save(&classifier, tokenizer, folder)
            }
            Kind::TokenClassification => {
                let pooler = if config.pooler.is_some_and(|pooler| pooler.of_tokens) { pooler() } else { (None, None) };
                model::save(&TokenClassifier::from_parts(trunk, pooler, linear(), config, labels), tokenizer, folder)
            }
            Kind::NextToken | Kind::MaskedToken => {
                let head = self.head.clone().expect("a model that predicts tokens has a head for it");
                model::save(&LanguageModel::from_parts(trunk, head, config), tokenizer, folder)
            }
        }
    }
}

/// The settings of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// The folder of the model of several tasks.
    pub model: PathBuf,
    /// The task whose head goes with the trunk.
    pub task: String,
    /// The folder to be written.
    pub output: PathBuf,
}

/// Writes one task of a saved model as a model folder of its own.
///
/// # Errors
/// If the folder is no model of several tasks, has no such task, or `output` holds something already.
pub fn export(config: &ExportConfig, device: &Device) -> Result<()> {
    required("model", &config.model, "the folder of a model of several tasks")?;
    required("output", &config.output, "the folder to be written")?;
    if config.output.join("config.json").exists() {
        return Err(Error::config("output", format!("{} already holds a model: choose another folder", config.output.display())));
    }
    let model = MultitaskModel::load(&config.model, device)?;
    let task = model.task(&config.task).ok_or_else(|| {
        let known = model.tasks.iter().map(|task| format!("{:?}", task.name)).collect::<Vec<_>>().join(", ");
        Error::config("task", format!("found {:?}, the model has {known}", config.task))
    })?;
    model.export(task, &Tokenizer::for_model(&config.model, &model.config)?, &config.output)
}
