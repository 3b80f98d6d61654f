//! `cargo xtask contrastive`, `embed` and `search`: sentence encoders trained and used.

use crate::sft::{closing, differences, number, range, validation};
use crate::{MethodArgs, out_folder, results_file, settings};
use kiln_contrastive::config::ContrastiveConfig;
use kiln_contrastive::embed::{self, EmbedConfig, SearchConfig};
use kiln_contrastive::evaluate::Evaluation;
use kiln_contrastive::train::{Summary, train};
use kiln_core::{Result, device, files};
use kiln_eval::figure::Figure;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Trains, and prints what it did for what was held out.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config = of(args)?;
    let out = out_folder(args.out.as_ref(), "contrastive")?;
    print(&train(&config, &device::by_name(&args.device)?, &out)?, &out);
    Ok(())
}

/// The settings of a run.
///
/// # Errors
/// Whatever the settings refuse; if a data set of the hub cannot be fetched.
pub fn of(args: &MethodArgs) -> Result<ContrastiveConfig> {
    let mut config: ContrastiveConfig = settings::read(args)?;
    config.data.fetch()?;
    Ok(config)
}

/// Prints what training did for what was held out.
pub fn print(summary: &Summary, out: &Path) {
    for (when, evaluation) in [("before", &summary.before), ("after", &summary.after)] {
        for each in &evaluation.figures {
            println!("{when:<14} {}", figure(each, evaluation));
        }
    }
    differences(&summary.difference);
    validation("validation", summary.validation.as_ref());
    closing(&summary.effort, out);
}

/// `spearman 0.8203 [0.7995, 0.8389] on 1379 pairs`.
pub fn figure(figure: &Figure, evaluation: &Evaluation) -> String {
    let Figure { metric, value, interval, .. } = figure;
    format!("{metric} {} {} on {} {}", number(*value), range(interval), evaluation.n_units, evaluation.unit)
}

/// Writes the vectors of a file's texts; `--out` keeps what there was to say as `results.json`.
///
/// # Errors
/// Whatever [`embed::embed`] and the settings refuse.
pub fn embed(args: &MethodArgs) -> Result<()> {
    let config: EmbedConfig = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let start = Instant::now();
    let (counts, width) = embed::embed(&config, &device::by_name(&args.device)?)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{counts}; vectors of {width} numbers in {}, {seconds:.1} s", config.output.display());
    match results {
        Some(path) => files::write_json(&path, &json!({ "texts": counts, "width": width, "seconds": seconds })),
        None => Ok(()),
    }
}

/// Prints the texts nearest to a query with their cosines; `--out` keeps them as `results.json`.
///
/// # Errors
/// Whatever [`embed::search`] and the settings refuse.
pub fn search(args: &MethodArgs) -> Result<()> {
    let config: SearchConfig = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let (found, counts) = embed::search(&config, &device::by_name(&args.device)?)?;
    eprintln!("searched {counts}");
    for text in &found {
        println!("{:.4}  line {:<6} {}", text.cosine, text.line, text.text);
    }
    match results {
        Some(path) => files::write_json(&path, &json!({ "query": config.query, "found": found })),
        None => Ok(()),
    }
}
