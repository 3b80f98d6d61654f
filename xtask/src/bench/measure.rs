//! Measuring a workload: the time of each step, what it worked on, memory, and who else used the machine.

use kiln_core::{Error, Result};
use kiln_train::guard::median;
use kiln_train::preflight::machine::peak_bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// The first steps, left out of every median and mean: they fill caches and pools.
pub const N_WARMUP_STEPS: usize = 2;

/// What a step worked on, by name: `units`, `real` and `padded` tokens, `supervised` tokens; and what that costs: `gflop` of products,
/// `weight_gb` read while generating.
pub type Counts = BTreeMap<&'static str, f64>;

/// The counts of a step on rows of these lengths: `padded` is what a rectangular batch of them would hold.
pub fn counts(units: usize, lengths: &[usize]) -> Counts {
    let padded = lengths.len() * lengths.iter().max().copied().unwrap_or(0);
    BTreeMap::from([("units", units as f64), ("real", lengths.iter().sum::<usize>() as f64), ("padded", padded as f64)])
}

/// What a workload found, as one line of JSON; the fields are those of the peers' program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whose time it is.
    pub peer: String,
    /// The workload.
    pub workload: String,
    /// Steps run, warm-up included.
    pub steps: usize,
    /// Median over the timed steps.
    pub seconds_per_step_median: f64,
    /// What `units_per_second` counts.
    pub unit: String,
    /// Median over the timed steps.
    pub units_per_second: f64,
    /// The same of tokens that are not padding.
    pub real_tokens_per_second: f64,
    /// Most memory held at once, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_mb: Option<u64>,
    /// From the start of the process to the end of the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<f64>,
    /// Training losses of the first steps.
    pub losses: Vec<f64>,
    /// Means of the counts over the timed steps.
    pub per_step: BTreeMap<String, f64>,
    /// The share of the machine's CPU time that other processes used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_processes_cpu: Option<f64>,
    /// What only some workloads report.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Times the steps of a workload. A step runs from the end of the one before it to its own end.
#[derive(Debug)]
pub struct Meter {
    steps: Vec<(f64, Counts)>,
    losses: Vec<f64>,
    last: Instant,
    ticks_at_start: Option<CpuTicks>,
    others: Option<f64>,
    startup: Option<f64>,
    peak_memory: Option<f64>,
}

/// Losses a report holds.
const N_LOSSES: usize = 10;

impl Meter {
    /// Starts the first step.
    pub fn start() -> Self {
        let (steps, losses, ticks_at_start) = (Vec::new(), Vec::new(), CpuTicks::now());
        Self { steps, losses, last: Instant::now(), ticks_at_start, others: None, startup: None, peak_memory: None }
    }

    /// Ends a step and starts the next.
    pub fn step(&mut self, counts: Counts, loss: Option<f64>) {
        self.steps.push((self.last.elapsed().as_secs_f64(), counts));
        self.losses.extend(loss.filter(|_| self.losses.len() < N_LOSSES));
        self.startup = self.startup.or_else(process_age_seconds);
        self.others = self.ticks_at_start.zip(CpuTicks::now()).map(|(before, now)| now.share_of_others_since(before));
        self.peak_memory = peak_memory_mib();
        self.last = Instant::now();
    }

    /// What was measured.
    ///
    /// # Errors
    /// [`Error::Config`] if every step was warm-up.
    pub fn report(self, workload: &str, unit: &str, extra: Map<String, Value>) -> Result<Report> {
        let timed = self.steps.get(N_WARMUP_STEPS..).filter(|timed| !timed.is_empty());
        let timed = timed.ok_or_else(|| Error::config("--steps", too_few_steps(self.steps.len())))?;
        let rate =
            |name: &str| median(&timed.iter().map(|(seconds, counts)| counts.get(name).unwrap_or(&0.0) / seconds).collect::<Vec<_>>());
        let mean = |name: &str| timed.iter().map(|(_, counts)| counts[name]).sum::<f64>() / timed.len() as f64;
        Ok(Report {
            peer: "kiln".into(),
            workload: workload.into(),
            steps: self.steps.len(),
            seconds_per_step_median: rounded(median(&timed.iter().map(|(seconds, _)| *seconds).collect::<Vec<_>>()), 4),
            unit: unit.into(),
            units_per_second: rounded(rate("units"), 2),
            real_tokens_per_second: rounded(rate("real"), 2),
            peak_rss_mb: self.peak_memory.map(|mib| mib.round() as u64),
            startup_seconds: self.startup.map(|seconds| rounded(seconds, 2)),
            losses: self.losses.into_iter().map(|loss| rounded(loss, 4)).collect(),
            per_step: timed[0].1.keys().map(|&name| (name.to_owned(), rounded(mean(name), 1))).collect(),
            other_processes_cpu: self.others.map(|share| rounded(share, 3)),
            extra,
        })
    }
}

