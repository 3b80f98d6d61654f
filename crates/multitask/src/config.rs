//! The settings of multi-task training.

use burn::tensor::Device;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::Overlong;
use kiln_data::masking::MaskingConfig;
use kiln_data::source::{DataConfig, Draw, TextColumns, required};
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::updater::UpdateConfig;
use kiln_train::validation::ValidationConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a task learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The class of a text, or of a pair of texts.
    #[default]
    Classification,
    /// The number of a text, or of a pair of texts.
    Regression,
    /// The tag of each word.
    TokenClassification,
    /// The next token: of a completion after its prompt, of a conversation, or of plain text.
    NextToken,
    /// The hidden tokens of a text.
    MaskedToken,
}

/// How often a task's rows are in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// As often as those of any other task.
    Uniform,
    /// In proportion to how many it has: every row once in an epoch.
    Proportional,
    /// In proportion to how many it has to the power of 1 / temperature, between the two.
    Temperature,
}

/// How the losses of the tasks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// Every row counts alike, times the `weight` of its task.
    Fixed,
    /// By the uncertainty of each task, learnt ([`crate::objective::uncertainty`]).
    Uncertainty,
    /// So that all losses fall at one rate ([`crate::objective::famo`]).
    Famo,
}

/// Everything a run depends on, apart from the device and the output folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultitaskConfig {
    /// The folder of the model to start from, in Hugging Face layout.
    pub model: PathBuf,
    /// Passes over as many rows as all tasks have together. Default 1.
    pub epochs: usize,
    /// Updates, whatever the epochs say; 0 leaves it to them. Default 0.
    pub steps: usize,
    /// Rows per update, of all tasks together. Default 32.
    pub batch_rows: usize,
    /// How often a task's rows are in a batch. Default proportional.
    pub sampling: Sampling,
    /// T of temperature sampling: 1 is proportional, ∞ uniform. Default 2, as T5's (arXiv:1910.10683, Section 3.5.2).
    pub temperature: f64,
    /// How the losses of the tasks become one. Default fixed.
    pub weighting: Weighting,
    /// Learning rate of learnt weights, by Adam. Default 0.025, as FAMO's.
    pub weighting_learning_rate: f64,
    /// Whether gradients of the trunk that conflict are projected ([`crate::objective::pcgrad`]). Default false.
    pub pcgrad: bool,
    /// Every so many updates the cosines between the tasks' gradients are measured; 0 never, and with `pcgrad` always. Default 20.
    pub cosine_steps: usize,
    /// Whether each task is also trained alone, on as many updates of its own rows as it takes to see them `epochs` times. Default false.
    pub baselines: bool,
    /// Whether the blocks are computed again in the backward pass instead of kept for it. Default false.
    pub gradient_checkpointing: bool,
    /// Whether the dropout of the model's configuration acts while training. Default true.
    pub dropout: bool,
    /// What happens to rows longer than the model's positions. Default refuse.
    pub overlong: Overlong,
    /// Whether the run goes on where a finding of the pre-flight would stop it. Default false.
    pub force: bool,
    /// Seed of the splits, the order, new heads, hidden tokens and dropout. Default 0.
    pub seed: u64,
    /// The update.
    pub update: UpdateConfig,
    /// When the run is validated.
    pub validation: ValidationConfig,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// The tasks by name.
    pub tasks: BTreeMap<String, TaskConfig>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskConfig {
    /// What it learns. Default classification.
    pub kind: Kind,
    /// The factor of its loss, under fixed weighting. Default 1.
    pub weight: f64,
    /// Tokens per block of running text (.txt); 0 takes the model's positions, at most 512. Default 0.
    pub block_tokens: usize,
    /// Which tokens a task of hidden tokens hides.
    pub masking: MaskingConfig,
    /// Where its rows are.
    pub data: DataConfig,
    /// What their columns mean.
    pub columns: ColumnsConfig,
}

