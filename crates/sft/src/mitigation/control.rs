//! What mitigation did: beside the model without thresholds, and beside a model that was trained without it.

use super::Mitigation;
use crate::config::SftConfig;
use crate::evaluate::answers;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::model::Model;
use kiln_core::{Error, Result};
use kiln_data::grouped::Grouped;
use kiln_eval::evaluation::Evaluation;
use kiln_eval::figure::Difference;
use kiln_train::manifest::settings;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What mitigation did.
#[derive(Clone, Debug, Serialize)]
pub struct MitigationSummary {
    /// The name of the method.
    pub method: &'static str,
    /// The threshold of each group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<GroupThreshold>,
    /// The same model without its thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_thresholds: Option<Comparison>,
    /// The model that was trained without mitigation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Comparison>,
}

/// The threshold of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupThreshold {
    /// The group.
    pub group: String,
    /// How likely the positive class must be.
    pub threshold: f64,
}

/// Another model on the same held-out rows.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The other model.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// By how much each figure of this run's model is larger, with its paired interval.
    pub difference: Vec<Difference>,
}

impl Comparison {
    /// Of the run's `model` with another one.
    pub fn new(model: &Evaluation, other: Evaluation) -> Self {
        Self { difference: model.minus(&other), evaluation: other }
    }
}

/// A model that was trained without mitigation.
pub(super) struct Control(PathBuf);

impl Control {
    /// The one in `folder`, which must have been trained on the rows of `config` and be judged by the same.
    pub fn find(folder: &Path, config: &SftConfig) -> Result<Self> {
        let fail = |message: String| Error::config("mitigation.control", message);
        let run = folder.parent().unwrap_or(folder);
        let other: SftConfig =
            settings(run).map_err(|error| fail(format!("{error}; name the folder model of a run of cargo xtask sft")))?;
        let same = [
            ("model", other.model == config.model),
            ("data", other.data == config.data),
            ("columns", other.columns == config.columns),
            ("seed", other.seed == config.seed),
            ("task", other.task == config.task),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((key, _)) => {
                Err(fail(format!("{} has another {key} than this run: a control differs in its mitigation only", run.display())))
            }
            None => Ok(Self(folder.to_owned())),
        }
    }

    fn evaluation(&self, mitigation: &Mitigation<'_>, rows: &[Grouped], device: &Device, seed: u64) -> Result<Evaluation> {
        let (model, _) = SequenceClassifier::load(&self.0, device)?;
        if model.config().label_names() != mitigation.classes {
            return Err(Error::config("mitigation.control", format!("{} knows other classes", self.0.display())));
        }
        let all: Vec<_> = rows.iter().map(|row| &row.row).collect();
        let answers = answers(&model, &all, mitigation.positive());
        Ok(super::judged(&answers, rows, &mitigation.groups, &mitigation.positives, &mitigation.classes, None, seed))
    }
}

impl Mitigation<'_> {
    /// Chooses the thresholds on the rows that `validate`, judges the model by those held out, and says what mitigation did, if there is any.
    ///
    /// # Errors
    /// If the control cannot be loaded.
    pub fn finish(
        &mut self,
        model: &SequenceClassifier,
        [validating, held_out]: [&[Grouped]; 2],
        device: &Device,
        seed: u64,
    ) -> Result<(Evaluation, Option<MitigationSummary>)> {
        let positive = self.positive();
        let answers_to = |rows: &[Grouped]| answers(model, &rows.iter().map(|row| &row.row).collect::<Vec<_>>(), positive);
        let of_held_out = answers_to(held_out);
        let plain = self.evaluation(&of_held_out, held_out, seed);
        if *self.config == super::MitigationConfig::default() {
            return Ok((plain, None));
        }
        let (mut after, mut without_thresholds) = (plain.clone(), None);
        if self.config.thresholds.is_some() {
            self.calibrate(&answers_to(validating), validating);
            after = self.evaluation(&of_held_out, held_out, seed);
            without_thresholds = Some(Comparison::new(&after, plain));
        }
        let control = self.control.as_ref().map(|control| control.evaluation(self, held_out, device, seed)).transpose()?;
        let threshold = |(group, &threshold): (&String, &f64)| GroupThreshold { group: group.clone(), threshold };
        let summary = MitigationSummary {
            method: self.config.method.name(),
            thresholds: self.thresholds().iter().flat_map(|found| &found.thresholds).map(threshold).collect(),
            without_thresholds,
            control: control.map(|control| Comparison::new(&after, control)),
        };
        Ok((after, Some(summary)))
    }
}
