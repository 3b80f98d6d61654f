//! The settings of mitigation.

use crate::config::{SftConfig, Task};
use kiln_core::{Error, Result};
use kiln_data::source::in_range;
use kiln_eval::fairness::Criterion;
use kiln_train::named::named;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is done so that a classifier does not go by the group that a row is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MitigationConfig {
    /// The columns that say which group a row is about, such as a gender; the model does not see them. Of several, rows that agree in all are a
    /// group. Default none.
    pub groups: Vec<String>,
    /// The class that it is good to be given. Default: of two classes the second; of more, each in turn.
    pub positive: Option<String>,
    /// What is done while training, a name or a table with a name. Default none: the groups are looked at only.
    #[serde(deserialize_with = "named")]
    pub method: Method,
    /// What a threshold for each group makes equal after training; the thresholds are chosen on the rows that validate. Default none.
    pub thresholds: Option<Parity>,
    /// The folder of a model that was trained on the same rows without this section's method, such as `runs/sft-1/model`, to be compared with.
    /// Default none.
    pub control: Option<PathBuf>,
}

/// What is done while training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Method {
    /// Nothing.
    #[default]
    None,
    /// Rows count so that label and group are independent.
    Reweighing,
    /// Rows are drawn so that label and group are independent.
    Resampling,
    /// The loss of the group with the highest one.
    GroupDro(GroupDroConfig),
    /// Rows with words of one group come with those of the other too.
    Counterfactual(CounterfactualConfig),
}

/// The settings of group DRO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupDroConfig {
    /// η: how fast the weights of groups follow their losses. Default 0.01, as the authors'.
    pub step_size: f64,
    /// C: how much is added to the loss of a group of n training rows, C/√n, as small groups are learnt by heart sooner. Default 0.
    pub adjustment: f64,
}

impl Default for GroupDroConfig {
    fn default() -> Self {
        Self { step_size: 0.01, adjustment: 0.0 }
    }
}

/// The settings of counterfactual data augmentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CounterfactualConfig {
    /// Whether the exchanged row comes in the place of the row, in each epoch with probability ½, and not beside it. Default false.
    pub replace: bool,
    /// A file of more words to exchange, two a line. Default none.
    pub swaps: Option<PathBuf>,
}

/// What thresholds make equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    /// The shares predicted positive.
    DemographicParity,
    /// The shares of positive rows predicted positive.
    EqualOpportunity,
}

impl Parity {
    /// As it is measured.
    pub fn criterion(self) -> Criterion {
        match self {
            Self::DemographicParity => Criterion::DemographicParity,
            Self::EqualOpportunity => Criterion::EqualOpportunity,
        }
    }
}

impl Method {
    /// Its name in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reweighing => "reweighing",
            Self::Resampling => "resampling",
            Self::GroupDro(_) => "group-dro",
            Self::Counterfactual(_) => "counterfactual",
        }
    }
}

impl MitigationConfig {
    pub(crate) fn validate(&self, config: &SftConfig, is_validated: bool) -> Result<()> {
        let fail = |key: &str, message: String| Err(Error::config(format!("mitigation{key}"), message));
        if *self == Self::default() {
            return Ok(());
        }
        if config.task != Task::Classification {
            return fail("", "has a meaning for classes of texts only: set task=classification, or leave it out".into());
        }
        // Exchanged words need no column.
        let needs_groups = [
            ("method", !matches!(self.method, Method::None | Method::Counterfactual(_)), self.method.name()),
            ("thresholds", self.thresholds.is_some(), "a threshold for each group"),
            ("positive", self.positive.is_some(), "a positive class"),
            ("control", self.control.is_some(), "a comparison"),
        ];
        if let Some((key, _, what)) = needs_groups.iter().find(|(_, needs, _)| *needs && self.groups.is_empty()) {
            let message =
                format!("missing, but {key} is set: {what} needs the columns that say which group a row is about, such as [\"gender\"]");
            return fail(".groups", message);
        }
        if self.thresholds.is_some() && !is_validated {
            let message = "are chosen on rows that validate, and there are none: set validation.share, such as to 0.2";
            return fail(".thresholds", message.into());
        }
        if let Method::GroupDro(GroupDroConfig { step_size, adjustment }) = self.method {
            in_range("mitigation.method.step_size", step_size, step_size > 0.0 && step_size.is_finite(), "more than 0")?;
            in_range("mitigation.method.adjustment", adjustment, adjustment >= 0.0 && adjustment.is_finite(), "0 or more")?;
            if config.micro_batch_tokens > 0 {
                let message = "\"group-dro\" needs the losses of all rows of an update at once: leave micro_batch_tokens out, or set gradient_checkpointing for less memory";
                return fail(".method", message.into());
            }
        }
        Ok(())
    }
}
