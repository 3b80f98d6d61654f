//! `cargo xtask demo`: every method on the built-in sample world, from nothing but this repository.
//!
//! It makes a small world, trains a tokenizer, a decoder and an encoder on its documents, fine-tunes them, and judges each method on
//! held-out rows against the model before and against a control: the same training on rows whose right answers were dealt out at random.

mod base;
mod continual;
mod contrastive;
mod multitask;
mod rewards;
mod supervised;

use crate::sft::{number, range};
use crate::{out_folder, results_file};
use burn::tensor::Device;
use clap::Args;
use kiln_contrastive::config::ContrastiveConfig;
use kiln_core::{Error, Result, device, files};
use kiln_data::world::{World, write_jsonl};
use kiln_eval::bootstrap::Interval;
use kiln_eval::figure::Figure;
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_train::report::{Comparison, Pair};
use kiln_train::run::read_metrics;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the demo takes.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Seed of the world and of all training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for models, runs and results.json and report.html [default: the next free runs/demo-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: String,
}

/// One method's line.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    metric: &'static str,
    higher_is_better: bool,
    before: f64,
    after: f64,
    control: f64,
    /// 95 % interval of `after`.
    interval: Interval,
    /// Training of the method, its control left out.
    seconds: f64,
    /// The folder of the run; the control's is the same with `-control`.
    run: &'static str,
}

/// The columns of the table.
const HEADER: [&str; 7] = ["method", "metric", "before", "control", "after", "95 % interval", "seconds"];

impl Line {
    /// The line of a run by its figure before and after, and its control's after.
    fn new(name: &'static str, run: &'static str, seconds: f64, [before, after, control]: [&Figure; 3]) -> Self {
        Self {
            name,
            metric: after.metric,
            higher_is_better: after.higher_is_better,
            before: before.value,
            after: after.value,
            control: control.value,
            interval: after.interval,
            seconds,
            run,
        }
    }

    /// The line's cells in the table.
    fn cells(&self) -> Vec<String> {
        let [before, control, after] = [self.before, self.control, self.after].map(number);
        vec![self.name.into(), self.metric.into(), before, control, after, range(&self.interval), format!("{:.1}", self.seconds)]
    }
}

/// A row of the table, its numbers to the right.
fn aligned(cells: &[impl AsRef<str>]) -> String {
    let columns = [(26, false), (20, false), (8, true), (8, true), (8, true), (18, false), (7, true)];
    let cell = |(cell, (width, right)): (_, (usize, bool))| {
        let cell = AsRef::<str>::as_ref(cell);
        if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    };
    cells.iter().zip(columns).map(cell).collect::<Vec<_>>().join("  ")
}

/// Rows a method is judged by.
const HELD_OUT_ROWS: usize = 400;

/// Streams of randomness that one seed feeds.
const WEIGHTS: u64 = 0;
const DEAL: u64 = 1;
const REJECT: u64 = 2;

struct Demo {
    seed: u64,
    out: PathBuf,
    device: Device,
    world: World,
}

/// Runs the demo.
///
/// # Errors
/// If the output folder is taken or cannot be written.
pub fn run(args: &DemoArgs) -> Result<()> {
    let out = out_folder(args.out.as_ref(), "demo")?;
    let results = results_file(&out)?;
    let start = Instant::now();
    let demo = Demo { seed: args.seed, out, device: device::by_name(&args.device)?, world: World::new(args.seed) };
    let lines = demo.lines()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("\n{}", aligned(&HEADER));
    lines.iter().for_each(|line| println!("{}", aligned(&line.cells())));
    demo.report(&lines)?;
    files::write_json(&results, &json!({ "seed": args.seed, "seconds": seconds, "methods": lines }))?;
    println!("\n{seconds:.0} s in all; models and runs are in {}", demo.out.display());
    Ok(())
}

