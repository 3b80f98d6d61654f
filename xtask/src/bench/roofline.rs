//! `cargo xtask bench roofline`: what the machine could do, and how much of it each workload does.

use super::compare::ours;
use super::measure::{Report, rounded};
use super::{CommonArgs, json_line, n_steps, workload, workloads};
use clap::Args;
use kiln_core::{Error, Result};
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct RooflineArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Which workloads, such as classify,embed [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workloads: Vec<String>,
}

/// Measures the machine, then each workload in a process of its own, and prints the shares.
///
/// # Errors
/// If an argument, a model or a file is bad.
pub fn run(args: &RooflineArgs) -> Result<()> {
    let chosen = workloads(&args.workloads)?;
    for workload in &chosen {
        n_steps(&args.common, workload)?;
    }
    let ceiling = ours(&CommonArgs { steps: None, ..args.common.clone() }, workload("ceiling")?.name)?;
    let rate = |name: &str| {
        let found = ceiling.extra.get("ceiling").and_then(|ceiling| ceiling[name].as_f64());
        found.ok_or_else(|| Error::config("ceiling", format!("the report lacks {name}")))
    };
    let (gflops_1024, gflops_2048, gb_per_s) = (rate("gflops_1024")?, rate("gflops_2048")?, rate("gemv_gb")?);
    let gflops = gflops_1024.max(gflops_2048);
    if args.common.json {
        println!("{}", json!({ "gflops_1024": gflops_1024, "gflops_2048": gflops_2048, "gemv_gb": gb_per_s }));
    } else {
        println!("products {gflops_1024} GFLOP/s at 1024, {gflops_2048} at 2048; weights {gb_per_s} GB/s\n");
        println!("{:<18} {:>10} {:>10} {:>8} {:>10} {:>8}", "workload", "s/step", "GFLOP/s", "share", "GB/s", "share");
    }
    for workload in chosen {
        let report = ours(&args.common, workload.name)?;
        let [computing, reading] = [("gflop", gflops), ("weight_gb", gb_per_s)].map(|(name, most)| Share::of(&report, name, most));
        if computing.is_none() && reading.is_none() {
            continue;
        }
        if args.common.json {
            let json = |share: &Option<Share>| share.as_ref().map(Share::json);
            println!("{}", json_line(&json!({ "workload": workload.name, "gflop": json(&computing), "weight_gb": json(&reading) })));
        } else {
            let columns = [computing, reading].map(|share| share.map_or(format!("{:>10} {:>8}", "-", "-"), |share| share.columns()));
            println!("{:<18} {:>10.4} {} {}", workload.name, report.seconds_per_step_median, columns[0], columns[1]);
        }
    }
    Ok(())
}

/// How much of the machine's rate a workload reaches.
struct Share {
    per_second: f64,
    share: f64,
}

impl Share {
    /// `None` if the workload does none of it.
    fn of(report: &Report, name: &str, most_per_second: f64) -> Option<Self> {
        let per_second = report.per_step.get(name)? / report.seconds_per_step_median;
        Some(Self { per_second, share: per_second / most_per_second })
    }

    fn columns(&self) -> String {
        format!("{:>10.1} {:>6.1} %", self.per_second, 100.0 * self.share)
    }

    fn json(&self) -> Value {
        json!({ "per_second": rounded(self.per_second, 1), "share": rounded(self.share, 3) })
    }
}
