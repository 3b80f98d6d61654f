//! `cargo xtask audit fit`: whether a run learnt what holds for other rows too, or its own by heart.

mod retrain;

use super::Common;
use crate::sft::{number, range};
use crate::{out_folder, results_file, settings};
use burn::tensor::Device;
use clap::Args;
use kiln_audit::fit::{self, FitAudit, FitAuditConfig, OfRows, Reported};
use kiln_audit::limits;
use kiln_audit::run::FinishedRun;
use kiln_continual::config::ContinualConfig;
use kiln_core::{Error, Result, device};
use kiln_eval::bootstrap::Interval;
use kiln_sft::config::SftConfig;
use kiln_train::manifest::settings as settings_of;
use kiln_train::observed::Observed;
use retrain::Again;
use std::path::PathBuf;

/// What `audit fit` takes.
#[derive(Args, Debug)]
pub struct FitArgs {
    /// The folder of a finished run; of several, a table sets them side by side
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Train the run's configuration on an eighth, a quarter and a half of its rows: would more rows help?
    #[arg(long)]
    learning_curve: bool,
    /// Train it on its rows with shuffled labels: how much of the fit is learnt by heart?
    #[arg(long)]
    shuffled_labels: bool,
    #[command(flatten)]
    common: Common,
}

impl FitArgs {
    pub(super) fn config(&self) -> Result<FitAuditConfig> {
        settings::read(&self.common.method)
    }
}

/// Looks at the runs, prints what was found, and leaves it in a folder and with each run.
///
/// # Errors
/// If the input is bad, or a limit of `--fail-if` is exceeded.
pub fn run(args: &FitArgs) -> Result<()> {
    let config = args.config()?;
    config.validate()?;
    let out = out_folder(args.common.method.out.as_ref(), "audit")?;
    results_file(&out)?;
    let device = device::by_name(&args.common.method.device)?;
    let cost = Again::cost(args.learning_curve, args.shuffled_labels);
    if cost > 0.0 && args.runs.len() > 1 {
        return Err(Error::config(
            "--learning-curve",
            "trains one run again: name one, or leave out --learning-curve and --shuffled-labels",
        ));
    }
    let runs = args.runs.iter().map(|folder| FinishedRun::read(folder)).collect::<Result<Vec<_>>>()?;
    let mut audits = Vec::with_capacity(runs.len());
    for run in &runs {
        let (base, observed) = observed(run, config.rows, &device)?;
        let mut audit = fit::audit(&config, run, &base, &observed, &device)?;
        if cost > 0.0 {
            let again = Again::new(run, &out, config.rows, &device)?;
            let (_, observed) = observed.first().expect("what is trained again was looked at");
            let seconds = run.results["train_seconds"].as_f64().unwrap_or(f64::NAN);
            eprintln!(
                "trains the configuration again, for {cost} times as long as the run, which took {seconds:.0} s: about {:.0} s",
                cost * seconds
            );
            audit.learning_curve = args.learning_curve.then(|| again.learning_curve(observed, config.seed)).transpose()?;
            audit.shuffled = args.shuffled_labels.then(|| again.shuffled_labels(observed, config.seed)).transpose()?;
        }
        fit::write_into_run(&audit, run)?;
        audits.push((audit, run));
    }
    fit::write(&audits, &config, &out)?;
    match &audits[..] {
        [(audit, run)] => print(audit, run),
        several => table(&several.iter().map(|(audit, _)| audit).collect::<Vec<_>>()),
    }
    println!("{:<16} {}", "report", out.join("report.html").display());
    let exceeded = |(audit, _): &(FitAudit, &FinishedRun)| match limits::check(&args.common.fail_if, &audit.measured()) {
        Err(Error::Unmet { message }) => Err(Error::Unmet { message: format!("{}: {message}", audit.run) }),
        other => other,
    };
    audits.iter().try_for_each(exceeded)
}

/// The model that `run` began with, and what it and the trained one say of the rows of each part, of which there is none if the method cannot be asked.
fn observed(run: &FinishedRun, most_rows: usize, device: &Device) -> Result<(PathBuf, Vec<(String, Observed)>)> {
    let folder = &run.folder;
    Ok(match run.manifest.method.as_str() {
        "sft" => {
            let observed = kiln_sft::observe::observe(folder, most_rows, device)?;
            (settings_of::<SftConfig>(folder)?.model, vec![(String::new(), observed)])
        }
        "continual" => {
            let mut parts = kiln_continual::observe::observe(folder, most_rows, device)?;
            // A single domain needs no name.
            if let [(name, _)] = &mut parts[..] {
                name.clear();
            }
            (settings_of::<ContinualConfig>(folder)?.model, parts)
        }
        _ => (PathBuf::new(), Vec::new()),
    })
}

