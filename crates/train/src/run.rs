//! A run's folder: the resolved configuration, the metrics of every step, the results, and the progress on the terminal.
//!
//! ```text
//! config.toml     the resolved configuration, written before the first step
//! metrics.jsonl   one JSON object a line, written as the run goes
//! results.json    written at the end: a folder that has it holds a finished run
//! report.html     all of it for people
//! ```

use crate::report::{self, significant};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use kiln_core::files::{check_writable, write_atomic, write_json};
use kiln_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Set by the first Ctrl-C and never cleared: it means the process, not one run.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Updates done.
    pub step: usize,
    /// Since the run began.
    pub seconds: f64,
    /// The metrics in the order they were logged; null where one was not finite.
    #[serde(flatten)]
    pub values: Map<String, Value>,
}

/// A run that is under way.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    name: String,
    metrics: File,
    start: Instant,
    display: Display,
}

impl Run {
    /// Starts a run of `n_steps` updates: makes `folder`, writes `config.toml` and listens for Ctrl-C. `name` heads the report.
    ///
    /// # Errors
    /// [`Error::Config`] if `folder` already holds a run or a model; [`Error::Io`] if it cannot be written.
    pub fn create(folder: &Path, config: &impl Serialize, name: &str, n_steps: usize) -> Result<Self> {
        let taken = |file: &str| Error::config("--out", format!("{} already holds {file}: choose another --out", folder.display()));
        // A model there may be the one that is fine-tuned: it must not be replaced either.
        if let Some(file) = ["results.json", "metrics.jsonl", "model", "adapter"].into_iter().find(|file| folder.join(file).exists()) {
            return Err(taken(file));
        }
        check_writable("--out", folder)?;
        let config_path = folder.join("config.toml");
        let config = toml::to_string(config).map_err(|error| Error::io(&config_path, std::io::Error::other(error)))?;
        std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        listen_for_ctrl_c().map_err(|source| Error::io(folder, source))?;
        let path = folder.join("metrics.jsonl");
        let metrics = File::create_new(&path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => taken("metrics.jsonl"),
            _ => Error::io(&path, source),
        })?;
        write_atomic(&config_path, |temporary| std::fs::write(temporary, config))?;
        Ok(Self { folder: folder.to_owned(), name: name.to_owned(), metrics, start: Instant::now(), display: Display::new(n_steps) })
    }

    /// Where the run is kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Time since the run began.
    pub fn elapsed_seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Tells the user something about the run, on a line of its own.
    pub fn note(&self, text: &str) {
        self.display.note(text);
    }

    /// Whether the user pressed Ctrl-C. The loop then saves and returns [`Error::Interrupted`]; a second Ctrl-C ends the process at once.
    pub fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }

    /// Writes one line of metrics after `step` updates and shows the progress, with the first two of `values`. Values at step 0, or that
    /// start with another name than those of the first step, such as an evaluation's, are shown on a line of their own.
    ///
    /// The line reaches the system in one write, so that a run killed at any moment leaves at most its last line cut.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn log(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let elapsed_seconds = self.elapsed_seconds();
        let seconds = (elapsed_seconds * 1e3).round() / 1e3;
        let line = Line { step, seconds, values: values.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))).collect() };
        let write = || {
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            (&self.metrics).write_all(&text)
        };
        write().map_err(|source| Error::io(&self.folder.join("metrics.jsonl"), source))?;
        self.display.show(step, elapsed_seconds, &values[..values.len().min(2)]);
        Ok(())
    }

    /// Ends the run: writes `results.json` and `report.html`.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be written.
    pub fn finish(self, results: &impl Serialize) -> Result<()> {
        let path = self.folder.join("results.json");
        let results = serde_json::to_value(results).map_err(|error| Error::io(&path, error.into()))?;
        write_json(&path, &results)?;
        report::write(&self.folder, &self.name, &results, &read_metrics(&self.folder.join("metrics.jsonl"))?)
    }
}

