//! The settings of continual learning.

use burn::tensor::Device;
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, Result};
use kiln_data::canaries::CanariesConfig;
use kiln_data::examples::Overlong;
use kiln_data::masking::MaskingConfig;
use kiln_data::source::{DataConfig, Sources, TextColumns, at_least_one, in_range, required};
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::updater::UpdateConfig;
use kiln_train::validation::ValidationConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is minimised on the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Next-token prediction, by decoders.
    NextToken,
    /// Masked language modelling, by encoders.
    Mlm,
}

/// Everything a run depends on, apart from the device and the output folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContinualConfig {
    /// The folder of the model to start from, in Hugging Face layout.
    pub model: PathBuf,
    /// What is minimised. Default next-token.
    pub objective: Objective,
    /// Passes over the training rows of each domain. Default 1.
    pub epochs: usize,
    /// Rows of the domain per update; replayed ones come on top. Default 32.
    pub batch_rows: usize,
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
    /// Tokens per block of running text (.txt); 0 takes the model's positions, at most 512. Default 0.
    pub block_tokens: usize,
    /// Steps between evaluations on all held-out rows, for the curves of the report; 0 evaluates before the first domain and after each.
    /// Default 0.
    pub evaluate_every: usize,
    /// The most that the perplexity of general text may rise, as a share: 0.02 for 2 %. The run goes back towards the model it came from as
    /// far as that takes, or fails. Default none.
    pub budget: Option<f64>,
    /// Whether the run goes on where a finding of the pre-flight would stop it. Default false.
    pub force: bool,
    /// Seed of the split, the order, new weights, masks, dropout, sampled labels and the bootstrap. Default 0.
    pub seed: u64,
    /// The domain to adapt to, where there is only one.
    pub data: DataConfig,
    /// The domains to adapt to one after the other, where there are several.
    pub domains: Vec<DomainConfig>,
    /// General text: what the model knew. Its training rows are replayed and weigh the first EWC penalty; one half of its held-out rows is
    /// the probe that the budget is kept by, the other one what is reported.
    pub general: Option<DataConfig>,
    /// What the columns mean.
    pub columns: ColumnsConfig,
    /// Which tokens mlm hides.
    pub masking: MaskingConfig,
    /// Rows seen again.
    pub replay: ReplayConfig,
    /// Elastic weight consolidation.
    pub ewc: EwcConfig,
    /// L2-SP.
    pub l2_sp: L2SpConfig,
    /// Learning without forgetting.
    pub lwf: LwfConfig,
    /// The update; each domain has a schedule of its own.
    pub update: UpdateConfig,
    /// When the run is validated, on rows of the domain that is being learnt, whose training it may end.
    pub validation: ValidationConfig,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Canaries among the training rows of every domain, to find out what the model learns by heart.
    pub canaries: CanariesConfig,
    /// Train a low-rank adapter for each domain instead of all weights.
    pub adapter: Option<LoraConfig>,
}

/// One domain of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainConfig {
    /// What it is called in the report. Default: the training file's name without its extension.
    pub name: String,
    /// Training rows: .jsonl, .csv, .tsv or .txt.
    pub train: Sources,
    /// Held-out rows; without it a share of the training rows is held out.
    pub held_out: Option<PathBuf>,
    /// The share of the training rows held out when there is no file of them. Default 0.1.
    pub held_out_share: f64,
    /// Rows to validate on, instead of a share of the training rows. Default none.
    pub validation: Option<PathBuf>,
}

/// What the columns of a file mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnsConfig {
    /// Names of the columns of files without a header, in order. Default: the files have headers.
    pub names: Vec<String>,
    /// The column of texts. Default "text".
    pub text: String,
}

/// Rows of general text and of earlier domains, seen again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// Their share of the rows of every update. Default 0.
    pub share: f64,
}

/// Elastic weight consolidation (arXiv:1612.00796).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EwcConfig {
    /// λ, in units of the loss per token. Default 0: none.
    pub strength: f64,
    /// γ: what is left of the importances of earlier domains when those of the next are added. Default 1.
    pub decay: f64,
    /// Training rows from which the importances are estimated, after each domain. Default 256.
    pub rows: usize,
    /// Where the labels of that estimate come from. Default model.
    pub labels: FisherLabels,
}