impl Demo {
    fn lines(&self) -> Result<Vec<Line>> {
        let decoder = self.decoder()?;
        let (encoder, masked_language_model) = self.encoder(&decoder)?;
        let completion = self.completion(&decoder)?;
        let answering = self.model("sft-completion");
        let mut lines = vec![
            self.classification(&encoder)?,
            self.token_classification(&encoder)?,
            completion,
            self.preference(&answering)?,
            masked_language_model,
            self.embeddings(&encoder)?,
            self.rewards(&decoder, &self.model("sft-classification"))?,
        ];
        lines.extend(self.continual(&decoder)?);
        lines.extend(self.multitask(&encoder)?);
        Ok(lines)
    }

    /// `report.html`: the table, and the loss of each run beside its control's.
    fn report(&self, lines: &[Line]) -> Result<()> {
        let rows: Vec<Vec<String>> = lines.iter().map(Line::cells).collect();
        let metrics = |run: &str| read_metrics(&self.path(run).join("metrics.jsonl"));
        let plot = |line: &Line| {
            let control = metrics(&format!("{}-control", line.run))?;
            Ok::<_, Error>(Pair { title: line.name, runs: [("the rows", metrics(line.run)?), ("control", control)] })
        };
        let plots = lines.iter().map(plot).collect::<Result<Vec<_>>>()?;
        Comparison { title: "Kiln demo", header: &HEADER, rows: &rows, metric: "loss", plots: &plots }.write(&self.path("report.html"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The model a run left.
    fn model(&self, run: &str) -> PathBuf {
        self.path(run).join("model")
    }

    /// The rows of the file `name`.
    fn rows(&self, name: &str) -> PathBuf {
        self.path(&format!("data/{name}.jsonl"))
    }

    /// The key of one of the demo's own streams of randomness.
    fn key(&self, stream: u64) -> Key {
        Key::new(self.seed).fold(stream)
    }

    /// Supervised fine-tuning on the rows `name`, judged by the rows `judge`.
    fn supervised(&self, task: Task, model: &Path, name: &str, judge: &str) -> SftConfig {
        // The rows of a small grammar repeat, which the pre-flight would stop at.
        let mut config = SftConfig { model: model.to_owned(), task, seed: self.seed, force: true, ..SftConfig::default() };
        config.data.train = self.rows(name).into();
        config.data.held_out = Some(self.rows(&format!("{judge}-held-out")));
        config
    }

    /// Unsupervised or contrastive training on the rows `name`, judged by the rows `judge`.
    fn contrastive(&self, model: &Path, name: &str, judge: &str) -> ContrastiveConfig {
        // The rows of a small grammar repeat, which the pre-flight would stop at.
        let mut config = ContrastiveConfig { model: model.to_owned(), seed: self.seed, force: true, ..ContrastiveConfig::default() };
        config.data.train = self.rows(name).into();
        config.data.held_out = Some(self.rows(&format!("{judge}-held-out")));
        config
    }

    fn write_rows<T: Serialize>(&self, name: &str, rows: &[T], dealt: &[T], held_out: &[T]) -> Result<()> {
        write_jsonl(&self.rows(name), rows)?;
        write_jsonl(&self.rows(&format!("{name}-control")), dealt)?;
        write_jsonl(&self.rows(&format!("{name}-held-out")), held_out)
    }

    /// The rows with their right answers dealt out at random: what the control learns from.
    fn deal<T: Clone>(&self, rows: &[T], give: impl Fn(&mut T, &T)) -> Vec<T> {
        let order = self.key(DEAL).permutation(rows.len());
        let mut dealt = rows.to_vec();
        dealt.iter_mut().zip(order).for_each(|(row, other)| give(row, &rows[other]));
        dealt
    }
}

/// A run and its control, on the rows `name` and `name-control`, in the folders `out` and `out-control`.
fn with_control<T>(name: &str, out: &str, train: impl Fn(&str, &str) -> Result<T>) -> Result<[T; 2]> {
    let run = |name: &str, out: &str| {
        eprintln!("{out}");
        train(name, out)
    };
    Ok::<_, Error>([run(name, out)?, run(&format!("{name}-control"), &format!("{out}-control"))?])
}