fn print(audit: &FitAudit, run: &FinishedRun) {
    println!("{:<16} {}, {}", "run", audit.run, run.manifest.method);
    println!("{:<16} {}", "verdict", audit.verdict());
    let curves = &audit.curves;
    println!(
        "{:<16} loss {} to {}, the means of a tenth of the steps",
        "training",
        number(curves.first_train_loss),
        number(curves.last_train_loss)
    );
    match (curves.best_validation, curves.last_validation) {
        (Some((best_step, best)), Some((last_step, last))) => {
            println!("{:<16} loss {} at best, after step {best_step}; {} after step {last_step}", "validation", number(best), number(last));
        }
        _ => println!("{:<16} none: set validation.share to have some", "validation"),
    }
    if audit.rows.is_empty() {
        println!("{:<16} not looked at: only those of sft and continual are", "rows");
    }
    for rows in &audit.rows {
        let of = if rows.part.is_empty() { String::new() } else { format!(" of {}", rows.part) };
        println!("{:<16} {} that were trained on, {} held out{of}", "rows", rows.n_rows[0], rows.n_rows[1]);
        if rows.verbatim.is_none() && audit.canaries.is_some() {
            println!("{:<16} no row{of} is long enough: set prefix_tokens and suffix_tokens", "verbatim");
        }
    }
    let cell = |value: f64, interval: &Interval| format!("{} {}", number(value), range(interval));
    let figures = audit.figures();
    let width = figures.iter().map(|figure| figure.of.chars().count()).max().unwrap_or(0).max(22);
    println!("\n{:<16}  {:<width$}  {:<26}  {:<26}  rise", "figure", "of", "before", "after");
    for Reported { name, of, before, after, rise } in figures {
        let before = before.map_or_else(String::new, |figure| cell(figure.value, &figure.interval));
        let after = cell(after.value, &after.interval);
        let rise = rise.map_or_else(String::new, |rise| cell(rise.value, &rise.interval));
        println!("{}", format!("{name:<16}  {of:<width$}  {before:<26}  {after:<26}  {rise}").trim_end());
    }
    if let Some(canaries) = &audit.canaries {
        println!("\n{:<32}  {:>8}  {:>7}  {:>6}  extracted", "canary", "exposure", "counted", "before");
        for canary in &canaries.canaries {
            let extracted = if canary.extracted { "yes" } else { "" };
            let numbers = format!("{:>8.1}  {:>7.1}  {:>6.1}", canary.exposure, canary.counted, canary.before);
            println!("{}", format!("{:<32}  {numbers}  {extracted}", canary.prompt).trim_end());
        }
    }
    if let Some(curve) = &audit.learning_curve {
        let points: Vec<String> = curve.points.iter().map(|point| format!("{} at {}", number(point.error), point.rows)).collect();
        println!("\n{:<16} {}: {} rows", "learning curve", curve.of, points.join(", "));
        let law = format!("{} + {}·n^-{}", number(curve.law.floor), number(curve.law.factor), number(curve.law.exponent));
        let answer = if curve.helps() { "more rows would help" } else { "that more rows would help is not beyond chance" };
        println!("{:<16} {law}: {} expected at {} rows; {answer}", "", number(curve.expected.value), curve.n_rows);
    }
    println!();
}

/// One line for each run, or for each part of one.
fn table(audits: &[&FitAudit]) {
    let lines = |audit: &&FitAudit| -> Vec<(String, [Option<f64>; 8])> {
        let canaries = audit.canaries.as_ref();
        let of_canaries = [canaries.map(|canaries| canaries.exposure.value), canaries.map(|canaries| canaries.extracted.value)];
        let line = |rows: &OfRows| {
            let name = if rows.part.is_empty() { audit.run.clone() } else { format!("{}, {}", audit.run, rows.part) };
            let ece = rows.calibration.as_ref().map(|drift| drift.after.ece.value);
            let verbatim = rows.verbatim.as_ref().map(|verbatim| verbatim.extractable.value);
            let [train, held_out] = rows.loss.each_ref().map(|loss| Some(loss.value));
            let cells = [train, held_out, Some(rows.gap.value), Some(rows.membership.auc.value), ece, verbatim];
            (name, [&cells[..], &of_canaries].concat().try_into().expect("eight cells"))
        };
        match &audit.rows[..] {
            [] => vec![(audit.run.clone(), [Some(audit.curves.last_train_loss), None, None, None, None, None, None, None])],
            parts => parts.iter().map(line).collect(),
        }
    };
    let lines: Vec<_> = audits.iter().flat_map(lines).collect();
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(3);
    let names = ["train loss", "held out", "gap", "AUC", "ECE", "verbatim", "exposure", "extracted"];
    println!("{:<width$}  {}", "run", names.map(|name| format!("{name:>10}")).join("  "));
    for (name, cells) in lines {
        let cells = cells.map(|cell| format!("{:>10}", cell.map_or_else(|| "-".to_owned(), number)));
        println!("{name:<width$}  {}", cells.join("  "));
    }
}
