//! Whether a run learnt what holds for other rows too, or its own rows by heart: its curves and gap, how well its losses give away which rows it was
//! trained on, its calibration before and after, what of its rows it repeats word for word, and how exposed planted canaries are. Where its
//! configuration was trained again, what more rows would bring, and what it learns of labels that mean nothing.

pub mod calibration;
mod config;
pub mod control;
pub mod curves;
pub mod exposure;
pub mod membership;
pub mod power_law;
mod report;
pub mod skew_normal;
pub mod variations;
pub mod verbatim;

pub use config::FitAuditConfig;
pub use report::{Reported, write, write_into_run};

use crate::run::FinishedRun;
use burn::module::Module as _;
use burn::tensor::Device;
use calibration::Drift;
use control::ShuffledControl;
use curves::Curves;
use exposure::Canaries;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_eval::figure::{Difference, Figure};
use kiln_train::observed::{Observation, Observed};
use membership::Membership;
use power_law::LearningCurve;
use serde::Serialize;
use std::path::Path;
use verbatim::Verbatim;

/// What rows say.
#[derive(Clone, Debug, Serialize)]
pub struct OfRows {
    /// What they are of, where a run has several parts: the name of a domain or a task. Else empty.
    pub part: String,
    /// Rows that were trained on, and rows held out, that the models were asked about.
    pub n_rows: [usize; 2],
    /// The loss per item before training on rows that were trained on, and on held-out rows.
    pub loss_before: [Figure; 2],
    /// The same after training.
    pub loss: [Figure; 2],
    /// By how much the loss on held-out rows was higher before training: 0 if the sides are of one kind.
    pub gap_before: Figure,
    /// By how much it is after training.
    pub gap: Figure,
    /// By how much the gap grew.
    pub gap_rise: Difference,
    /// How well the losses of the model before training tell one side from the other.
    pub membership_before: Membership,
    /// How well those of the trained model do.
    pub membership: Membership,
    /// By how much the area is larger than before.
    pub membership_rise: Difference,
    /// Calibration on held-out rows, if answers have probabilities.
    pub calibration: Option<Drift>,
    /// How a decoder continues rows it was trained on, if they are long enough.
    pub verbatim: Option<Verbatim>,
    /// The same of held-out rows.
    pub verbatim_held_out: Option<Verbatim>,
}

/// What came of an audit.
#[derive(Clone, Debug, Serialize)]
pub struct FitAudit {
    /// The run's folder.
    pub run: String,
    /// How its losses went.
    pub curves: Curves,
    /// What its rows say, part by part; nothing where the method cannot be asked about single rows.
    pub rows: Vec<OfRows>,
    /// What it knows of the canaries that it planted, if it did.
    pub canaries: Option<Canaries>,
    /// How its error falls with the number of rows, if its configuration was trained on parts of them.
    pub learning_curve: Option<LearningCurve>,
    /// What its configuration learns of shuffled labels, if it was trained on them.
    pub shuffled: Option<ShuffledControl>,
}

/// Looks at `run`, and trains nothing. `observed` is what its models say of the rows of each of its parts, with the part's name, which is empty if it is
/// the only one; `base` the folder of the model before training.
///
/// # Errors
/// If a setting or a model is bad.
pub fn audit(
    config: &FitAuditConfig,
    run: &FinishedRun,
    base: &Path,
    observed: &[(String, Observed)],
    device: &Device,
) -> Result<FitAudit> {
    config.validate()?;
    let canaries = run.canaries()?;
    let is_decoder = observed.iter().any(|(_, observed)| !observed.train.examples.is_empty());
    let folder = run.folder.join("model");
    let trained = (is_decoder || !canaries.is_empty()).then(|| load(&folder, device)).transpose()?;
    let canaries = match &trained {
        Some(trained) if !canaries.is_empty() => {
            let tokenizer = Tokenizer::for_model(&folder, &ModelConfig::from_folder(&folder)?)?;
            let before = load(base, device)?;
            Some(exposure::exposures([&before, trained], &folder, &tokenizer, &canaries, config.alternatives, config.seed)?)
        }
        _ => None,
    };
    Ok(FitAudit {
        run: run.folder.display().to_string(),
        curves: curves::curves(&run.metrics),
        rows: observed.iter().map(|(part, observed)| of_rows(config, part, observed, trained.as_ref())).collect::<Result<_>>()?,
        canaries,
        learning_curve: None,
        shuffled: None,
    })
}

fn load(folder: &Path, device: &Device) -> Result<LanguageModel> {
    Ok(LanguageModel::load(folder, device)?.0.valid())
}

/// What single rows of a part say.
///
/// # Errors
/// If a row cannot be continued.
pub fn of_rows(
    config: &FitAuditConfig,
    part: &str,
    Observed { train, held_out }: &Observed,
    decoder: Option<&LanguageModel>,
) -> Result<OfRows> {
    let seed = config.seed;
    let sums = |rows: &[Observation]| rows.iter().map(|row| (row.loss, row.n_items as f64)).collect::<Vec<_>>();
    let means = |rows: &[Observation]| rows.iter().map(Observation::mean_loss).collect::<Vec<_>>();
    let loss = |rows: &[Observation]| Figure::new("loss", sums(rows), per_item, seed).lower_is_better();
    let gap = |train: &[Observation], held_out: &[Observation]| {
        let (train, held_out) = (sums(train), sums(held_out));
        let sizes = vec![train.len(), held_out.len()];
        let score = move |places: &[usize]| {
            let (one, other) = places.split_at(train.len());
            let take = |of: &[(f64, f64)], places: &[usize]| per_item(&places.iter().map(|&place| of[place]).collect::<Vec<_>>());
            take(&held_out, other) - take(&train, one)
        };
        Figure::of_strata("gap", sizes, score, seed).lower_is_better()
    };
    let (gap_before, gap) = (gap(&train.before, &held_out.before), gap(&train.after, &held_out.after));
    let membership_before = membership::membership(&means(&train.before), &means(&held_out.before), seed);
    let membership = membership::membership(&means(&train.after), &means(&held_out.after), seed);
    let continued = |rows| match decoder {
        Some(model) => verbatim::verbatim(model, rows, config.prefix_tokens, config.suffix_tokens, seed),
        None => Ok(None),
    };
    Ok(OfRows {
        part: part.to_owned(),
        n_rows: [train.after.len(), held_out.after.len()],
        loss_before: [loss(&train.before), loss(&held_out.before)],
        loss: [loss(&train.after), loss(&held_out.after)],
        gap_rise: gap.minus(&gap_before),
        gap_before,
        gap,
        membership_rise: membership.auc.minus(&membership_before.auc),
        membership_before,
        membership,
        calibration: calibration::drift(&held_out.before, &held_out.after, seed),
        verbatim: continued(&train.examples)?,
        verbatim_held_out: continued(&held_out.examples)?,
    })
}

/// The loss per item of rows of `(loss, items)`.
fn per_item(rows: &[(f64, f64)]) -> f64 {
    rows.iter().map(|row| row.0).sum::<f64>() / rows.iter().map(|row| row.1).sum::<f64>()
}
