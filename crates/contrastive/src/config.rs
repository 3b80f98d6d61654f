//! The settings of masked language modelling and embedding tuning.

use burn::tensor::Device;
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, Result};
use kiln_data::examples::Overlong;
use kiln_data::masking::MaskingConfig;
use kiln_data::source::{DataConfig, Draw, TextColumns, at_least_one, in_range, required};
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::updater::UpdateConfig;
use kiln_train::validation::ValidationConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Masked language modelling, on texts.
    Mlm,
    /// Multiple negatives ranking, on anchors and positives, with hard negatives if there are any.
    Mnrl,
    /// The same through a gradient cache: batches of any size in the memory of one part.
    CachedMnrl,
    /// Unsupervised SimCSE, on texts.
    Simcse,
    /// CoSENT, on scored pairs.
    Cosent,
    /// Triplet loss, on anchors, positives and negatives.
    Triplet,
}

/// Everything a run depends on, apart from the device and the output folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// The folder of the model to start from, in the layout of sentence-transformers or of Hugging Face.
    pub model: PathBuf,
    /// What is minimised. Default mnrl.
    pub objective: Objective,
    /// Passes over the training rows. Default 1.
    pub epochs: usize,
    /// Rows per update: of the ranking objectives also how many documents an anchor is compared with. Default 64.
    pub batch_rows: usize,
    /// Tokens per forward pass of mlm and cached-mnrl: a batch with more is cut into parts, which changes memory but not the result. 0 never
    /// cuts. Default 4096.
    pub micro_batch_tokens: usize,
    /// Whether the blocks are computed again in the backward pass instead of kept for it: less memory, more time, the same result. Default
    /// false.
    pub gradient_checkpointing: bool,
    /// Whether the dropout of the model's configuration acts while training. Default true.
    pub dropout: bool,
    /// What happens to rows longer than the model takes. Default refuse.
    pub overlong: Overlong,
    /// Tokens per block of running text (.txt) in mlm; 0 takes the model's positions, at most 512. Default 0.
    pub block_tokens: usize,
    /// The factor of cosines, one over the temperature, in mnrl, cached-mnrl, simcse and cosent. Default 20, as sentence-transformers'.
    pub scale: f64,
    /// Whether mnrl and cached-mnrl also ask for the anchor of each positive. Default false.
    pub symmetric: bool,
    /// How much nearer the positive has to be in triplet, in the unit of the embeddings. Default 5, as sentence-transformers'.
    pub margin: f64,
    /// Whether the run goes on where a finding of the pre-flight would stop it. Default false.
    pub force: bool,
    /// Seed of the split, the order, new weights, masks and dropout. Default 0.
    pub seed: u64,
    /// Which tokens mlm hides.
    pub masking: MaskingConfig,
    /// Where the rows are.
    pub data: DataConfig,
    /// What their columns mean.
    pub columns: ColumnsConfig,
    /// The update.
    pub update: UpdateConfig,
    /// When the run is validated.
    pub validation: ValidationConfig,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Train a low-rank adapter instead of all weights.
    pub adapter: Option<LoraConfig>,
}

/// The settings of an evaluation of a sentence encoder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// The folder of the encoder, in the layout of sentence-transformers or of Hugging Face.
    pub model: PathBuf,
    /// The folder of an adapter for it, in PEFT's layout.
    pub adapter: Option<PathBuf>,
    /// Scored pairs, or anchors and positives (.jsonl, .csv, .tsv), or a folder in BEIR's layout.
    pub data: PathBuf,
    /// What the columns mean.
    pub columns: ColumnsConfig,
    /// What happens to rows longer than the encoder takes; the texts of a folder are cut. Default refuse.
    pub overlong: Overlong,
    /// Seed of the interval's bootstrap. Default 0.
    pub seed: u64,
}

/// What the columns of a file mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnsConfig {
    /// Names of the columns of a file without a header, in order. Default: the file has a header.
    pub names: Vec<String>,
    /// The column of texts, for mlm and simcse. Default "text".
    pub text: String,
    /// The column of anchors: queries, or the first text of a scored pair. Default "anchor".
    pub anchor: String,
    /// The column of positives: what belongs to the anchor, or the second text of a scored pair. Default "positive".
    pub positive: String,
    /// The column of hard negatives, a text or an array of texts; mnrl uses it if the file has it. Default "negative".
    pub negative: String,
    /// The column of scores, of which only the order counts. Default "score".
    pub score: String,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            objective: Objective::Mnrl,
            epochs: 1,
            batch_rows: 64,
            micro_batch_tokens: 4096,
            gradient_checkpointing: false,
            dropout: true,
            overlong: Overlong::Refuse,
            block_tokens: 0,
            scale: 20.0,
            symmetric: false,
            margin: 5.0,
            force: false,
            seed: 0,
            masking: MaskingConfig::default(),
            data: DataConfig::default(),
            columns: ColumnsConfig::default(),
            update: UpdateConfig::default(),
            validation: ValidationConfig::default(),
            checkpoint: CheckpointConfig::default(),
            adapter: None,
        }
    }
}

impl EvalConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the encoder to evaluate")?;
        required("data", &self.data, "the scored pairs, the pairs or the folder of judged queries to evaluate on")
    }
}

impl Default for ColumnsConfig {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            text: "text".into(),
            anchor: "anchor".into(),
            positive: "positive".into(),
            negative: "negative".into(),
            score: "score".into(),
        }
    }
}

impl ContrastiveConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the model to start from")?;
        self.data.validate()?;
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_rows", self.batch_rows)?;
        let ranks = matches!(self.objective, Objective::Mnrl | Objective::CachedMnrl | Objective::Simcse | Objective::Cosent);
        if ranks && self.batch_rows == 1 {
            return Err(Error::config("batch_rows", "found 1, expected at least 2: the rows of a batch are each other's contrast"));
        }
        in_range("scale", self.scale, self.scale > 0.0 && self.scale.is_finite(), "more than 0")?;
        in_range("margin", self.margin, self.margin >= 0.0 && self.margin.is_finite(), "0 or more")?;
        self.masking.validate()?;
        if self.objective == Objective::Simcse && !self.dropout {
            return Err(Error::config("dropout", "found false: simcse learns from the difference between two dropouts"));
        }
        let is_validated = self.validation.validate(&[("data".to_owned(), &self.data)])?;
        self.checkpoint.validate(&self.update)?;
        self.update.validate("update", is_validated)
    }

    /// How rows are drawn that do not train.
    pub(crate) fn draw(&self) -> Draw<'_> {
        let columns = &self.columns;
        let texts = match self.objective {
            Objective::Mlm | Objective::Simcse => TextColumns::one(&columns.text),
            _ => TextColumns::Named([&columns.anchor, &columns.positive, &columns.negative]),
        };
        self.validation.draw(self.seed, texts)
    }

    /// What a run of `n_steps` updates is of.
    pub(crate) fn about<'a>(&'a self, device: &'a Device, n_steps: usize) -> About<'a> {
        let Self { checkpoint, seed, .. } = self;
        About { method: "contrastive", n_steps, checkpoint, seed: *seed, device, models: vec![&self.model], data: self.data.files() }
    }
}
