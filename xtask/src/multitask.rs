//! `cargo xtask multitask`, `predict` and `export`: several tasks on one trunk, trained, used, and taken apart.

use crate::sft::{figure, number, range, validation};
use crate::{MethodArgs, out_folder, results_file, settings};
use kiln_core::{Result, device, files};
use kiln_eval::figure::{Difference, Figure};
use kiln_multitask::checkpoint::{self, ExportConfig};
use kiln_multitask::config::MultitaskConfig;
use kiln_multitask::predict::{self, PredictConfig};
use kiln_multitask::train::{Conflict, Summary, train};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Trains, and prints what it did for the held-out rows of each task.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config = of(args)?;
    let out = out_folder(args.out.as_ref(), "multitask")?;
    print(&train(&config, &device::by_name(&args.device)?, &out)?, &out);
    Ok(())
}

/// The settings of a run.
///
/// # Errors
/// Whatever the settings refuse; if a data set of the hub cannot be fetched.
pub fn of(args: &MethodArgs) -> Result<MultitaskConfig> {
    let mut config: MultitaskConfig = settings::read(args)?;
    config.tasks.values_mut().try_for_each(|task| task.data.fetch())?;
    Ok(config)
}

/// Prints what training did for the held-out rows of each task.
pub fn print(summary: &Summary, out: &Path) {
    for (name, task) in &summary.tasks {
        println!("{name}");
        println!("  {:<12} {}", "before", figure(&task.before));
        println!("  {:<12} {}", "after", figure(&task.after));
        for Figure { metric, value, interval, .. } in &task.after.others {
            println!("  {:<12} {metric} {} {}", "", number(*value), range(interval));
        }
        if let Some(alone) = &task.alone {
            println!("  {:<12} {}", "alone", figure(&alone.after));
            for Difference { metric, value, interval } in alone.transfer.iter().take(1) {
                println!("  {:<12} {metric} {value:+.4} [{:+.4}, {:+.4}]", "transfer", interval.low, interval.high);
            }
        }
        let weight = task.weight.map_or(String::new(), |weight| format!(", weight {}", number(weight)));
        println!("  {:<12} {} rows{weight}", "trained on", task.n_rows_trained);
    }
    for Conflict { tasks: [a, b], cosine, opposed, n_steps } in &summary.conflicts {
        let (value, range, share) = (number(cosine.value), range(&cosine.interval), 100.0 * opposed.value);
        println!("gradients of {a} and {b}: cosine {value} {range}, below 0 in {share:.0} % of {n_steps} steps");
    }
    validation("validation", summary.validation.as_ref());
    println!("{:<14} {} parameters, {} steps", "trained", summary.n_parameters, summary.n_steps);
    let alone = summary.alone_seconds.map_or(String::new(), |seconds| format!("; the tasks alone {seconds:.1} s"));
    println!("{:<14} {:.1} s, {:.0} tokens/s{alone}", "training", summary.train_seconds, summary.tokens_per_second);
    println!("{:<14} {}", "run", out.display());
}

/// Writes what all heads say of a file's rows; `--out` keeps what there was to say as `results.json`.
///
/// # Errors
/// Whatever [`predict::predict`] and the settings refuse.
pub fn predict(args: &MethodArgs) -> Result<()> {
    let config: PredictConfig = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let start = Instant::now();
    let counts = predict::predict(&config, &device::by_name(&args.device)?)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{counts}; predictions in {}, {seconds:.1} s", config.output.display());
    match results {
        Some(path) => files::write_json(&path, &json!({ "rows": counts, "seconds": seconds })),
        None => Ok(()),
    }
}

/// Writes one task of a model of several as a model folder of its own.
///
/// # Errors
/// Whatever [`checkpoint::export`] and the settings refuse.
pub fn export(args: &MethodArgs) -> Result<()> {
    let config: ExportConfig = settings::read(args)?;
    checkpoint::export(&config, &device::by_name(&args.device)?)?;
    println!("{} in {}", config.task, config.output.display());
    Ok(())
}
