//! `cargo xtask bench compare`: ours and the Python peers in turn, each run in a process of its own.

use super::measure::{Report, rounded};
use super::{CommonArgs, json_line, n_steps, workloads};
use clap::Args;
use kiln_core::{Error, Result};
use serde_json::{Value, json};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run during which other processes used more of the machine than this is marked.
const MAX_OTHERS: f64 = 0.05;

#[derive(Args, Debug)]
pub struct CompareArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The Python that has the peers
    #[arg(long, value_name = "PYTHON")]
    peers: PathBuf,
    /// The peers' program, bench.py; the configurations of --shapes are in the folder shapes beside it
    #[arg(long, value_name = "FILE")]
    bench: PathBuf,
    /// Which workloads, such as classify,embed [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workloads: Vec<String>,
    /// How often each is run on both sides
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Runs both sides and prints a line per workload.
///
/// # Errors
/// If an argument is bad or a run fails.
pub fn run(args: &CompareArgs) -> Result<()> {
    let workloads = workloads(&args.workloads)?;
    if args.rounds == 0 {
        return Err(Error::config("--rounds", "found 0, expected at least 1"));
    }
    check_peer(&args.peers, &args.bench)?;
    let shapes = args.bench.parent().map(|folder| folder.join("shapes"));
    let common = CommonArgs { shapes: args.common.shapes.clone().or(shapes), ..args.common.clone() };
    if !args.common.json {
        println!("{:<18} {:>10} {:>10}   {:<24} {:>13}   {:>13}", "workload", "ours s", "peer s", "peer / ours", "MiB", "start s");
    }
    for workload in workloads {
        n_steps(&common, workload)?;
        let mut pairs = Vec::with_capacity(args.rounds);
        for round in 1..=args.rounds {
            eprintln!("{}: round {round} of {}", workload.name, args.rounds);
            pairs.push([ours(&common, workload.name)?, peer(&args.peers, &args.bench, &common, workload.name)?]);
        }
        let row = Row::new(&pairs);
        if args.common.json {
            println!("{}", json_line(&row.json(&pairs)));
        } else {
            println!("{}", row.line());
        }
    }
    if !args.common.json {
        println!(
            "\nseconds per step: the best round; [lowest, highest] over the rounds; * a run with others above {MAX_OTHERS} of the CPU"
        );
    }
    Ok(())
}

/// A workload run by this program, in a fresh process.
///
/// # Errors
/// If the run fails.
pub fn ours(common: &CommonArgs, workload: &str) -> Result<Report> {
    let program = env::current_exe().map_err(|source| Error::io("the running program".as_ref(), source))?;
    let mut arguments: Vec<OsString> = ["bench", workload, "--json", "--device", &common.device].map(OsString::from).into();
    arguments.extend(shared_arguments(common));
    if let Some(shapes) = &common.shapes {
        arguments.extend(["--shapes".into(), shapes.into()]);
    }
    report(&program, &arguments, workload)
}

/// The same by the peers' program `bench`, run by `python`.
///
/// # Errors
/// If the run fails.
pub fn peer(python: &Path, bench: &Path, common: &CommonArgs, workload: &str) -> Result<Report> {
    let mut arguments = vec![bench.into(), workload.into()];
    arguments.extend(shared_arguments(common));
    report(python, &arguments, workload)
}

/// Checks that the peers' Python and program are there.
///
/// # Errors
/// [`Error::Config`] naming the flag.
pub fn check_peer(python: &Path, bench: &Path) -> Result<()> {
    match [("--peers", python), ("--bench", bench)].into_iter().find(|(_, path)| !path.exists()) {
        Some((flag, path)) => Err(Error::config(flag, format!("{} does not exist", path.display()))),
        None => Ok(()),
    }
}

/// What both sides take.
fn shared_arguments(common: &CommonArgs) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--seed".into(), common.seed.to_string().into()];
    for (flag, folder) in [("--models", &common.models), ("--data", &common.data)] {
        arguments.extend(folder.iter().flat_map(|folder| [flag.into(), folder.into()]));
    }
    arguments.extend(common.steps.iter().flat_map(|n| ["--steps".into(), n.to_string().into()]));
    arguments
}

