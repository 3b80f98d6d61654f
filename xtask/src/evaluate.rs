//! `cargo xtask eval`: how good a model is on a file of rows.

use crate::sft::{figure, number, range};
use crate::{MethodArgs, results_file, settings};
use kiln_core::{Result, device, files};
use kiln_sft::config::EvalConfig;
use kiln_sft::evaluate::{Figure, evaluate};

/// Evaluates, prints the figure with its interval and, for a classifier, the table of classes; `--out` keeps them as `results.json`.
///
/// # Errors
/// Whatever [`evaluate`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config: EvalConfig = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let evaluation = evaluate(&config, &device::by_name(&args.device)?)?;
    println!("{}", figure(&evaluation));
    for Figure { metric, value, interval } in &evaluation.others {
        println!("{metric} {} {}", number(*value), range(interval));
    }
    println!("loss {}", number(evaluation.loss));
    if let Some(report) = &evaluation.report {
        println!("\n{report}");
    }
    if let Some(report) = &evaluation.entities {
        println!("\n{report}");
    }
    match results {
        Some(path) => files::write_json(&path, &evaluation),
        None => Ok(()),
    }
}
