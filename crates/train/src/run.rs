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

use crate::checkpoint::{self, ByName, Checkpoint, CheckpointConfig, State};
use crate::manifest::{About, CONFIG_FILE, MANIFEST_FILE, Manifest};
use crate::progress::Display;
use crate::report;
use crate::updater::Updater;
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
        let CheckpointConfig { every_steps, every_minutes, .. } = self.config;
        let by_steps = every_steps > 0 && step.is_multiple_of(every_steps);
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
            n_updates: updater.step,
            log_bytes,
            plateau: updater.plateau,
            progress: toml::Table::try_from(progress).map_err(fail)?,
            counts: updater.moments.iter().map(|(path, (count, _))| (path.clone(), *count)).collect(),
        };
        checkpoint::save(&self.start, model, updater, carried, &state, self.config.keep)?;
        self.saved = Instant::now();
        Ok(())
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

    /// Ends the run: writes `report.html` and `results.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be written.
    pub fn finish(self, results: &impl Serialize) -> Result<()> {
        let path = self.folder().join("results.json");
        let results = serde_json::to_value(results).map_err(|error| Error::io(&path, error.into()))?;
        report::write(self.folder(), &self.method, &results, &read_metrics(&self.folder().join("metrics.jsonl"))?)?;
        // Last, because a folder without it is not a finished run.
        write_json(&path, &results)
    }
}

