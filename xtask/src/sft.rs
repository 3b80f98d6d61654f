//! `cargo xtask sft`: supervised fine-tuning.

use crate::{MethodArgs, out_folder, settings};
use kiln_core::{Result, device};
use kiln_eval::bootstrap::Interval;
use kiln_eval::evaluation::Evaluation;
use kiln_eval::fairness::{Estimate, Group};
use kiln_eval::figure::{Difference, Figure};
use kiln_sft::config::SftConfig;
use kiln_sft::mitigation::{Comparison, GroupThreshold, MitigationSummary};
use kiln_sft::train::{Summary, train};
use kiln_train::effort::Effort;
use kiln_train::validation::{Criterion, ValidationSummary};
use std::path::Path;

/// Trains, and prints what it did for the held-out rows.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config = of(args)?;
    let out = out_folder(args.out.as_ref(), "sft")?;
    print(&train(&config, &device::by_name(&args.device)?, &out)?, &out);
    Ok(())
}

/// The settings of a run.
///
/// # Errors
/// Whatever the settings refuse; if a data set of the hub cannot be fetched.
pub fn of(args: &MethodArgs) -> Result<SftConfig> {
    let mut config: SftConfig = settings::read(args)?;
    config.data.fetch()?;
    Ok(config)
}

/// Prints what training did for the held-out rows.
pub fn print(summary: &Summary, out: &Path) {
    println!("{:<14} {}", "before", figure(&summary.before));
    println!("{:<14} {}", "after", figure(&summary.after));
    for Figure { metric, value, interval, .. } in &summary.after.others {
        println!("{:<14} {metric} {} {}", "", number(*value), range(interval));
    }
    groups(&summary.after);
    differences(&summary.difference);
    if let Some(mitigation) = &summary.mitigation {
        print_mitigation(mitigation);
    }
    validation("validation", summary.validation.as_ref());
    closing(&summary.effort, out);
}

/// `group f        accuracy 0.8710 [0.8550, 0.8861], selected 0.5010 [0.4710, 0.5313], on 921 rows`, a line for each group.
pub fn groups(evaluation: &Evaluation) {
    for Group { group, rows, accuracy, selection_rate, .. } in &evaluation.groups {
        let rate = |estimate: &Estimate| format!("{} {}", number(estimate.value), range(&estimate.interval));
        println!("{:<14} accuracy {}, selected {}, on {rows} rows", format!("group {group}"), rate(accuracy), rate(selection_rate));
    }
}

/// What mitigation did, beside other models on the same rows.
fn print_mitigation(MitigationSummary { thresholds, without_thresholds, control, .. }: &MitigationSummary) {
    for GroupThreshold { group, threshold } in thresholds {
        println!("{:<14} {group} {}", "threshold", number(*threshold));
    }
    let beside = |what: &str, comparison: &Option<Comparison>| {
        for (index, Difference { metric, value, interval }) in comparison.iter().flat_map(|other| &other.difference).enumerate() {
            let what = if index == 0 { what } else { "" };
            println!("{what:<14} {metric} {} [{}, {}]", signed(*value), signed(interval.low), signed(interval.high));
        }
    };
    beside("by thresholds", without_thresholds);
    beside("by mitigation", control);
}

/// What came of validating a run, if it was; `what` it is called.
pub fn validation(what: &str, summary: Option<&ValidationSummary>) {
    let Some(&ValidationSummary { criterion, n_rows, best_step, best, train, gap, .. }) = summary else { return };
    let (name, side) = match criterion {
        Criterion::Loss => ("loss", "above"),
        Criterion::Reward => ("reward", "below"),
    };
    println!("{what:<14} {name} {best:.4} on {n_rows} rows at best, after step {best_step}");
    println!("{:<14} {gap:.4} {side} the {name} on training rows, {train:.4}", "gap");
}

/// What training took, and where the run is.
pub fn closing(&Effort { n_trainable, n_parameters, n_steps, n_skipped_steps, train_seconds, tokens_per_second }: &Effort, out: &Path) {
    let skipped = if n_skipped_steps > 0 { format!(", {n_skipped_steps} of them left out") } else { String::new() };
    println!("{:<14} {n_trainable} of {n_parameters} parameters, {n_steps} steps{skipped}", "trained");
    println!("{:<14} {train_seconds:.1} s, {tokens_per_second:.0} tokens/s", "training");
    println!("{:<14} {}", "run", out.display());
}

/// `accuracy 0.8710 [0.8550, 0.8861] on 1821 rows`.
pub fn figure(evaluation: &Evaluation) -> String {
    let Evaluation { figure: Figure { metric, value, interval, .. }, n_rows, .. } = evaluation;
    format!("{metric} {} {} on {n_rows} rows", number(*value), range(interval))
}

/// `difference     accuracy +0.0310 [+0.0189, +0.0425]`, a line for each figure: after less before, on the same rows.
pub fn differences(differences: &[Difference]) {
    for (index, Difference { metric, value, interval }) in differences.iter().enumerate() {
        let what = if index == 0 { "difference" } else { "" };
        println!("{what:<14} {metric} {} [{}, {}]", signed(*value), signed(interval.low), signed(interval.high));
    }
}

/// The 95 % interval in brackets.
pub fn range(interval: &Interval) -> String {
    format!("[{}, {}]", number(interval.low), number(interval.high))
}

/// The same with its sign.
fn signed(value: f64) -> String {
    format!("{}{}", if value < 0.0 { "" } else { "+" }, number(value))
}

/// Four digits that matter.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.4}") } else { format!("{value:.2}") }
}
