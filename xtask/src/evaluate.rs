//! `cargo xtask eval`: how good a model is on a file of rows.

use crate::sft::{figure, number};
use crate::{MethodArgs, settings};
use kiln_core::{Result, device, files};
use kiln_sft::config::EvalConfig;
use kiln_sft::evaluate::evaluate;

/// Evaluates, prints the figure with its interval and, for a classifier, the table of classes; `--out` keeps them as `results.json`.
///
/// # Errors
/// Whatever [`evaluate`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config: EvalConfig = settings::read(args)?;
    let evaluation = evaluate(&config, &device::by_name(&args.device)?)?;
    println!("{}", figure(&evaluation));
    println!("loss {} nats", number(evaluation.loss_nats));
    if let Some(report) = &evaluation.report {
        println!("\n{report}");
    }
    match &args.out {
        Some(out) => files::write_json(&out.join("results.json"), &evaluation),
        None => Ok(()),
    }
}