/// Reads a `metrics.jsonl`. A last line without its end is what a killed run was writing and is left out.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Data`] with the line that is not one of metrics.
pub fn read_metrics(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let parse = |(index, line)| serde_json::from_str(line).map_err(|error| Error::data(path, Some(index + 1), error.to_string()));
    whole.enumerate().map(parse).collect()
}

/// Installs the handler, once in a process.
fn listen_for_ctrl_c() -> std::io::Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; Ctrl-C again stops at once, without saving");
    };
    INSTALLED.get_or_init(|| ctrlc::set_handler(handler).map_err(|error| error.to_string())).clone().map_err(std::io::Error::other)
}

/// The progress on stderr: a bar on a terminal, elsewhere a plain line for each tenth of the run.
#[derive(Debug)]
struct Display {
    bar: ProgressBar,
    n_steps: usize,
    /// The first step: rates count from there, so that loading and warming up do not distort them.
    first: Option<First>,
    /// Tenths of the run already told in plain lines.
    n_tenths: usize,
}

#[derive(Debug)]
struct First {
    step: usize,
    seconds: f64,
    /// What came first among the values: a line that starts with another is no training step but, say, an evaluation.
    name: String,
}

impl Display {
    fn new(n_steps: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:24} {msg}").expect("the template is fixed");
        let bar = ProgressBar::new(n_steps as u64).with_style(style).with_finish(ProgressFinish::Abandon);
        Self { bar, n_steps, first: None, n_tenths: 0 }
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn show(&mut self, step: usize, seconds: f64, values: &[(&str, f64)]) {
        if step == 0 {
            return eprintln!("{}", self.line(step, values, ""));
        }
        let name = values.first().map_or("", |(name, _)| name);
        let is_first = self.first.is_none();
        let first = self.first.get_or_insert_with(|| First { step, seconds, name: name.to_owned() });
        let n_tenths = step * 10 / self.n_steps.max(1);
        if first.name != name {
            self.bar.suspend(|| eprintln!("{}", self.line(step, values, "")));
        } else if !self.bar.is_hidden() {
            self.bar.set_position(step as u64);
            self.bar.set_message(self.line(step, values, &self.rate(step, seconds)));
        } else if is_first || n_tenths > self.n_tenths {
            eprintln!("{}", self.line(step, values, &self.rate(step, seconds)));
            self.n_tenths = n_tenths;
        }
    }

    /// `step  20/217  loss 0.6123    learning_rate 4.5e-5` and `rate`.
    fn line(&self, step: usize, values: &[(&str, f64)], rate: &str) -> String {
        let n_steps = self.n_steps;
        let mut line = format!("step {step:>width$}/{n_steps}", width = n_steps.to_string().len());
        for (name, value) in values {
            line += &format!("  {name} {:<8}", significant(*value, 4));
        }
        line += rate;
        line.trim_end().to_owned()
    }

    /// `  3.2 steps/s  62 s left`; nothing before there is something to count, and no time left after the last step.
    fn rate(&self, step: usize, seconds: f64) -> String {
        match &self.first {
            Some(first) if step > first.step && seconds > first.seconds => {
                let rate = (step - first.step) as f64 / (seconds - first.seconds);
                let left = self.n_steps.saturating_sub(step);
                let left = if left > 0 { format!("  {} left", time(left as f64 / rate)) } else { String::new() };
                format!("  {} steps/s{left}", significant(rate, 2))
            }
            _ => String::new(),
        }
    }
}