/// Why `n` steps cannot be measured.
pub fn too_few_steps(n: usize) -> String {
    format!("found {n}, expected at least {}: the first {N_WARMUP_STEPS} are warm-up and not measured", N_WARMUP_STEPS + 1)
}

/// `value` with so many digits after the point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// CPU time in clock ticks.
#[derive(Clone, Copy, Debug)]
struct CpuTicks {
    /// Used by any process.
    busy: f64,
    /// Used by this process and the children it has waited for.
    own: f64,
    /// Used or not.
    all: f64,
}

/// Ticks per second in what the Linux kernel tells programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

impl CpuTicks {
    /// `None` where there is no `/proc`.
    fn now() -> Option<Self> {
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let times: Vec<f64> = machine.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        let (all, idle) = (times.iter().sum::<f64>(), times.get(3)? + times.get(4)?);
        let own = process_stat()?.get(11..15)?.iter().sum();
        Some(Self { busy: all - idle, own, all })
    }

    fn share_of_others_since(self, before: Self) -> f64 {
        ((self.busy - before.busy - (self.own - before.own)) / (self.all - before.all).max(1.0)).max(0.0)
    }
}

/// The numbers of `/proc/self/stat` after the program's name: field 3 of proc(5), the state and no number, is the first.
fn process_stat() -> Option<Vec<f64>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(f64::NAN)).collect())
}

/// How long this process has been running.
fn process_age_seconds() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let started = process_stat()?.get(19)? / TICKS_PER_SECOND;
    Some(uptime - started).filter(|age| *age >= 0.0)
}

/// The most memory this process has held at once, MiB.
pub fn peak_memory_mib() -> Option<f64> {
    Some(peak_bytes()? as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_batch_is_as_wide_as_its_longest_row() {
        assert_eq!(counts(3, &[4, 9, 2]), BTreeMap::from([("units", 3.0), ("real", 15.0), ("padded", 27.0)]));
    }

    #[test]
    fn warm_up_is_left_out() {
        let mut meter = Meter::start();
        let mut steps = [9.0, 9.0, 2.0, 4.0].into_iter();
        for units in [70.0, 70.0, 10.0, 40.0] {
            meter.step(Counts::from([("units", units)]), Some(units));
        }
        // Instead of the clock's.
        meter.steps.iter_mut().for_each(|(seconds, _)| *seconds = steps.next().unwrap());
        let report = meter.report("w", "tokens", Map::new()).unwrap();
        assert_eq!((report.steps, report.seconds_per_step_median, report.units_per_second), (4, 3.0, 7.5));
        assert_eq!((report.per_step["units"], report.losses), (25.0, vec![70.0, 70.0, 10.0, 40.0]));
    }

    #[test]
    fn a_report_is_read_back_from_its_line() {
        let mut meter = Meter::start();
        (0..3).for_each(|_| meter.step(counts(1, &[5]), None));
        let extra = Map::from_iter([("check".to_owned(), serde_json::json!({"sum": 1.5}))]);
        let line = serde_json::to_string(&meter.report("w", "tokens", extra).unwrap()).unwrap();
        let report: Report = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), line);
        assert!(!line.contains('\n') && line.contains("\"check\":{\"sum\":1.5}"), "{line}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        assert!(peak_memory_mib().unwrap() > 1.0);
        assert!(process_age_seconds().unwrap() < 3600.0);
        let ticks = CpuTicks::now().unwrap();
        assert!(ticks.own <= ticks.busy && ticks.busy <= ticks.all, "{ticks:?}");
    }
}