/// Whose next tokens the Fisher information is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FisherLabels {
    /// Drawn from the model: the Fisher information itself.
    Model,
    /// Those of the text: the "empirical" Fisher information, in one pass less.
    Data,
}

/// L2 regularisation towards the starting point (arXiv:1802.01483).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct L2SpConfig {
    /// α. Default 0: none.
    pub strength: f64,
}

/// Learning without forgetting (arXiv:1606.09282).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LwfConfig {
    /// The weight of the old predictions against the new text. Default 0: none.
    pub strength: f64,
    /// T, which softens both predictions. Default 2.
    pub temperature: f64,
}

impl Default for ContinualConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            objective: Objective::NextToken,
            epochs: 1,
            batch_rows: 32,
            micro_batch_tokens: 0,
            gradient_checkpointing: false,
            dropout: true,
            overlong: Overlong::Refuse,
            block_tokens: 0,
            evaluate_every: 0,
            budget: None,
            force: false,
            seed: 0,
            data: DataConfig::default(),
            domains: Vec::new(),
            general: None,
            columns: ColumnsConfig::default(),
            masking: MaskingConfig::default(),
            replay: ReplayConfig::default(),
            ewc: EwcConfig::default(),
            l2_sp: L2SpConfig::default(),
            lwf: LwfConfig::default(),
            update: UpdateConfig::default(),
            validation: ValidationConfig::default(),
            checkpoint: CheckpointConfig::default(),
            canaries: CanariesConfig::default(),
            adapter: None,
        }
    }
}

impl Default for DomainConfig {
    fn default() -> Self {
        let DataConfig { train, held_out, held_out_share, validation } = DataConfig::default();
        Self { name: String::new(), train, held_out, held_out_share, validation }
    }
}

impl Default for ColumnsConfig {
    fn default() -> Self {
        Self { names: Vec::new(), text: "text".into() }
    }
}

impl Default for EwcConfig {
    fn default() -> Self {
        Self { strength: 0.0, decay: 1.0, rows: 256, labels: FisherLabels::Model }
    }
}

impl Default for LwfConfig {
    fn default() -> Self {
        Self { strength: 0.0, temperature: 2.0 }
    }
}

/// What the report calls the general text.
pub const GENERAL: &str = "general";

impl ContinualConfig {
    /// The domains in order, each with its name and its data.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none, one is incomplete, or two have one name.
    pub fn stream(&self) -> Result<Vec<(String, DataConfig)>> {
        if self.domains.is_empty() {
            self.data.validate()?;
            return Ok(vec![(named("", &self.data), self.data.clone())]);
        }
        if !self.data.train.is_empty() {
            return Err(Error::config("data.train", "there are domains already: add this file to them, or leave them out"));
        }
        let mut stream: Vec<(String, DataConfig)> = Vec::new();
        for DomainConfig { name, train, held_out, held_out_share, validation } in self.domains.clone() {
            let data = DataConfig { train, held_out, held_out_share, validation };
            data.validate_in("domains")?;
            let name = named(&name, &data);
            if name == GENERAL || stream.iter().any(|(other, _)| *other == name) {
                return Err(Error::config("domains.name", format!("{name:?} is taken: give every domain a name of its own")));
            }
            if name.contains(['/', '\\']) || [".", ".."].contains(&name.as_str()) {
                return Err(Error::config("domains.name", format!("{name:?} names a folder of the run: leave out path separators")));
            }
            stream.push((name, data));
        }
        Ok(stream)
    }

