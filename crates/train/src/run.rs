//! A run's folder: the resolved configuration, the metrics of every step, checkpoints, the results, and the progress on the terminal.
//!
//! ```text
//! config.toml     the resolved configuration, written before the first step
//! manifest.json   what the run was made of: a folder that has it holds a run
//! metrics.jsonl   one JSON object a line, written as the run goes
//! checkpoints/    what it takes to go on, see `checkpoint`
//! report.html     all of it for people
//! results.json    written at the end: a folder that has it holds a finished run
//! ```

use crate::card;
use crate::checkpoint::{self, ByName, Checkpoint, CheckpointConfig, State};
use crate::manifest::{About, CONFIG_FILE, MANIFEST_FILE, Manifest};
use crate::progress::Display;
use crate::report;
use crate::updater::{StepStats, Updater, UpdaterState};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::files::{check_writable, remove_temporaries, write_atomic, write_json};
use kiln_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
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

/// Where a run is kept, and whether it begins there or goes on.
#[derive(Clone, Debug)]
pub struct Start {
    folder: PathBuf,
    /// The run that this one is a part of, or itself.
    whole: PathBuf,
    is_resumed: bool,
    until: Option<usize>,
}

impl Start {
    /// A new run.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), whole: folder.to_owned(), is_resumed: false, until: None }
    }

    /// The run that was begun in `folder`, up to the step `until` if that is not its last: there it stops as if interrupted.
    pub fn resumed(folder: &Path, until: Option<usize>) -> Self {
        Self { is_resumed: true, until, ..Self::new(folder) }
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the run goes on.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The folder of the run that this one is a part of, or its own.
    pub fn whole(&self) -> &Path {
        &self.whole
    }

    /// Whether it is a part of another run.
    pub fn is_part(&self) -> bool {
        self.folder != self.whole
    }

    /// A run that is a part of this one, in a folder inside.
    pub fn part(&self, name: &Path) -> Self {
        let folder = self.folder.join(name);
        Self { is_resumed: self.is_resumed && folder.join(MANIFEST_FILE).exists(), folder, whole: self.whole.clone(), until: None }
    }
}

/// A run that is under way.
#[derive(Debug)]
pub struct Run {
    start: Start,
    method: String,
    n_steps: usize,
    config: CheckpointConfig,
    /// What it goes on from.
    checkpoint: Option<Checkpoint>,
    /// Files that grow as the run goes, by name.
    logs: BTreeMap<String, File>,
    began: Instant,
    saved: Instant,
    display: Display,
}

impl Run {
    /// Begins a run, or goes on from its newest checkpoint; listens for Ctrl-C. A new run's folder is made, with
    /// `config.toml` and `manifest.json`; in that of an older one the logs are cut to what they were at the checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if a new run's folder already holds one, or a model; [`Error::Checkpoint`] if every checkpoint is damaged;
    /// [`Error::Io`] if a file of `about` cannot be read or the folder cannot be written.
    pub fn open(start: &Start, config: &impl Serialize, about: &About<'_>) -> Result<Self> {
        let folder = &start.folder;
        listen_for_ctrl_c().map_err(|source| Error::io(folder, source))?;
        let mut run = Self {
            start: start.clone(),
            method: about.method.to_owned(),
            n_steps: about.n_steps,
            config: about.checkpoint.clone(),
            checkpoint: None,
            logs: BTreeMap::new(),
            began: Instant::now(),
            saved: Instant::now(),
            display: Display::new(about.n_steps),
        };
        if start.is_resumed {
            remove_temporaries(folder)?;
            let (checkpoint, damaged) = checkpoint::newest(folder)?;
            damaged.iter().for_each(|error| run.note(&format!("{error}: the checkpoint before it is used")));
            run.checkpoint = checkpoint;
            run.note(&match run.step() {
                0 => "no checkpoint yet: from the start".to_owned(),
                step => format!("going on after step {step} of {}", about.n_steps),
            });
        } else {
            create(folder, config, about)?;
        }
        run.log_file("metrics.jsonl")?;
        Ok(run)
    }

    /// Where the run is kept.
    pub fn folder(&self) -> &Path {
        &self.start.folder
    }

