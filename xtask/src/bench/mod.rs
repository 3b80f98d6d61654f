//! `cargo xtask bench`: how long the work of the common methods takes, on the workloads that the Python peers are measured with.

mod ceiling;
mod classify;
mod compare;
mod contrastive;
mod dense_step;
mod embed;
mod generate;
mod grpo;
mod measure;
mod mlm;
mod multitask;
mod roofline;
mod scaling;
mod sft;
mod startup;
mod train;

use clap::{Args, Subcommand};
use kiln_core::config::ModelConfig;
use kiln_core::{Error, Result, device};
use measure::{N_WARMUP_STEPS, Report, too_few_steps};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A workload: what is run, and how often unless the user says.
struct Workload {
    name: &'static str,
    n_steps: usize,
    /// What a step is made of.
    unit: &'static str,
    run: fn(&Setup) -> Result<Report>,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "ceiling", n_steps: 4, unit: "probes", run: ceiling::run },
    Workload { name: "dense-step", n_steps: 30, unit: "tokens", run: dense_step::run },
    Workload { name: "sft-lora", n_steps: 10, unit: "tokens", run: sft::lora },
    Workload { name: "sft-full", n_steps: 20, unit: "tokens", run: sft::full },
    Workload { name: "classify", n_steps: 60, unit: "examples", run: classify::run },
    Workload { name: "contrastive", n_steps: 30, unit: "pairs", run: contrastive::in_one_pass },
    Workload { name: "cached-contrastive", n_steps: 6, unit: "pairs", run: contrastive::cached },
    Workload { name: "mlm", n_steps: 20, unit: "tokens", run: mlm::run },
    Workload { name: "multitask", n_steps: 60, unit: "examples", run: multitask::run },
    Workload { name: "generate", n_steps: 6, unit: "tokens", run: generate::one },
    Workload { name: "generate-8", n_steps: 5, unit: "tokens", run: generate::eight },
    Workload { name: "grpo", n_steps: 6, unit: "completions", run: grpo::run },
    Workload { name: "embed", n_steps: 5, unit: "sentences", run: embed::run },
    Workload { name: "startup", n_steps: 4, unit: "starts", run: startup::run },
];

/// Measures a workload, compares all with the Python peers, or sets them against what the machine could do
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// What to measure: ceiling, dense-step, sft-lora, sft-full, classify, contrastive, cached-contrastive, mlm, multitask,
    /// generate, generate-8, grpo, embed, startup
    #[arg(required = true)]
    workload: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
    /// One whole epoch, and the quality it reaches, where the workload has an epoch
    #[arg(long)]
    full: bool,
    #[command(subcommand)]
    command: Option<BenchCommand>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Run ours and the peers' in turn
    Compare(compare::CompareArgs),
    /// Measure the machine, and each workload's share of what it could do
    Roofline(roofline::RooflineArgs),
    /// How the cost of dense-step grows with the length of rows, the width of the model and its vocabulary
    Scaling(scaling::ScalingArgs),
    /// What `scaling` measures: dense-step without the ceiling
    #[command(hide = true)]
    Step(CommonArgs),
    /// What `startup` starts
    #[command(hide = true)]
    Start,
}

/// What every measurement takes.
#[derive(Args, Clone, Debug)]
struct CommonArgs {
    /// The folder that holds all-MiniLM-L6-v2
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The folder that holds the corpora, each in a folder of its own
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder that holds the configurations of models with random weights [default: peers/shapes beside the folder of --models]
    #[arg(long, value_name = "DIR")]
    shapes: Option<PathBuf>,
    /// Steps, of which the first 2 are not measured [default: enough for a timing, by workload]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Seed of the order of the rows, of new weights and of dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: String,
    /// One line of JSON per workload
    #[arg(long)]
    json: bool,
}

/// What a workload needs to know.
struct Setup<'a> {
    workload: &'a Workload,
    args: &'a CommonArgs,
    n_steps: usize,
    full: bool,
}