/// Makes the folder of a new run.
fn create(folder: &Path, config: &impl Serialize, about: &About<'_>) -> Result<()> {
    let taken = |file: &&str| folder.join(file).exists();
    // A model there may be the one that is fine-tuned: it must not be replaced either.
    if let Some(file) = ["results.json", "metrics.jsonl", MANIFEST_FILE, "model", "adapter"].into_iter().find(taken) {
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
mod tests {
    use super::*;
    use crate::updater::UpdateConfig;
    use burn::module::Param;
    use burn::tensor::Tensor;
    use serde_json::json;
    use std::sync::LazyLock;

    static FLEX: LazyLock<Device> = LazyLock::new(|| kiln_core::device::by_name("flex").unwrap());
    const EVERY_STEP: CheckpointConfig = CheckpointConfig { every_steps: 1, every_minutes: 0.0, keep: 2 };

    fn about(method: &str, n_steps: usize) -> About<'_> {
        About { method, n_steps, checkpoint: &EVERY_STEP, seed: 7, device: &FLEX, models: Vec::new(), data: Vec::new() }
    }

    #[test]
    fn a_folder_is_written_and_read_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("nested/run");
        let config = json!({"seed": 7, "train": {"learning_rate": 5e-5}});
        let mut run = Run::open(&Start::new(&folder), &config, &about("banking <77>", 2)).unwrap();
        assert_eq!(run.folder(), folder);
        assert!(run.is_due(1) && !run.is_due(2), "after the last step the run itself is saved");
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
        assert_eq!(names, ["config.toml", "manifest.json", "metrics.jsonl", "report.html", "results.json"]);
    }

    #[test]
    fn a_used_folder_is_refused() {
        for file in ["results.json", "metrics.jsonl", "manifest.json", "model"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), "kept").unwrap();
            let error = Run::open(&Start::new(folder.path()), &json!({}), &about("again", 1)).unwrap_err();
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

    /// One weight that moves, one that does not.
    #[derive(Module, Debug)]
    struct Two {
        moving: Param<Tensor<1>>,
        frozen: Param<Tensor<2>>,
    }

    impl Two {
        fn new() -> Self {
            let device = FLEX.clone().autodiff();
            let frozen = Param::from_tensor(Tensor::from_floats([[1.0, 2.0]], &device));
            Self { moving: Param::from_tensor(Tensor::from_floats([0.5, -1.0, 3.0], &device)), frozen: frozen.no_grad() }
        }

        fn loss(&self, step: usize) -> Tensor<1> {
            (self.moving.val() * (step as f64 + 0.3)).powi_scalar(2).sum()
        }

        fn values(&self) -> Vec<f32> {
            self.moving.val().into_data().try_to_vec().unwrap()
        }
    }

    /// Not finite, not short in decimal, and one whose last bit a careless reader of decimals loses.
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Progress {
        floats: Vec<f64>,
        stage: Option<usize>,
        nested: BTreeMap<String, Vec<(f64, u64)>>,
    }

    fn learn(start: &Start, n_steps: usize) -> Result<Vec<f32>> {
        let mut run = Run::open(start, &json!({"seed": 7}), &about("two", n_steps))?;
        let mut updater = Updater::new(UpdateConfig { learning_rate: 0.1, ..UpdateConfig::default() }, n_steps);
        let mut model = run.restore(Two::new(), &mut updater)?;
        let mut progress: Progress = run.progress()?;
        for step in run.step() + 1..=n_steps {
            updater.add(&model, model.loss(step).backward(), 1.0);
            (model, _) = updater.step(model)?;
            run.log(step, &[("loss", 0.1 * step as f64)])?;
            run.append("samples.jsonl", &format!("{step}\n"))?;
            progress.floats.extend([0.1 + 0.2 * step as f64, f64::NEG_INFINITY, 3.0e-310]);
            progress.stage = Some(step);
            progress.nested.entry(format!("a.\"{step}\"")).or_default().push((1.0 / 3.0, step as u64));
            if run.is_due(step) {
                let carried = ByName::from([("anchor".to_owned(), model.moving.val().inner())]);
                run.save(step, &model, &updater, &progress, &carried)?;
            }
        }
        assert_eq!(
            progress.floats.iter().step_by(3).copied().collect::<Vec<_>>(),
            (1..=n_steps).map(|step| 0.1 + 0.2 * step as f64).collect::<Vec<_>>()
        );
        assert!(progress.floats.len() == 3 * n_steps && progress.floats[4] == f64::NEG_INFINITY && progress.floats[5] == 3.0e-310);
        Ok(model.values())
    }

    #[test]
    fn a_run_goes_on_as_if_there_had_been_no_break() {
        let parent = tempfile::tempdir().unwrap();
        let [whole, cut] = ["whole", "cut"].map(|name| parent.path().join(name));
        let expected = learn(&Start::new(&whole), 5).unwrap();
        // Until step 3 there is a checkpoint of each step; a run killed later has written more.
        let resumed = |until| Start::resumed(&cut, until);
        std::fs::create_dir(&cut).unwrap();
        for file in ["config.toml", "manifest.json"] {
            std::fs::copy(whole.join(file), cut.join(file)).unwrap();
        }
        let error = learn(&resumed(Some(3)), 5).unwrap_err();
        assert!(matches!(&error, Error::Interrupted { step: 3, path } if *path == cut), "{error}");
        let steps = |folder: &Path| checkpoint::list(folder).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(&cut), [2, 3]);
        let append = |file: &str| std::fs::write(cut.join(file), std::fs::read_to_string(cut.join(file)).unwrap() + "{\"st").unwrap();
        append("metrics.jsonl");
        append("samples.jsonl");
        std::fs::create_dir(cut.join("checkpoints/.kiln-abc")).unwrap();
        std::fs::write(cut.join("checkpoints/.kiln-abc/weights.safetensors"), "cut").unwrap();
        let device = FLEX.clone();
        let run = Run::open(&resumed(None), &json!({}), &about("two", 5)).unwrap();
        assert!(run.step() == 3 && run.carried(&device).unwrap()["anchor"].dims() == [3]);
        drop(run);
        assert_eq!(learn(&resumed(None), 5).unwrap(), expected);
        assert_eq!(std::fs::read_to_string(cut.join("samples.jsonl")).unwrap(), "1\n2\n3\n4\n5\n");
        let losses =
            |folder: &Path| read_metrics(&folder.join("metrics.jsonl")).unwrap().into_iter().map(|line| line.values).collect::<Vec<_>>();
        assert_eq!(losses(&cut), losses(&whole));
        assert_eq!(steps(&cut), steps(&whole));
        let sums = |folder: &Path| std::fs::read_to_string(folder.join("checkpoints/step-000004/SHA256SUMS")).unwrap();
        let weights = |folder: &Path| sums(folder).lines().take(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(weights(&cut), weights(&whole), "the checkpoints' tensors are the same too");
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        let expected = learn(&Start::new(&folder), 4).unwrap();
        let newest = folder.join("checkpoints/step-000003");
        for file in ["weights.safetensors", "moments.safetensors", "carried.safetensors", "state.toml", "SHA256SUMS"] {
            let path = newest.join(file);
            let kept = std::fs::read(&path).unwrap();
            for damage in ["flipped", "cut", "gone"] {
                let mut bytes = kept.clone();
                match damage {
                    "flipped" => bytes[kept.len() / 2] ^= 1,
                    _ => bytes.truncate(kept.len() / 2),
                }
                std::fs::write(&path, bytes).unwrap();
                if damage == "gone" {
                    std::fs::remove_file(&path).unwrap();
                }
                let (found, damaged) = checkpoint::newest(&folder).unwrap();
                assert_eq!((found.unwrap().state.step, damaged.len()), (2, 1), "{file} {damage}");
                let error = damaged[0].to_string();
                assert!(error.contains("step-000003: ") && error.contains(file) && !error.contains('\n'), "{error}");
            }
            std::fs::write(&path, &kept).unwrap();
        }
        std::fs::write(newest.join("weights.safetensors"), "").unwrap();
        assert_eq!(learn(&Start::resumed(&folder, None), 4).unwrap(), expected);
        // Made again on the way.
        assert_eq!(checkpoint::newest(&folder).unwrap().0.unwrap().state.step, 3);
        for step in [2, 3] {
            std::fs::write(folder.join(format!("checkpoints/step-{step:06}/weights.safetensors")), "").unwrap();
        }
        let error = learn(&Start::resumed(&folder, None), 4).unwrap_err().to_string();
        assert!(error.contains("none can be used") && error.contains("weights.safetensors is damaged"), "{error}");
    }
}
