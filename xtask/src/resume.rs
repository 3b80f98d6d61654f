//! `cargo xtask resume`: goes on with a run that was interrupted or killed.

use crate::{continual, contrastive, multitask, rl, sft};
use clap::Args;
use kiln_core::{Error, Result, device};
use kiln_train::manifest::{MANIFEST_FILE, Manifest};
use std::path::PathBuf;

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
    let manifest = Manifest::read(run)?;
    let device = device::by_name(&manifest.device)?;
    match manifest.method.as_str() {
        "sft" => sft::print(&kiln_sft::train::resume(run, &device, None)?, run),
        "contrastive" => contrastive::print(&kiln_contrastive::train::resume(run, &device, None)?, run),
        "rl" => rl::print(&kiln_rl::train::resume(run, &device, None)?, run),
        "continual" => continual::print(kiln_continual::train::resume(run, &device, None)?, run),
        "multitask" => multitask::print(&kiln_multitask::train::resume(run, &device, None)?, run),
        other => return Err(Error::data(&run.join(MANIFEST_FILE), None, format!("unknown method {other:?}"))),
    }
    Ok(())
}