/// Runs a program whose last line is a report.
fn report(program: &Path, arguments: &[OsString], workload: &str) -> Result<Report> {
    let output = Command::new(program).args(arguments).output().map_err(|source| Error::io(program, source))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().last().unwrap_or_default();
    let place = || format!("{} {workload}", program.file_name().unwrap_or(OsStr::new("run")).display());
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = stderr.trim().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return Err(Error::config(place(), format!("{}: {reason}", output.status)));
    }
    serde_json::from_str(line).map_err(|error| Error::config(place(), format!("expected a report as JSON, found {line:?}: {error}")))
}

/// The runs of one workload in short. A side's figures are those of its best run.
struct Row {
    workload: String,
    best: [Report; 2],
    ratio: f64,
    ratio_range: [f64; 2],
    is_disturbed: bool,
}

impl Row {
    fn new(pairs: &[[Report; 2]]) -> Self {
        let seconds = |report: &Report| report.seconds_per_step_median;
        let best = [0, 1].map(|side| {
            let runs = pairs.iter().map(|pair| &pair[side]);
            runs.min_by(|a, b| seconds(a).total_cmp(&seconds(b))).expect("at least one round").clone()
        });
        let ratios = pairs.iter().map(|[ours, peer]| seconds(peer) / seconds(ours));
        Self {
            workload: best[0].workload.clone(),
            ratio: seconds(&best[1]) / seconds(&best[0]),
            ratio_range: [ratios.clone().fold(f64::INFINITY, f64::min), ratios.fold(0.0, f64::max)],
            is_disturbed: pairs.iter().flatten().any(|report| report.other_processes_cpu.is_some_and(|share| share > MAX_OTHERS)),
            best,
        }
    }

    fn line(&self) -> String {
        let [ours, peer] = &self.best;
        let [low, high] = self.ratio_range;
        let ratio = format!("{:.2} [{low:.2}, {high:.2}]{}", self.ratio, if self.is_disturbed { " *" } else { "" });
        let both = |of: fn(&Report) -> Option<String>| {
            let [ours, peer] = [ours, peer].map(|report| of(report).unwrap_or_else(|| "-".into()));
            format!("{ours} / {peer}")
        };
        let memory = both(|report| report.peak_rss_mb.map(|mib| mib.to_string()));
        let startup = both(|report| report.startup_seconds.map(|seconds| format!("{seconds:.2}")));
        format!(
            "{:<18} {:>10.4} {:>10.4}   {ratio:<24} {memory:>13}   {startup:>13}",
            self.workload, ours.seconds_per_step_median, peer.seconds_per_step_median
        )
    }

    fn json(&self, pairs: &[[Report; 2]]) -> Value {
        let ratios: Vec<f64> = self.ratio_range.iter().map(|&ratio| rounded(ratio, 3)).collect();
        json!({
            "workload": self.workload, "ratio": rounded(self.ratio, 3), "ratio_lowest_highest": ratios,
            "disturbed": self.is_disturbed, "ours": pairs.iter().map(|pair| &pair[0]).collect::<Vec<_>>(),
            "peer": pairs.iter().map(|pair| &pair[1]).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seconds: f64, others: f64) -> Report {
        let value = json!({
            "peer": "p", "workload": "w", "steps": 5, "seconds_per_step_median": seconds, "unit": "tokens", "units_per_second": 1.0,
            "real_tokens_per_second": 1.0, "peak_rss_mb": 70, "losses": [], "per_step": {}, "other_processes_cpu": others,
        });
        serde_json::from_value(value).expect("a report")
    }

    #[test]
    fn the_best_runs_are_set_against_each_other() {
        let row = Row::new(&[[report(2.0, 0.0), report(6.0, 0.0)], [report(1.0, 0.0), report(4.0, 0.02)]]);
        assert_eq!((row.ratio, row.ratio_range, row.is_disturbed), (4.0, [3.0, 4.0], false));
        assert!(row.line().contains("4.00 [3.00, 4.00]  ") && row.line().contains("70 / 70"), "{}", row.line());
    }

    #[test]
    fn a_disturbed_run_marks_the_line() {
        let row = Row::new(&[[report(2.0, 0.0), report(6.0, 0.0)], [report(2.0, 0.0), report(6.0, 0.2)]]);
        assert!(row.is_disturbed && row.line().contains("] *"), "{}", row.line());
    }
}