    /// Steps that were done when the run was opened.
    pub fn step(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.step)
    }

    /// What the loop gave to [`Run::save`] to be carried on; the default in a new run.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is not what was saved.
    pub fn progress<P: DeserializeOwned + Default>(&self) -> Result<P> {
        self.checkpoint.as_ref().map_or(Ok(P::default()), Checkpoint::progress)
    }

    /// The tensors that the loop gave to [`Run::save`] to be carried on; none in a new run.
    ///
    /// # Errors
    /// If their file cannot be read.
    pub fn carried(&self, device: &Device) -> Result<ByName> {
        self.checkpoint.as_ref().map_or(Ok(ByName::new()), |checkpoint| checkpoint.carried(device))
    }

    /// The model with the weights that the checkpoint holds of it, and the updater as it was; both as they are in a new run.
    ///
    /// # Errors
    /// If a weight is missing, or the model is another one.
    pub fn restore<M: Module>(&self, model: M, updater: &mut Updater) -> Result<M> {
        match &self.checkpoint {
            Some(checkpoint) => checkpoint.restore(model, updater),
            None => Ok(model),
        }
    }

    /// Time since the run began, breaks left out.
    pub fn elapsed_seconds(&self) -> f64 {
        self.checkpoint.as_ref().map_or(0.0, |checkpoint| checkpoint.state.seconds) + self.began.elapsed().as_secs_f64()
    }

    /// Tells the user something about the run, on a line of its own.
    pub fn note(&self, text: &str) {
        self.display.note(text);
    }

    /// Whether a checkpoint is due after `step` updates: by the settings, or because the user pressed Ctrl-C. A second Ctrl-C ends the process
    /// at once.
    pub fn is_due(&self, step: usize) -> bool {
        let CheckpointConfig { every_minutes, .. } = self.config;
        let by_steps = self.config.is_regular(step);
        let by_time = every_minutes > 0.0 && self.saved.elapsed().as_secs_f64() >= 60.0 * every_minutes;
        step < self.n_steps && (by_steps || by_time || self.stops(step))
    }

    fn stops(&self, step: usize) -> bool {
        INTERRUPTED.load(Ordering::Relaxed) || self.start.until.is_some_and(|last| step >= last)
    }

    /// Writes a checkpoint: the trainable weights of `model`, the updater's moments, and whatever else the loop carries from step to step:
    /// numbers in `progress`, a structure, and tensors in `carried`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the user pressed Ctrl-C; [`Error::Io`] if it cannot be written, in which case those before it are as they were.
    pub fn save<M: Module>(
        &mut self,
        step: usize,
        model: &M,
        updater: &Updater,
        progress: &impl Serialize,
        carried: &ByName,
    ) -> Result<()> {
        self.write_checkpoint(step, model, updater, progress, carried)?;
        match self.stops(step) {
            true => Err(Error::Interrupted { step, path: self.start.whole.clone() }),
            false => Ok(()),
        }
    }

    fn write_checkpoint<M: Module>(
        &mut self,
        step: usize,
        model: &M,
        updater: &Updater,
        progress: &impl Serialize,
        carried: &ByName,
    ) -> Result<()> {
        let mut log_bytes = BTreeMap::new();
        for (name, file) in &self.logs {
            let synced = || file.sync_data().and_then(|()| file.metadata());
            let bytes = synced().map_err(|source| Error::io(&self.folder().join(name), source))?.len();
            log_bytes.insert(name.clone(), bytes);
        }
        let fail = |error| Error::io(&self.folder().join("checkpoints"), std::io::Error::other(error));
        let updater = updater.state();
        let state = State {
            step,
            seconds: self.elapsed_seconds(),
            log_bytes,
            updater: updater.numbers.clone(),
            progress: toml::Table::try_from(progress).map_err(fail)?,
            counts: updater.moments.iter().map(|(path, (count, _))| (path.clone(), *count)).collect(),
        };
        checkpoint::save(&self.start, model, updater, carried, &state, &self.config)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Takes a step, the run's number `step`, with the gradients that the updater has accumulated of the mean loss `loss`. Says so if it is not
    /// taken, and puts the last checkpoint back if the settings ask for it.
    ///
    /// # Errors
    /// As [`Updater::step`], and if a checkpoint cannot be read.
    pub fn update<M: Module>(&mut self, step: usize, model: M, updater: &mut Updater, loss: f64) -> Result<(M, StepStats)> {
        let (mut model, stats) = updater.step(model, loss).map_err(|error| match error {
            Error::Diverged { what, .. } => Error::Diverged { step, what },
            other => other,
        })?;
        if let Some(trouble) = &stats.trouble {
            let back = if updater.rolls_back() { self.last_regular(updater.first_step())? } else { None };
            let mut done = "the step is left out".to_owned();
            if let Some(checkpoint) = back {
                let numbers = updater.state().numbers.clone();
                model = checkpoint.restore(model, updater)?;
                updater.restore(UpdaterState { numbers, moments: updater.state().moments.clone() });
                done = format!("back to the weights of step {}", checkpoint.state.step);
            }
            self.note(&format!("step {step}: {trouble}: {done}"));
        }
        Ok((model, stats))
    }

    /// The newest checkpoint after the step `first` that a run without breaks would have, too.
    fn last_regular(&self, first: usize) -> Result<Option<Checkpoint>> {
        let is_regular = |step: usize| step == first || self.config.is_regular(step);
        let found = checkpoint::list(self.folder())?.into_iter().rev().find(|(step, _)| *step >= first && is_regular(*step));
        found.map(|(_, path)| Checkpoint::open(&path)).transpose()
    }

    /// Writes one line of metrics after `step` updates and shows the progress, with the first two of `values`. Values at step 0, or that
    /// start with another name than those of the first step, such as an evaluation's, are shown on a line of their own.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn log(&mut self, step: usize, values: &[(&str, f64)]) -> Result<()> {
        let elapsed_seconds = self.elapsed_seconds();
        let seconds = (elapsed_seconds * 1e3).round() / 1e3;
        let line = Line { step, seconds, values: values.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))).collect() };
        let text = serde_json::to_string(&line).map_err(|error| Error::io(&self.folder().join("metrics.jsonl"), error.into()))?;
        self.append("metrics.jsonl", &format!("{text}\n"))?;
        self.display.show(step, elapsed_seconds, &values[..values.len().min(2)]);
        Ok(())
    }

    /// Appends lines to a log of the run, a file of its folder. A run that goes on cuts it to what it was at the checkpoint.
    ///
    /// The lines reach the system in one write, so that a run killed at any moment leaves at most its last lines cut.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn append(&mut self, name: &str, lines: &str) -> Result<()> {
        let path = self.folder().join(name);
        self.log_file(name)?.write_all(lines.as_bytes()).map_err(|source| Error::io(&path, source))
    }

    fn log_file(&mut self, name: &str) -> Result<&mut File> {
        let path = self.folder().join(name);
        if !self.logs.contains_key(name) {
            let open = || {
                let file = OpenOptions::new().create(true).append(true).open(&path)?;
                let n_bytes = file.metadata()?.len();
                Ok((file, n_bytes))
            };
            let (file, n_bytes) = open().map_err(|source| Error::io(&path, source))?;
            let kept = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.state.log_bytes.get(name)).copied().unwrap_or(0);
            if n_bytes < kept {
                return Err(Error::checkpoint(&path, format!("found {n_bytes} bytes, at the checkpoint there were {kept}")));
            }
            file.set_len(kept).map_err(|source| Error::io(&path, source))?;
            self.logs.insert(name.to_owned(), file);
        }
        Ok(self.logs.get_mut(name).expect("opened above"))
    }

    /// Ends the run: writes `report.html`, the card of the model and of the adapter that it left, and `results.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be written.
    pub fn finish(self, results: &impl Serialize) -> Result<()> {
        let path = self.folder().join("results.json");
        let results = serde_json::to_value(results).map_err(|error| Error::io(&path, error.into()))?;
        report::write(self.folder(), &self.method, &results, &read_metrics(&self.folder().join("metrics.jsonl"))?)?;
        for (model, file) in [("model", "config.json"), ("adapter", "adapter_config.json")] {
            let model = self.folder().join(model);
            if model.join(file).exists() {
                card::write(self.folder(), &model, &results)?;
            }
        }
        // Last, because a folder without it is not a finished run.
        write_json(&path, &results)
    }
}

/// Makes the folder of a new run.
fn create(folder: &Path, config: &impl Serialize, about: &About<'_>) -> Result<()> {
    let taken = |file: &&str| folder.join(file).exists();
    // A model there may be the one that is fine-tuned: it must not be replaced either.
    if let Some(file) = ["results.json", "metrics.jsonl", "model", "adapter", MANIFEST_FILE].into_iter().find(taken) {
        return Err(Error::config("--out", format!("{} already holds {file}: choose another --out", folder.display())));
    }
    check_writable("--out", folder)?;
    let path = folder.join(CONFIG_FILE);
    let config = toml::to_string(config).map_err(|error| Error::io(&path, std::io::Error::other(error)))?;
    write_atomic(&path, |temporary| std::fs::write(temporary, config))?;
    Manifest::new(folder, about)?.write(folder)
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

#[cfg(test)]
mod tests;
