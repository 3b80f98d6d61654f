//! `cargo xtask bench scaling`: how the cost of `dense-step` grows with the length of rows, the width of the model and its vocabulary.

use super::compare::{check_peer, ours, peer};
use super::measure::{Report, rounded};
use super::{CommonArgs, Setup, json_line, n_steps, workload};
use crate::{out_folder, results_file};
use clap::Args;
use kiln_core::{Error, Result, files};
use kiln_train::plot::{Axis, Curve, save};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ScalingArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The Python that has the peers, to time their loop as well
    #[arg(long, value_name = "PYTHON", requires = "bench")]
    peers: Option<PathBuf>,
    /// The peers' program, bench.py
    #[arg(long, value_name = "FILE", requires = "peers")]
    bench: Option<PathBuf>,
    /// Folder for results.json and the plots [default: the next free runs/scaling-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is timed, and the shape that is changed for it.
const WORKLOAD: &str = "dense-step";
const SHAPE: &str = "gpt2-17m";

/// A size that is changed while the others stay.
struct Size {
    name: &'static str,
    /// The size in the shape's configuration.
    key: &'static str,
    /// Sizes in proportion to it: those that keep the heads' width and the form of a block.
    along: &'static [&'static str],
    /// What the shape's own is multiplied with, each over `over`.
    times: &'static [u64],
    over: u64,
    /// Whether the cost is a power of the size, so that it is a straight line on logarithmic axes.
    is_power: bool,
}

const SIZES: [Size; 3] = [
    Size { name: "length", key: "n_positions", along: &[], times: &[1, 2, 4, 8, 16], over: 2, is_power: false },
    Size { name: "width", key: "n_embd", along: &["n_inner", "n_head"], times: &[1, 2, 4], over: 2, is_power: true },
    Size { name: "vocabulary", key: "vocab_size", along: &[], times: &[1, 4, 16], over: 4, is_power: false },
];

/// One shape, measured.
#[derive(Clone, Debug, Serialize)]
struct Point {
    size: u64,
    ours: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Report>,
}

/// Measures every shape in processes of their own, prints a line for each, and leaves `results.json` and a plot of each size.
///
/// # Errors
/// If an argument or the shape is bad or a run fails.
pub fn run(args: &ScalingArgs) -> Result<()> {
    let workload = workload(WORKLOAD)?;
    let n_steps = n_steps(&args.common, workload)?;
    if let (Some(python), Some(bench)) = (&args.peers, &args.bench) {
        check_peer(python, bench)?;
    }
    let shape = Setup { workload, args: &args.common, n_steps, full: false }.shape(SHAPE)?.raw;
    let out = out_folder(args.out.as_ref(), "scaling")?;
    let results = results_file(&out)?;
    if !args.common.json {
        println!("{:<18} {:>9} {:>10} {:>9} {:>8} {:>10} {:>8}", "changed", "s/step", "ms/token", "GFLOP/s", "MiB", "peer s", "ratio");
    }
    let mut known: BTreeMap<String, Point> = BTreeMap::new();
    let mut sizes = Map::new();
    for size in &SIZES {
        let mut points = Vec::with_capacity(size.times.len());
        for &times in size.times {
            let (value, shape) = size.change(&shape, times)?;
            // The shape as it is belongs to each size.
            let of_shape = Value::from(shape.clone()).to_string();
            let point = match known.get(&of_shape) {
                Some(point) => Point { size: value, ..point.clone() },
                None => measure(args, &shape, &out.join(format!("{}-{value}", size.name)), value)?,
            };
            known.insert(of_shape, point.clone());
            if args.common.json {
                println!("{}", json_line(&json!({ "changed": size.name, "point": point })));
            } else {
                println!("{}", point.line(size.name));
            }
            points.push(point);
        }
        plot(size, &points, &out)?;
        sizes.insert(size.name.to_owned(), json!(points));
    }
    files::write_json(&results, &json!({ "workload": WORKLOAD, "shape": shape, "sizes": sizes }))?;
    if !args.common.json {
        println!("\n{}", results.display());
    }
    Ok(())
}

