//! The settings of supervised fine-tuning.

use crate::mitigation::MitigationConfig;
use burn::tensor::Device;
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, Result};
use kiln_data::canaries::CanariesConfig;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::Overlong;
use kiln_data::source::{DataConfig, Draw, TextColumns, at_least_one, in_range, required};
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::updater::UpdateConfig;
use kiln_train::validation::ValidationConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The class of a text, or of a pair of texts.
    Classification,
    /// The number of a text, or of a pair of texts.
    Regression,
    /// The tag of each word.
    TokenClassification,
    /// The next token: of a completion after its prompt, or of plain text.
    NextToken,
    /// Which of two completions of a prompt is better.
    Preference,
}

/// Everything a run depends on, apart from the device and the output folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// The folder of the model to start from, in Hugging Face layout.
    pub model: PathBuf,
    /// What the model learns. Default: next-token.
    pub task: Task,
    /// Passes over the training rows. Default 1.
    pub epochs: usize,
    /// Rows per update; with `batch_tokens` the most rows. Default 32.
    pub batch_rows: usize,
    /// Tokens per update, as many rows as fit; 0 batches by rows alone. Default 0.
    pub batch_tokens: usize,
    /// Tokens per forward pass: a batch with more is cut into parts whose gradients are summed, which changes memory but not the result. 0
    /// never cuts. Default 0.
    pub micro_batch_tokens: usize,
    /// Whether the blocks are computed again in the backward pass instead of kept for it: less memory, more time, the same result. Default
    /// false.
    pub gradient_checkpointing: bool,
    /// Whether the dropout of the model's configuration acts while training. Default true.
    pub dropout: bool,
    /// What happens to rows longer than the model's positions. Default refuse.
    pub overlong: Overlong,
    /// Whether the run goes on where a finding of the pre-flight would stop it. Default false.
    pub force: bool,
    /// Seed of the split, the order, new weights and dropout. Default 0.
    pub seed: u64,
    /// Tokens per block of running text (.txt); 0 takes the model's positions, at most 512. Default 0.
    pub block_tokens: usize,
    /// Where the rows are.
    pub data: DataConfig,
    /// What their columns mean.
    pub columns: ColumnsConfig,
    /// How preferences are learnt.
    pub preference: PreferenceConfig,
    /// What keeps the model from knowing its rows by heart.
    pub regularization: RegularizationConfig,
    /// What keeps a classifier from going by the group that a row is about.
    pub mitigation: MitigationConfig,
    /// Canaries among the rows, to find out what is learnt by heart.
    pub canaries: CanariesConfig,
    /// The update.
    pub update: UpdateConfig,
    /// When the run is validated.
    pub validation: ValidationConfig,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Train a low-rank adapter instead of all weights.
    pub adapter: Option<LoraConfig>,
}

/// How preferences are learnt (arXiv:2305.18290).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreferenceConfig {
    /// β: how much a step away from the model before training costs. Default 0.1, as TRL's.
    pub beta: f64,
    /// ε: the share of pairs that may be the wrong way round. Default 0.
    pub label_smoothing: f64,
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

/// What keeps a model from knowing its rows by heart, beside dropout and weight decay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegularizationConfig {
    /// ε: the share of the loss that falls on all classes, tags or tokens alike (arXiv:1512.00567, Section 7). Default 0.
    pub label_smoothing: f64,
    /// α: how much it costs classes or tags if two passes with other dropout disagree (arXiv:2106.14448); above 0 every row passes twice.
    /// Default 0.
    pub r_drop: f64,
    /// p: the probability with which an element of the matrices inside blocks is the pretrained one in a step (arXiv:1909.11299). Default 0.
    pub mixout: f64,
}

impl RegularizationConfig {
    fn validate(&self, config: &SftConfig) -> Result<()> {
        let Self { label_smoothing, r_drop, mixout } = *self;
        let section = |key| format!("regularization.{key}");
        in_range(&section("label_smoothing"), label_smoothing, (0.0..1.0).contains(&label_smoothing), "at least 0 and below 1")?;
        in_range(&section("r_drop"), r_drop, r_drop >= 0.0 && r_drop.is_finite(), "0 or more")?;
        in_range(&section("mixout"), mixout, (0.0..=1.0).contains(&mixout), "0 to 1")?;
        let has_classes = matches!(config.task, Task::Classification | Task::TokenClassification);
        let refused = [
            (
                "label_smoothing",
                label_smoothing,
                has_classes || config.task == Task::NextToken,
                "has a meaning for classes, tags and next tokens only",
            ),
            ("r_drop", r_drop, has_classes, "has a meaning for classes and tags only"),
            ("r_drop", r_drop, config.dropout, "compares passes with other dropout, and dropout is off"),
            ("mixout", mixout, config.adapter.is_none(), "mixes weights that train, and an adapter leaves them as they are"),
        ];
        match refused.into_iter().find(|(_, value, fits, _)| *value > 0.0 && !fits) {
            Some((key, value, _, message)) => Err(Error::config(section(key), format!("found {value}, but it {message}: leave it out"))),
            None => Ok(()),
        }
    }
}

