//! What an audit of a run's fit came to: in words, as numbers with limits, and as files.

use super::curves::Course;
use super::{FitAudit, FitAuditConfig, OfRows};
use crate::data::write_settings;
use crate::limits::Measured;
use crate::run::{FinishedRun, Part};
use kiln_core::Result;
use kiln_core::files::write_json;
use kiln_eval::figure::{Difference, Figure};
use kiln_train::run::Line;
use kiln_train::{card, report};
use serde_json::{Value, json};
use std::path::Path;

/// A figure of an audit.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// Its name.
    pub name: &'static str,
    /// What it is of.
    pub of: String,
    /// Before training, where it was measured.
    pub before: Option<&'a Figure>,
    /// After.
    pub after: &'a Figure,
    /// By how much it rose.
    pub rise: Option<&'a Difference>,
}

/// A number that rows may have.
type ValueOfRows = fn(&OfRows) -> Option<f64>;

impl FitAudit {
    /// Whether the run learnt its rows by heart, in a sentence. It did if its validation loss rises, or if the gap between its losses grew beyond
    /// chance.
    pub fn verdict(&self) -> String {
        let known: Vec<&str> = self.rows.iter().filter(|rows| rows.gap_rise.interval.low > 0.0).map(|rows| rows.part.as_str()).collect();
        // Domains that were validated one after the other have no common curve.
        let course = if self.rows.len() > 1 { Course::Level } else { self.curves.course };
        let verdict = match (course, &self.rows[..]) {
            (Course::Rising, _) => "overfits: the validation loss rises while the training loss falls",
            (_, [_]) if !known.is_empty() => "knows its rows better than others, beyond chance",
            _ if !known.is_empty() => return format!("knows its rows of {} better than others, beyond chance", known.join(", ")),
            (Course::Falling, _) => "no overfitting beyond chance; the validation loss still falls",
            (Course::NotValidated, []) => "not known: the run was not validated, and its rows were not looked at",
            _ => "no overfitting beyond chance",
        };
        verdict.to_owned()
    }

    /// The numbers that limits know: of several parts the largest of each, and under `PART.NAME` that of each.
    pub fn measured(&self) -> Vec<Measured> {
        let mut measured = Vec::new();
        let mut add = |name: &str, value: Option<f64>| {
            measured.extend(value.map(|value| Measured { name: name.to_owned(), value, whole: 1.0 }));
        };
        let of_rows: [(&str, ValueOfRows); 6] = [
            ("gap", |rows| Some(rows.gap.value)),
            ("membership-auc", |rows| Some(rows.membership.auc.value)),
            ("ece", |rows| rows.calibration.as_ref().map(|drift| drift.after.ece.value)),
            ("ece-rise", |rows| rows.calibration.as_ref().map(|drift| drift.rise[0].value)),
            ("brier", |rows| rows.calibration.as_ref().map(|drift| drift.after.brier.value)),
            ("verbatim", |rows| rows.verbatim.as_ref().map(|verbatim| verbatim.extractable.value)),
        ];
        for (name, value) in of_rows {
            add(name, self.rows.iter().filter_map(value).reduce(f64::max));
            if let [_, _, ..] = self.rows[..] {
                self.rows.iter().for_each(|rows| add(&format!("{}.{name}", rows.part), value(rows)));
            }
        }
        add("exposure", self.canaries.as_ref().map(|canaries| canaries.exposure.value));
        add("extracted", self.canaries.as_ref().map(|canaries| canaries.extracted.value));
        add("memorised", self.shuffled.as_ref().map(|control| control.memorised.value));
        measured
    }