impl Default for MultitaskConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            epochs: 1,
            steps: 0,
            batch_rows: 32,
            sampling: Sampling::Proportional,
            temperature: 2.0,
            weighting: Weighting::Fixed,
            weighting_learning_rate: 0.025,
            pcgrad: false,
            cosine_steps: 20,
            baselines: false,
            gradient_checkpointing: false,
            dropout: true,
            overlong: Overlong::Refuse,
            force: false,
            seed: 0,
            update: UpdateConfig::default(),
            validation: ValidationConfig::default(),
            checkpoint: CheckpointConfig::default(),
            tasks: BTreeMap::new(),
        }
    }
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            kind: Kind::Classification,
            weight: 1.0,
            block_tokens: 0,
            masking: MaskingConfig::default(),
            data: DataConfig::default(),
            columns: ColumnsConfig::default(),
        }
    }
}

impl MultitaskConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the model to start from")?;
        if self.tasks.is_empty() {
            return Err(Error::config("tasks", "missing: a section [tasks.NAME] with a kind and data for each task"));
        }
        let positive = |key: &str, value: f64| {
            let fits = value > 0.0 && value.is_finite();
            if fits { Ok(()) } else { Err(Error::config(key, format!("found {value}, expected more than 0"))) }
        };
        for (name, task) in &self.tasks {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                return Err(Error::config(format!("tasks.{name:?}"), "expected a name of letters, digits, - and _"));
            }
            in_task(name, task.data.validate())?;
            in_task(name, task.masking.validate())?;
            positive(&format!("tasks.{name}.weight"), task.weight)?;
            if task.weight != 1.0 && self.weighting != Weighting::Fixed {
                let message = format!("found {}, but the weights are learnt: leave it out, or set weighting to \"fixed\"", task.weight);
                return Err(Error::config(format!("tasks.{name}.weight"), message));
            }
        }
        for (key, count) in [("batch_rows", self.batch_rows), ("epochs", self.epochs)] {
            if count == 0 {
                return Err(Error::config(key, "found 0, expected at least 1"));
            }
        }
        positive("temperature", self.temperature)?;
        positive("weighting_learning_rate", self.weighting_learning_rate)?;
        let data: Vec<(String, &DataConfig)> = self.tasks.iter().map(|(name, task)| (format!("tasks.{name}.data"), &task.data)).collect();
        let is_validated = self.validation.validate(&data)?;
        self.checkpoint.validate(&self.update)?;
        self.update.validate("update", is_validated)
    }

    /// How rows of a task are drawn that do not train.
    pub(crate) fn draw<'a>(&self, task: &'a TaskConfig) -> Draw<'a> {
        let columns = &task.columns;
        let texts = match task.kind {
            Kind::Classification | Kind::Regression => TextColumns::Named([&columns.text, &columns.text_b, ""]),
            Kind::TokenClassification => TextColumns::one(&columns.tokens),
            Kind::NextToken => TextColumns::Layout(columns),
            Kind::MaskedToken => TextColumns::one(&columns.text),
        };
        self.validation.draw(self.seed, texts)
    }

    /// What a run of `n_steps` updates is of.
    pub(crate) fn about<'a>(&'a self, device: &'a Device, n_steps: usize) -> About<'a> {
        let Self { checkpoint, seed, .. } = self;
        let data = self.tasks.values().flat_map(|task| task.data.files()).collect();
        About { method: "multitask", n_steps, checkpoint, seed: *seed, device, models: vec![&self.model], data }
    }

    /// The same run with the task `name` alone.
    pub(crate) fn alone(&self, name: &str) -> Self {
        let tasks = self.tasks.get_key_value(name).map(|(name, task)| (name.clone(), TaskConfig { weight: 1.0, ..task.clone() }));
        Self { tasks: tasks.into_iter().collect(), steps: 0, weighting: Weighting::Fixed, pcgrad: false, baselines: false, ..self.clone() }
    }
}

/// `result`, its key that of the section of task `name`.
///
/// # Errors
/// That of `result`.
pub(crate) fn in_task<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::Config { place, message } => Error::Config { place: format!("tasks.{name}.{place}"), message },
        other => other,
    })
}