/// A duration as precise as a forecast deserves.
fn time(seconds: f64) -> String {
    match seconds {
        ..99.5 => format!("{seconds:.0} s"),
        ..5970.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_is_written_and_read_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("nested/run");
        let config = json!({"seed": 7, "train": {"learning_rate": 5e-5}});
        let mut run = Run::create(&folder, &config, "banking <77>", 2).unwrap();
        assert_eq!(run.folder(), folder);
        assert!(!run.interrupted());
        run.log(1, &[("loss", 0.75), ("learning_rate", 5e-5), ("gradient_norm", 1.5)]).unwrap();
        let early = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        assert!(early.starts_with(r#"{"step":1,"seconds":"#), "{early}");
        assert!(early.ends_with(",\"loss\":0.75,\"learning_rate\":0.00005,\"gradient_norm\":1.5}\n"), "{early}");
        run.log(2, &[("loss", f64::NAN), ("learning_rate", 2.5e-5)]).unwrap();
        let elapsed_seconds = run.elapsed_seconds();
        run.finish(&json!({"accuracy": 0.5})).unwrap();

        let lines = read_metrics(&folder.join("metrics.jsonl")).unwrap();
        assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 2]);
        assert!(lines[0].seconds <= lines[1].seconds && lines[1].seconds <= elapsed_seconds + 1e-3);
        assert_eq!(lines[1].values["loss"], Value::Null);
        let results: Value = kiln_core::files::read_json(&folder.join("results.json")).unwrap();
        assert_eq!(results, json!({"accuracy": 0.5}));
        let read: Value = toml::from_str(&std::fs::read_to_string(folder.join("config.toml")).unwrap()).unwrap();
        assert_eq!(read, config);
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.toml", "metrics.jsonl", "report.html", "results.json"]);
    }

    #[test]
    fn a_used_folder_is_refused() {
        for file in ["results.json", "metrics.jsonl", "model"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), "kept").unwrap();
            let error = Run::create(folder.path(), &json!({}), "again", 1).unwrap_err();
            assert!(matches!(&error, Error::Config { place, .. } if place == "--out"), "{error}");
            assert_eq!(error.to_string(), format!("--out: {} already holds {file}: choose another --out", folder.path().display()));
            assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), "kept");
            assert!(!folder.path().join("config.toml").exists());
        }
    }

    #[test]
    fn a_cut_last_line_is_left_out_and_a_bad_one_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"step\":1,\"seconds\":0.5,\"loss\":2.0}\n{\"step\":2,\"sec").unwrap();
        let lines = read_metrics(file.path()).unwrap();
        assert_eq!(lines, [Line { step: 1, seconds: 0.5, values: Map::from_iter([("loss".into(), json!(2.0))]) }]);
        std::fs::write(file.path(), "{\"step\":1,\"seconds\":0.5}\n{\"step\":-2}\n").unwrap();
        assert!(matches!(read_metrics(file.path()), Err(Error::Data { line: Some(2), .. })));
    }

    #[test]
    fn progress_lines_align_and_rates_count_from_the_first_step() {
        let mut display = Display::new(217);
        // An evaluation and ten seconds of loading, then 4 steps a second.
        display.show(0, 5.0, &[("validation_loss", 0.9)]);
        display.show(1, 10.0, &[("loss", 0.61234), ("learning_rate", 4.5e-5)]);
        display.show(21, 12.0, &[("validation_loss", 0.7)]);
        assert_eq!(display.rate(1, 10.0), "");
        assert_eq!(display.rate(21, 15.0), "  4 steps/s  49 s left");
        assert_eq!(display.rate(217, 64.0), "  4 steps/s");
        let line = |step, values: &[(&str, f64)]| display.line(step, values, "  4 steps/s");
        assert_eq!(
            line(1, &[("loss", 0.61234), ("learning_rate", 4.5e-5)]),
            "step   1/217  loss 0.6123    learning_rate 4.5e-5    4 steps/s"
        );
        assert_eq!(line(21, &[("loss", 0.5), ("learning_rate", 0.0)]), "step  21/217  loss 0.5       learning_rate 0         4 steps/s");
        assert_eq!(display.line(21, &[("validation_loss", 0.7)], ""), "step  21/217  validation_loss 0.7");
    }

    #[test]
    fn forecasts_have_units() {
        assert_eq!([8.4, 99.0, 100.0, 5900.0, 6000.0].map(time), ["8 s", "99 s", "2 min", "98 min", "1.7 h"]);
    }
}
