//! How long the program takes to be ready, and the memory it has then.

use super::Setup;
use super::measure::{Counts, Meter, Report, peak_memory_mib, rounded};
use burn::tensor::{Device, Tensor};
use kiln_core::{Error, Result};
use kiln_kernels::linear::linear;
use kiln_train::guard::median;
use serde_json::{Map, json};
use std::env;
use std::process::Command;
use std::time::Instant;

/// Starts this program again and again, each time up to the end of its first small product.
///
/// # Errors
/// If it cannot be started.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let program = env::current_exe().map_err(|source| Error::io("the running program".as_ref(), source))?;
    let (mut seconds, mut peak) = (Vec::new(), None);
    let mut meter = Meter::start();
    for _ in 0..setup.n_steps {
        let start = Instant::now();
        let output = Command::new(&program).args(["bench", "start"]).output().map_err(|source| Error::io(&program, source))?;
        seconds.push(start.elapsed().as_secs_f64());
        meter.step(Counts::from([("units", 1.0)]), None);
        peak = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok();
    }
    let first = seconds[0];
    let (median, best) = (median(&seconds), seconds.into_iter().fold(f64::INFINITY, f64::min));
    let starts = json!({ "seconds_first": rounded(first, 4), "seconds_best": rounded(best, 4), "seconds_median": rounded(median, 4) });
    let mut report = meter.report(setup.workload.name, setup.workload.unit, Map::from_iter([("starts".to_owned(), starts)]))?;
    // Those of the programs started, not of this one.
    report.startup_seconds = Some(rounded(best, 4));
    report.peak_rss_mb = peak.map(|mib| mib.round() as u64);
    Ok(report)
}

/// What is started: loads the program, starts its threads, multiplies, and prints the memory that took, in MiB.
///
/// # Errors
/// None.
pub fn start() -> Result<()> {
    let ones = Tensor::<2>::ones([256, 256], &Device::flex());
    let product = linear(ones.clone(), ones, None).into_data();
    assert!(product.iter::<f32>().all(|sum| sum == 256.0), "256 ones make 256");
    if let Some(mib) = peak_memory_mib() {
        println!("{mib:.1}");
    }
    Ok(())
}