impl PreferenceConfig {
    fn validate(&self) -> Result<()> {
        in_range("preference.beta", self.beta, self.beta > 0.0 && self.beta.is_finite(), "more than 0")?;
        let smoothing = self.label_smoothing;
        in_range("preference.label_smoothing", smoothing, (0.0..0.5).contains(&smoothing), "at least 0 and below 0.5")
    }
}

/// The settings of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// The folder of the model, in Hugging Face layout.
    pub model: PathBuf,
    /// The folder of an adapter for it, in PEFT's layout.
    pub adapter: Option<PathBuf>,
    /// The folder of the model before training, which preferences are compared to; without it the model without its adapter.
    pub reference: Option<PathBuf>,
    /// How preferences were learnt.
    pub preference: PreferenceConfig,
    /// The rows: .jsonl, .csv, .tsv, .txt or .conll.
    pub data: PathBuf,
    /// What their columns mean.
    pub columns: ColumnsConfig,
    /// Tokens per block of running text (.txt); 0 takes the model's positions, at most 512. Default 0.
    pub block_tokens: usize,
    /// What happens to rows longer than the model's positions. Default refuse.
    pub overlong: Overlong,
    /// Seed of the interval's bootstrap. Default 0.
    pub seed: u64,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            task: Task::NextToken,
            epochs: 1,
            batch_rows: 32,
            batch_tokens: 0,
            micro_batch_tokens: 0,
            gradient_checkpointing: false,
            dropout: true,
            overlong: Overlong::Refuse,
            force: false,
            seed: 0,
            block_tokens: 0,
            data: DataConfig::default(),
            columns: ColumnsConfig::default(),
            preference: PreferenceConfig::default(),
            regularization: RegularizationConfig::default(),
            mitigation: MitigationConfig::default(),
            canaries: CanariesConfig::default(),
            update: UpdateConfig::default(),
            validation: ValidationConfig::default(),
            checkpoint: CheckpointConfig::default(),
            adapter: None,
        }
    }
}

impl SftConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the model to start from")?;
        self.data.validate()?;
        at_least_one("epochs", self.epochs)?;
        if self.batch_rows == 0 && self.batch_tokens == 0 {
            return Err(Error::config("batch_rows", "found 0 with batch_tokens 0, expected one of them above 0"));
        }
        self.preference.validate()?;
        self.regularization.validate(self)?;
        self.canaries.validate()?;
        if self.canaries.count > 0 && self.task != Task::NextToken {
            let message = format!("found {}, but canaries are learnt by next-token training only: leave it out", self.canaries.count);
            return Err(Error::config("canaries.count", message));
        }
        let is_validated = self.validation.validate(&[("data".to_owned(), &self.data)])?;
        self.mitigation.validate(self, is_validated)?;
        self.checkpoint.validate(&self.update)?;
        self.update.validate("update", is_validated)
    }

    /// How rows are drawn that do not train.
    pub fn draw(&self) -> Draw<'_> {
        let columns = &self.columns;
        let texts = match self.task {
            Task::Classification | Task::Regression => TextColumns::Named([&columns.text, &columns.text_b, ""]),
            Task::TokenClassification => TextColumns::one(&columns.tokens),
            Task::NextToken => TextColumns::Layout(columns),
            Task::Preference => TextColumns::Named(columns.preference()),
        };
        self.validation.draw(self.seed, texts)
    }

    /// What a run of `n_steps` updates is of.
    pub(crate) fn about<'a>(&'a self, device: &'a Device, n_steps: usize) -> About<'a> {
        let Self { checkpoint, seed, .. } = self;
        let models = [Some(&self.model), self.mitigation.control.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
        About { method: "sft", n_steps, checkpoint, seed: *seed, device, models, data: self.data.files() }
    }
}

impl EvalConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the model to evaluate")?;
        required("data", &self.data, "the file of rows to evaluate on")?;
        self.preference.validate()
    }
}