impl Setup<'_> {
    /// The model folder called `name`.
    fn model(&self, name: &str) -> Result<PathBuf> {
        existing("--models", self.args.models.as_deref(), name)
    }

    /// The file or folder called `name` among the corpora.
    fn data(&self, name: &str) -> Result<PathBuf> {
        existing("--data", self.args.data.as_deref(), name)
    }

    /// The configuration of a model with random weights.
    fn shape(&self, name: &str) -> Result<ModelConfig> {
        let beside = || Some(self.args.models.as_ref()?.parent()?.join("peers/shapes"));
        let shapes = self.args.shapes.clone().or_else(beside);
        ModelConfig::from_folder(&existing("--shapes", shapes.as_deref(), name)?)
    }

    fn device(&self) -> Result<burn::tensor::Device> {
        device::by_name(&self.args.device)
    }
}

/// `name` in the folder that `flag` gives.
fn existing(flag: &str, folder: Option<&Path>, name: &str) -> Result<PathBuf> {
    let folder = folder.ok_or_else(|| Error::config(flag, format!("missing: the folder that holds {name}")))?;
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(Error::config(flag, format!("{} does not exist", path.display()))) }
}

fn workload(name: &str) -> Result<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
        let known = WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
        Error::config("bench", format!("unknown workload {name:?}; there are {known}"))
    })
}

/// Those of the names, or all.
fn workloads(names: &[String]) -> Result<Vec<&'static Workload>> {
    if names.is_empty() { Ok(WORKLOADS.iter().collect()) } else { names.iter().map(|name| workload(name)).collect() }
}

/// Measures what the arguments ask for and prints it.
///
/// # Errors
/// If an argument, a model, or a file is bad, or a peer fails.
pub fn run(args: &BenchArgs) -> Result<()> {
    match &args.command {
        Some(BenchCommand::Compare(args)) => return compare::run(args),
        Some(BenchCommand::Roofline(args)) => return roofline::run(args),
        Some(BenchCommand::Scaling(args)) => return scaling::run(args),
        Some(BenchCommand::Step(args)) => {
            let workload = workload("dense-step")?;
            let setup = Setup { workload, args, n_steps: n_steps(args, workload)?, full: false };
            println!("{}", json_line(&dense_step::steps(&setup)?));
            return Ok(());
        }
        Some(BenchCommand::Start) => return startup::start(),
        None => {}
    }
    let workload = workload(args.workload.as_deref().unwrap_or_default())?;
    let n_steps = n_steps(&args.common, workload)?;
    let report = (workload.run)(&Setup { workload, args: &args.common, n_steps, full: args.full })?;
    if args.common.json {
        println!("{}", json_line(&report));
    } else {
        print(&report);
    }
    Ok(())
}

fn n_steps(args: &CommonArgs, workload: &Workload) -> Result<usize> {
    match args.steps {
        Some(n) if n <= N_WARMUP_STEPS => Err(Error::config("--steps", too_few_steps(n))),
        n => Ok(n.unwrap_or(workload.n_steps)),
    }
}

fn json_line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("numbers, texts and maps with text keys")
}

/// The report, aligned.
fn print(report: &Report) {
    let line = |name: &str, value: String| println!("{name:<14} {value}");
    let Report { workload, unit, steps, seconds_per_step_median: seconds, .. } = report;
    line("workload", workload.clone());
    line("step", format!("{seconds:.4} s, median of {} after {N_WARMUP_STEPS} to warm up", steps - N_WARMUP_STEPS));
    line("speed", format!("{:.1} {unit}/s", report.units_per_second));
    if unit != "tokens" && report.real_tokens_per_second > 0.0 {
        line("", format!("{:.1} tokens/s", report.real_tokens_per_second));
    }
    line("per step", report.per_step.iter().map(|(name, mean)| format!("{mean} {name}")).collect::<Vec<_>>().join(", "));
    if !report.losses.is_empty() {
        line("losses", report.losses.iter().map(|loss| format!("{loss:.4}")).collect::<Vec<_>>().join(" "));
    }
    for (name, value) in [("memory", report.peak_rss_mb.map(|mib| format!("{mib} MiB"))), ("first step", report.startup_seconds.map(after))]
    {
        value.into_iter().for_each(|value| line(name, value));
    }
    for (name, value) in &report.extra {
        let Value::Object(parts) = value else { continue };
        line(name, parts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "));
    }
    if let Some(share) = report.other_processes_cpu {
        line("others", format!("{:.1} % of the machine's CPU time", 100.0 * share));
    }
}

fn after(seconds: f64) -> String {
    format!("{seconds:.2} s after the start")
}
