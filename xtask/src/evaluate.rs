//! `cargo xtask eval`: how good a model is on a file of rows, or an encoder on a folder of judged queries.

use crate::sft::{figure, groups, number, range};
use crate::{MethodArgs, contrastive, results_file, settings};
use kiln_contrastive::{config::EvalConfig as EncoderConfig, evaluate::evaluate as evaluate_encoder};
use kiln_core::{Result, device, files, sentence_encoder::is_sentence_encoder};
use kiln_eval::figure::Figure;
use kiln_sft::config::EvalConfig;
use kiln_sft::evaluate::evaluate;
use serde::Deserialize;
use std::path::PathBuf;

/// The one setting that says which others there are.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    model: PathBuf,
}

/// Evaluates, prints the figures with their intervals and, for a classifier, the table of classes; `--out` keeps them as `results.json`.
///
/// # Errors
/// Whatever the evaluation of the model and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let Subject { model } = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    // Without a model the settings say so.
    if !model.as_os_str().is_empty() && is_sentence_encoder(&model)? {
        let config: EncoderConfig = settings::read(args)?;
        let (evaluation, counts) = evaluate_encoder(&config, &device::by_name(&args.device)?)?;
        eprintln!("evaluated {counts}");
        for figure in &evaluation.figures {
            println!("{}", contrastive::figure(figure, &evaluation));
        }
        return results.map_or(Ok(()), |path| files::write_json(&path, &evaluation));
    }
    let config: EvalConfig = settings::read(args)?;
    let evaluation = evaluate(&config, &device::by_name(&args.device)?)?;
    println!("{}", figure(&evaluation));
    for Figure { metric, value, interval, .. } in &evaluation.others {
        println!("{metric} {} {}", number(*value), range(interval));
    }
    groups(&evaluation);
    println!("loss {}", number(evaluation.loss));
    if let Some(report) = &evaluation.report {
        println!("\n{report}");
    }
    if let Some(report) = &evaluation.entities {
        println!("\n{report}");
    }
    results.map_or(Ok(()), |path| files::write_json(&path, &evaluation))
}