    /// Every figure.
    pub fn figures(&self) -> Vec<Reported<'_>> {
        let mut figures = Vec::new();
        let mut push = |part: &str, (name, of, before, after, rise): (&'static str, &str, _, _, _)| {
            let of = if part.is_empty() { of.to_owned() } else { format!("{part}, {of}") };
            figures.push(Reported { name, of, before, after, rise });
        };
        for rows in &self.rows {
            let part = rows.part.as_str();
            for (side, of) in ["training rows", "held-out rows"].into_iter().enumerate() {
                push(part, ("loss", of, Some(&rows.loss_before[side]), &rows.loss[side], None));
            }
            push(part, ("gap", "held out less training", Some(&rows.gap_before), &rows.gap, Some(&rows.gap_rise)));
            let (before, after) = (&rows.membership_before, &rows.membership);
            push(part, ("membership AUC", "by the loss of a row", Some(&before.auc), &after.auc, Some(&rows.membership_rise)));
            push(part, ("advantage", "by the loss of a row", Some(&before.advantage), &after.advantage, None));
            if let Some(drift) = &rows.calibration {
                let [ece, brier] = &drift.rise;
                push(part, ("ECE", "held-out rows", Some(&drift.before.ece), &drift.after.ece, Some(ece)));
                push(part, ("Brier score", "held-out rows", Some(&drift.before.brier), &drift.after.brier, Some(brier)));
            }
            for (of, verbatim) in [("training rows", &rows.verbatim), ("held-out rows", &rows.verbatim_held_out)] {
                if let Some(verbatim) = verbatim {
                    push(part, ("verbatim", of, None, &verbatim.extractable, None));
                    push(part, ("matched", of, None, &verbatim.matched, None));
                }
            }
        }
        if let Some(canaries) = &self.canaries {
            push("", ("exposure", "canaries, in bits", None, &canaries.exposure, Some(&canaries.rise)));
            push("", ("extracted", "canaries", None, &canaries.extracted, None));
        }
        if let Some(control) = &self.shuffled {
            push("", ("fall", "training loss", None, &control.fall, None));
            push("", ("fall", "of shuffled labels", None, &control.shuffled_fall, None));
            push("", ("memorised", "the second of the first", None, &control.memorised, None));
        }
        if let Some(curve) = &self.learning_curve {
            push("", ("expected error", "at twice the rows", None, &curve.expected, None));
            push("", ("gain", "of twice the rows", None, &curve.gain, None));
        }
        figures
    }

    /// As a section of a model card.
    fn section(&self) -> String {
        let cell = |figure: &Figure| card::with_interval(figure.value, figure.interval.low, figure.interval.high);
        let row = |figure: Reported<'_>| {
            let rise = figure.rise.map(|rise| card::with_interval(rise.value, rise.interval.low, rise.interval.high));
            let before = figure.before.map(cell).unwrap_or_default();
            vec![figure.name.to_owned(), figure.of, before, cell(figure.after), rise.unwrap_or_default()]
        };
        let rows: Vec<Vec<String>> = self.figures().into_iter().map(row).collect();
        format!("The run {}.\n\n{}", self.verdict(), card::table(&["figure", "of", "before", "after", "rise"], &rows))
    }

    /// As results.
    pub fn results(&self) -> Value {
        let cell = |figure: Option<&Figure>| {
            figure.map_or_else(|| json!(""), |figure| json!({ "value": figure.value, "interval": figure.interval }))
        };
        let rise =
            |rise: Option<&Difference>| rise.map_or_else(|| json!(""), |rise| json!({ "value": rise.value, "interval": rise.interval }));
        let line = |figure: Reported<'_>| {
            let Reported { name, of, before, after, rise: difference } = figure;
            json!({ "figure": name, "of": of, "before": cell(before), "after": cell(Some(after)), "rise": rise(difference) })
        };
        let curves = &self.curves;
        let [best, last] = [curves.best_validation, curves.last_validation]
            .map(|validation| validation.map_or_else(|| json!(""), |(step, loss)| json!({ "step": step, "loss": loss })));
        let mut results = json!({
            "run": self.run,
            "verdict": self.verdict(),
            "curves": {
                "course": curves.course, "first_train_loss": curves.first_train_loss, "last_train_loss": curves.last_train_loss,
                "n_validations": curves.n_validations, "best_validation": best, "last_validation": last,
            },
            "figures": self.figures().into_iter().map(line).collect::<Vec<_>>(),
        });
        for rows in &self.rows {
            let key = |name: &str| if rows.part.is_empty() { name.to_owned() } else { format!("{name} of {}", rows.part) };
            let mut counts = json!({ "training": rows.n_rows[0], "held_out": rows.n_rows[1] });
            if let Some(verbatim) = &rows.verbatim {
                counts["continued"] = verbatim.n_rows.into();
            }
            results[key("rows")] = counts;
            if let Some(drift) = &rows.calibration {
                results[key("reliability before")] = json!(drift.before.reliability);
                results[key("reliability")] = json!(drift.after.reliability);
            }
        }
        if let Some(canaries) = &self.canaries {
            results["canaries"] = json!(canaries.canaries);
        }
        if let Some(curve) = &self.learning_curve {
            results["learning curve"] = json!({
                "error": curve.of, "law": curve.law, "rows": curve.n_rows, "expected": curve.expected, "gain": curve.gain,
                "more rows help": curve.helps(),
            });
            results["points of the learning curve"] = json!(curve.points);
        }
        results
    }
}

/// Writes `results.json`, `config.toml` and `report.html` into `folder`; of several runs, one after the other.
///
/// # Errors
/// If one cannot be written.
pub fn write(audits: &[(FitAudit, &FinishedRun)], config: &FitAuditConfig, folder: &Path) -> Result<()> {
    let (results, metrics) = match audits {
        [(audit, run)] => (audit.results(), losses(&run.metrics)),
        _ => (json!({ "runs": audits.iter().map(|(audit, _)| audit.results()).collect::<Vec<_>>() }), Vec::new()),
    };
    let names: Vec<&str> = audits.iter().map(|(audit, _)| audit.run.as_str()).collect();
    write_settings(folder, config)?;
    report::write(folder, &format!("Fit: {}", names.join(", ")), &results, &metrics)?;
    // Last: a folder that has it is complete.
    write_json(&folder.join("results.json"), &results)
}

/// Adds the audit to the folder of its run: as `fit.json`, to its page, and as the section "Fit" to the model's card.
///
/// # Errors
/// If one cannot be written.
pub fn write_into_run(audit: &FitAudit, run: &FinishedRun) -> Result<()> {
    run.add(Part::Fit, &audit.results(), &audit.section())
}

/// The metrics that a page about fit plots.
fn losses(metrics: &[Line]) -> Vec<Line> {
    let of_losses = |line: &Line| {
        let values = line.values.iter().filter(|(name, _)| ["loss", "validation_loss"].contains(&name.as_str()));
        Line { values: values.map(|(name, value)| (name.clone(), value.clone())).collect(), ..line.clone() }
    };
    metrics.iter().map(of_losses).filter(|line| !line.values.is_empty()).collect()
}
