//! `cargo xtask verify`: checkpoints against the reference values beside them.

use clap::Args;
use kiln_core::{Error, Result, device};
use kiln_verify::verify::{Check, Outcome, verify};
use std::path::PathBuf;

/// What the command takes.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Folders of checkpoints, each with golden.safetensors
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Prints the largest error of each quantity of each checkpoint.
///
/// # Errors
/// [`Error::Unmet`] if one is too large; if a checkpoint or its reference values are missing or damaged.
pub fn run(args: &VerifyArgs) -> Result<()> {
    let device = device::by_name(&args.device)?;
    let mut failed = Vec::new();
    for folder in &args.folders {
        let checks = verify(folder, &device)?;
        println!("{}", folder.display());
        let width = checks.iter().map(|check| check.quantity.len()).max().unwrap_or(0);
        for check in &checks {
            println!("  {:width$}  {}", check.quantity, outcome(check));
        }
        if !checks.iter().all(Check::passes) {
            failed.push(folder.display().to_string());
        }
    }
    let n = args.folders.len();
    if failed.is_empty() {
        println!("{n} of {n} checkpoints pass");
        return Ok(());
    }
    Err(Error::Unmet { message: format!("{} of {n} checkpoints differ from their reference: {}", failed.len(), failed.join(", ")) })
}

fn outcome(check: &Check) -> String {
    let verdict = if check.passes() { "pass" } else { "FAIL" };
    match &check.outcome {
        Outcome::Absent(why) => format!("{:>7}  {:9}  {why}", "-", ""),
        Outcome::Error { largest, limit } => format!("{largest:7.1e}  of {limit:<6.0e}  {verdict}"),
        Outcome::Equal { n_equal, n } => format!("{n_equal:7}  of {n:<6}  {verdict}"),
        Outcome::Differs(how) => format!("{:>7}  {:9}  {verdict}: {how}", "-", ""),
    }
}