    /// As [`DataConfig::fetch`], of all files.
    ///
    /// # Errors
    /// As [`DataConfig::fetch`].
    pub fn fetch(&mut self) -> Result<()> {
        std::iter::once(&mut self.data).chain(&mut self.general).try_for_each(DataConfig::fetch)?;
        for DomainConfig { train, held_out, held_out_share, validation, .. } in &mut self.domains {
            let mut data = DataConfig {
                train: train.clone(),
                held_out: held_out.clone(),
                held_out_share: *held_out_share,
                validation: validation.clone(),
            };
            data.fetch()?;
            (*train, *held_out, *validation) = (data.train, data.held_out, data.validation);
        }
        Ok(())
    }

    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the model to start from")?;
        let stream = self.stream()?;
        if let Some(general) = &self.general {
            general.validate_in("general")?;
            if general.validation.is_some() {
                return Err(Error::config(
                    "general.validation",
                    "general text is not validated on, its held-out rows are reported: leave it out",
                ));
            }
        }
        for (key, value) in [("epochs", self.epochs), ("batch_rows", self.batch_rows), ("ewc.rows", self.ewc.rows)] {
            at_least_one(key, value)?;
        }
        let not_negative = |key, value: f64| in_range(key, value, value >= 0.0 && value.is_finite(), "0 or more");
        in_range("replay.share", self.replay.share, (0.0..1.0).contains(&self.replay.share), "at least 0 and below 1")?;
        not_negative("ewc.strength", self.ewc.strength)?;
        in_range("ewc.decay", self.ewc.decay, (0.0..=1.0).contains(&self.ewc.decay), "0 to 1")?;
        not_negative("l2_sp.strength", self.l2_sp.strength)?;
        not_negative("lwf.strength", self.lwf.strength)?;
        let temperature = self.lwf.temperature;
        in_range("lwf.temperature", temperature, temperature > 0.0 && temperature.is_finite(), "more than 0")?;
        self.masking.validate()?;
        self.canaries.validate()?;
        if self.canaries.count > 0 && self.objective != Objective::NextToken {
            let message = format!("found {}, but canaries are learnt by next-token training only: leave it out", self.canaries.count);
            return Err(Error::config("canaries.count", message));
        }
        let alone = self.general.is_none();
        if let Some(budget) = self.budget {
            not_negative("budget", budget)?;
            if alone {
                return Err(Error::config("budget", "needs general text to be measured on: name a file under general.train"));
            }
        }
        if alone && stream.len() == 1 {
            for (key, value) in [("replay.share", self.replay.share), ("ewc.strength", self.ewc.strength)] {
                if value > 0.0 {
                    return Err(Error::config(key, "needs text of before: name a file under general.train"));
                }
            }
        }
        if self.adapter.is_some() {
            for (key, value) in [("ewc.strength", self.ewc.strength), ("l2_sp.strength", self.l2_sp.strength)] {
                if value > 0.0 {
                    return Err(Error::config(key, "holds weights, which an adapter does not train: leave one of the two out"));
                }
            }
        }
        let section = if self.domains.is_empty() { "data" } else { "domains" };
        let data: Vec<(String, &DataConfig)> = stream.iter().map(|(_, data)| (section.to_owned(), data)).collect();
        let is_validated = self.validation.validate(&data)?;
        self.checkpoint.validate(&self.update)?;
        self.update.validate("update", is_validated)
    }

    /// What makes the text of a row.
    pub(crate) fn texts(&self) -> TextColumns<'_> {
        TextColumns::one(&self.columns.text)
    }

    /// What a run of `n_steps` updates is of.
    pub(crate) fn about<'a>(&'a self, device: &'a Device, n_steps: usize) -> About<'a> {
        let Self { checkpoint, seed, .. } = self;
        let mut data: Vec<&Path> = self.general.iter().chain([&self.data]).flat_map(DataConfig::files).collect();
        for DomainConfig { train, held_out, validation, .. } in &self.domains {
            data.extend(train.iter().map(|source| &source.path).chain(held_out).chain(validation).map(PathBuf::as_path));
        }
        About { method: "continual", n_steps, checkpoint, seed: *seed, device, models: vec![&self.model], data }
    }
}

/// The name given, or else that of the file.
fn named(name: &str, data: &DataConfig) -> String {
    if name.is_empty() { data.train.first().file_stem().unwrap_or_default().to_string_lossy().into_owned() } else { name.to_owned() }
}
