//! `cargo xtask resume`: goes on with a run that was interrupted or killed.

use crate::{continual, contrastive, multitask, rl, sft};
use clap::Args;
use kiln_core::{Error, Result, device};
use kiln_train::manifest::{MANIFEST_FILE, Manifest};
use std::path::{Path, PathBuf};

/// What `resume` takes.
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

/// Goes on from the newest checkpoint, on the device that the run was begun on, and prints what the method prints.
///
/// # Errors
/// Whatever the method refuses; if there is no run to go on with, or something it reads was changed.
pub fn run(ResumeArgs { run }: &ResumeArgs) -> Result<()> {
    go_on(run, None).map(|print| print())
}

/// Goes on with a run up to the step `until`, or to its end; returns what prints the method's summary.
///
/// # Errors
/// As [`run`]; [`Error::Interrupted`] at `until`.
pub fn go_on(run: &Path, until: Option<usize>) -> Result<Box<dyn FnOnce()>> {
    let manifest = Manifest::read(run)?;
    let (device, out) = (device::by_name(&manifest.device)?, run.to_owned());
    let print: Box<dyn FnOnce()> = match manifest.method.as_str() {
        "sft" => {
            let summary = kiln_sft::train::resume(run, &device, until)?;
            Box::new(move || sft::print(&summary, &out))
        }
        "contrastive" => {
            let summary = kiln_contrastive::train::resume(run, &device, until)?;
            Box::new(move || contrastive::print(&summary, &out))
        }
        "rl" => {
            let summary = kiln_rl::train::resume(run, &device, until)?;
            Box::new(move || rl::print(&summary, &out))
        }
        "continual" => {
            let summary = kiln_continual::train::resume(run, &device, until)?;
            Box::new(move || continual::print(summary, &out))
        }
        "multitask" => {
            let summary = kiln_multitask::train::resume(run, &device, until)?;
            Box::new(move || multitask::print(&summary, &out))
        }
        other => return Err(Error::data(&run.join(MANIFEST_FILE), None, format!("unknown method {other:?}"))),
    };
    Ok(print)
}