impl Size {
    /// The shape with this size changed, and what it is then.
    fn change(&self, shape: &Map<String, Value>, times: u64) -> Result<(u64, Map<String, Value>)> {
        let changed = |key: &str| {
            let found = shape.get(key).and_then(Value::as_u64).map(|value| value * times);
            found
                .filter(|value| value % self.over == 0 && *value > 0)
                .map(|value| value / self.over)
                .ok_or_else(|| Error::config("--shapes", format!("{SHAPE} needs {key:?} in its configuration, divisible by {}", self.over)))
        };
        let mut shape = shape.clone();
        for key in [self.key].iter().chain(self.along) {
            let value = changed(key)?;
            shape.insert((*key).to_owned(), value.into());
        }
        Ok((changed(self.key)?, shape))
    }
}

/// Runs the workload on a shape, which it writes to `folder` in the way both programs look for it.
fn measure(args: &ScalingArgs, shape: &Map<String, Value>, folder: &Path, size: u64) -> Result<Point> {
    eprintln!("{}", folder.display());
    let shapes = folder.join("shapes");
    files::write_json(&shapes.join(SHAPE).join("config.json"), shape)?;
    let common = CommonArgs { shapes: Some(shapes), ..args.common.clone() };
    let ours = ours(&common, "step")?;
    let peer = match (&args.peers, &args.bench) {
        (Some(python), Some(bench)) => {
            // The peers' program reads the shapes beside it.
            let beside = folder.join("bench.py");
            fs::copy(bench, &beside).map_err(|source| Error::io(bench, source))?;
            Some(peer(python, &beside, &common, WORKLOAD)?)
        }
        _ => None,
    };
    Ok(Point { size, ours, peer })
}

impl Point {
    fn line(&self, name: &str) -> String {
        let seconds = self.ours.seconds_per_step_median;
        let gflop = self.ours.per_step.get("gflop").copied().unwrap_or(f64::NAN);
        let memory = self.ours.peak_rss_mb.map_or("-".into(), |mib| mib.to_string());
        let (of_peer, ratio) = match &self.peer {
            Some(peer) => (format!("{:.4}", peer.seconds_per_step_median), format!("{:.2}", peer.seconds_per_step_median / seconds)),
            None => ("-".into(), "-".into()),
        };
        format!(
            "{:<18} {seconds:>9.4} {:>10.4} {:>9.1} {memory:>8} {of_peer:>10} {ratio:>8}",
            format!("{name} {}", self.size),
            milliseconds_per_token(&self.ours),
            gflop / seconds
        )
    }
}

fn milliseconds_per_token(report: &Report) -> f64 {
    rounded(1e3 * report.seconds_per_step_median / report.per_step.get("real").copied().unwrap_or(f64::NAN), 4)
}

/// Writes the plot of one size.
fn plot(size: &Size, points: &[Point], out: &Path) -> Result<()> {
    let curve = |name: &'static str, report: fn(&Point) -> Option<&Report>| {
        let at = |point: &Point| Some((point.size as f64, milliseconds_per_token(report(point)?)));
        Curve { name, points: points.iter().filter_map(at).collect() }
    };
    let curves = [curve("Kiln", |point| Some(&point.ours)), curve("PyTorch", |point| point.peer.as_ref())];
    let curves: Vec<Curve<'_>> = curves.into_iter().filter(|curve| !curve.points.is_empty()).collect();
    // Lengths and vocabularies are spread by factors too, but the cost of a token is no power of them.
    let x = Axis { name: size.name, is_logarithmic: size.name != "vocabulary", from_zero: false };
    let y = Axis { name: "ms per token", is_logarithmic: size.is_power, from_zero: !size.is_power };
    save(&out.join(format!("{}.svg", size.name)), &x, &y, &curves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_model_has_more_heads_of_the_same_width() {
        let Value::Object(shape) = json!({ "n_embd": 384, "n_inner": 1536, "n_head": 6, "n_positions": 128 }) else { unreachable!() };
        let [length, width, _] = &SIZES;
        let (value, wide) = width.change(&shape, 4).unwrap();
        assert_eq!((value, Value::from(wide)), (768, json!({ "n_embd": 768, "n_inner": 3072, "n_head": 12, "n_positions": 128 })));
        assert_eq!(length.change(&shape, 1).unwrap().0, 64);
        // Twice the half.
        assert_eq!(width.change(&shape, 2).unwrap(), (384, shape));
    }

    #[test]
    fn a_shape_that_cannot_be_halved_is_refused() {
        let Value::Object(shape) = json!({ "n_embd": 384, "n_inner": 1536, "n_head": 5 }) else { unreachable!() };
        let error = SIZES[1].change(&shape, 1).unwrap_err().to_string();
        assert!(error.contains("\"n_head\"") && error.contains("divisible by 2"), "{error}");
    }
}
