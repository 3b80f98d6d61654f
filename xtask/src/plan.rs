//! `cargo xtask plan METHOD`: what a run would do and take, without training.

use crate::config::Method;
use crate::inspect::grouped;
use crate::{MethodArgs, continual, contrastive, multitask, rl, sft};
use clap::Args;
use kiln_core::{Result, device};
use kiln_train::preflight::machine::{size, total_bytes};
use kiln_train::preflight::plan::Plan;

/// The run to plan.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The method
    pub method: Method,
    #[command(flatten)]
    pub run: MethodArgs,
}

/// Prints the findings of the pre-flight and the forecast.
///
/// # Errors
/// Whatever the run itself would refuse.
pub fn run(args: &PlanArgs) -> Result<()> {
    let device = device::by_name(&args.run.device)?;
    let run = &args.run;
    let plan = match args.method {
        Method::Sft => kiln_sft::plan::plan(&sft::of(run)?, &device)?,
        Method::Rl => kiln_rl::plan::plan(&rl::of(run)?, &device)?,
        Method::Contrastive => kiln_contrastive::plan::plan(&contrastive::of(run)?, &device)?,
        Method::Adapt => kiln_continual::plan::plan(&continual::of_domain(run)?, &device)?,
        Method::Continual => kiln_continual::plan::plan(&continual::of_stream(run)?, &device)?,
        Method::Multitask => kiln_multitask::plan::plan(&multitask::of(run)?, &device)?,
    };
    print(&plan);
    Ok(())
}

fn print(plan: &Plan) {
    let line = |name: &str, value: String| println!("{name:<14} {value}");
    let [n_train, n_held_out] = plan.n_rows.map(grouped);
    line("rows", format!("{n_train} train, {n_held_out} held out"));
    line("updates", format!("{}, {} tokens", grouped(plan.n_steps), grouped(plan.n_tokens)));
    let [n_trainable, n_parameters] = plan.n_parameters.map(grouped);
    line("trains", format!("{n_trainable} of {n_parameters} parameters"));
    let total = total_bytes().map_or(String::new(), |total| format!(" of the machine's {}", size(total)));
    line("memory", format!("{}{total}", plan.memory));
    if let Some(peak) = plan.trial_peak {
        line("", format!("{} in the largest update of the trial", size(peak)));
    }
    if let Some(time) = plan.time {
        line("time", time.to_string());
    }
    if plan.findings.is_empty() {
        line("findings", "none".into());
    }
    plan.findings.iter().for_each(|finding| println!("{finding}"));
}
