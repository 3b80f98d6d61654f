//! Checkpoints of a run: what it takes to go on after a break as if there had been none.
//!
//! ```text
//! checkpoints/step-000120/
//!     weights.safetensors   the trainable parameters by path
//!     moments.safetensors   what the optimizer keeps of each: PATH.0, PATH.1, ...
//!     carried.safetensors   tensors that the loop carries from step to step, if it does
//!     state.toml            steps, seconds, updates of each parameter, lengths of the run's logs, and what else the loop carries
//!     SHA256SUMS            of all these, as `sha256sum --check` reads it
//! ```
//!
//! There is no place in the data and no state of a generator to keep: batches and all randomness are functions of the seed and the step.
//! The numbers are in TOML because it keeps every float to the last bit, and those that are not finite.

use crate::guard::Action;
use crate::run::Start;
use crate::updater::{Numbers, UpdateConfig, Updater, UpdaterState};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::checkpoint::{Weights, write};
use kiln_core::family::Place;
use kiln_core::files::{TEMPORARY, sha256};
use kiln_core::parameters::{Change, Parameter, change_parameters, parameters};
use kiln_core::{Error, Result};
use kiln_data::source::{at_least_one, in_range};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Changes whenever a checkpoint of an earlier Kiln can no longer be read.
pub const FORMAT: u32 = 2;

const WEIGHTS: &str = "weights.safetensors";
const MOMENTS: &str = "moments.safetensors";
const CARRIED: &str = "carried.safetensors";
const STATE: &str = "state.toml";
const SUMS: &str = "SHA256SUMS";

/// When checkpoints are written, and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps from one to the next; 0 goes by time alone. Default 0.
    pub every_steps: usize,
    /// Minutes from one to the next; 0 goes by steps alone. Default 10.
    pub every_minutes: f64,
    /// How many are kept, the newest. Default 2: should one be damaged, there is the one before.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 0, every_minutes: 10.0, keep: 2 }
    }
}

impl CheckpointConfig {
    /// Whether a checkpoint is written after `step` steps however long they took.
    pub(crate) fn is_regular(&self, step: usize) -> bool {
        self.every_steps > 0 && step.is_multiple_of(self.every_steps)
    }

    /// Checks that the settings make sense, also with those of the update.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self, update: &UpdateConfig) -> Result<()> {
        if update.guard.action == Action::RollBack && self.every_steps == 0 {
            let message = "found \"roll-back\", but no checkpoint is sure to be there: set checkpoint.every_steps";
            return Err(Error::config("update.guard.action", message));
        }
        let minutes = self.every_minutes;
        in_range("checkpoint.every_minutes", minutes, minutes >= 0.0 && minutes.is_finite(), "0 or more")?;
        at_least_one("checkpoint.keep", self.keep)
    }
}

/// Tensors by name, each `[elements]`.
pub type ByName = BTreeMap<String, Tensor<1>>;

/// The numbers of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub step: usize,
    /// Since the run began.
    pub seconds: f64,
    /// Bytes of each log of the run.
    pub log_bytes: BTreeMap<String, u64>,
    /// What the updater remembers beside tensors.
    pub updater: Numbers,
    /// What else the loop carries.
    pub progress: toml::Table,
    /// How often each parameter was updated.
    pub counts: BTreeMap<String, usize>,
}

/// A checkpoint that is whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    pub(crate) state: State,
}

/// The checkpoints in the folder of a run by the steps done, oldest first, whole or not.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn list(run: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let folder = folder(run);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))? {
        let path = entry.map_err(|source| Error::io(&folder, source))?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint in the folder of a run that is whole, and what is wrong with those after it.
///
/// # Errors
/// [`Error::Checkpoint`] if there are checkpoints and none is whole.
pub(crate) fn newest(run: &Path) -> Result<(Option<Checkpoint>, Vec<Error>)> {
    let mut damaged = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
            Err(error) => damaged.push(error),
        }
    }
    match damaged.pop() {
        None => Ok((None, damaged)),
        Some(error) => Err(Error::checkpoint(&folder(run), format!("none can be used ({error}): start again in another folder"))),
    }
}

/// Removes the checkpoints of a run that is over.
///
/// # Errors
/// [`Error::Io`] if they cannot be removed.
pub fn remove_all(run: &Path) -> Result<()> {
    let folder = folder(run);
    match fs::remove_dir_all(&folder) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::io(&folder, source)),
        _ => Ok(()),
    }
}

fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// Writes a checkpoint under a temporary name, makes sure that it is on the disk, and gives it its own; then removes the oldest.
///
/// # Errors
/// [`Error::Io`] naming the checkpoint that cannot be written. Those before it are as they were.
pub(crate) fn save<M: Module>(
    start: &Start,
    model: &M,
    updater: &UpdaterState,
    carried: &ByName,
    state: &State,
    config: &CheckpointConfig,
) -> Result<()> {
    let folder = folder(start.folder());
    let path = folder.join(format!("step-{:06}", state.step));
    write_folder(&folder, &path, model, updater, carried, state).map_err(|error| match error {
        Error::Io { source, .. } => {
            let resume = start.whole().display();
            let message = format!("{source}; the checkpoint before is as it was: make room, then `cargo xtask resume {resume}`");
            Error::io(&path, std::io::Error::new(source.kind(), message))
        }
        other => other,
    })?;
    let all = list(start.folder())?;
    // The weights may have to go back to the last one that does not depend on when the run was interrupted.
    let regular = all.iter().rev().find(|(step, _)| config.is_regular(*step));
    for (_, old) in all[..all.len().saturating_sub(config.keep)].iter().filter(|old| Some(*old) != regular) {
        fs::remove_dir_all(old).map_err(|source| Error::io(old, source))?;
    }
    Ok(())
}

fn write_folder<M: Module>(folder: &Path, path: &Path, model: &M, updater: &UpdaterState, carried: &ByName, state: &State) -> Result<()> {
    let io = |source| Error::io(path, source);
    fs::create_dir_all(folder).map_err(io)?;
    let mut builder = tempfile::Builder::new();
    // Temporary folders are private by default; what this one becomes is not.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let temporary = builder.prefix(TEMPORARY).tempdir_in(folder).map_err(io)?;
    let file = |name: &str| temporary.path().join(name);
    let stored = |parameter: Parameter| (Place::plain(parameter.path.clone()), parameter);
    write(&file(WEIGHTS), parameters(model).into_iter().filter(|parameter| parameter.trainable).map(stored))?;
    let moments = updater.moments.iter().flat_map(|(path, (_, moments))| {
        moments.iter().enumerate().map(move |(index, moment)| stored(Parameter::of(&format!("{path}.{index}"), moment)))
    });
    write(&file(MOMENTS), moments)?;
    if !carried.is_empty() {
        write(&file(CARRIED), carried.iter().map(|(name, tensor)| stored(Parameter::of(name, tensor))))?;
    }
    let text = toml::to_string(state).map_err(|error| io(std::io::Error::other(error)))?;
    fs::write(file(STATE), text).map_err(io)?;
    let names: Vec<&str> = [WEIGHTS, MOMENTS, CARRIED, STATE].into_iter().filter(|name| file(name).exists()).collect();
    let sum = |name: &&str| Ok(format!("{}  {name}\n", sha256(&file(name))?));
    let sums = names.par_iter().map(sum).collect::<Result<Vec<_>>>()?;
    fs::write(file(SUMS), sums.concat()).map_err(io)?;
    names.into_iter().chain([SUMS]).try_for_each(|name| File::open(file(name))?.sync_all()).map_err(io)?;
    sync_folder(temporary.path()).map_err(io)?;
    // What a run that goes on from an earlier checkpoint finds there is damaged, and made again.
    if path.exists() {
        fs::remove_dir_all(path).map_err(io)?;
    }
    fs::rename(temporary.path(), path).map_err(io)?;
    let _ = temporary.keep();
    sync_folder(folder).map_err(io)
}

/// Makes sure that the names in a folder are on the disk.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

impl Checkpoint {
    /// Reads the numbers of a checkpoint, all of whose files are as they were written.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if one is missing or has changed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |message: String| Error::checkpoint(path, message);
        let sums = fs::read_to_string(path.join(SUMS)).map_err(|source| fail(format!("{SUMS}: {source}")))?;
        let check = |line: &str| {
            let known = |(_, name): &(&str, &str)| [WEIGHTS, MOMENTS, CARRIED, STATE].contains(name);
            let (sum, name) = line.split_once("  ").filter(known).ok_or_else(|| fail(format!("{SUMS} is damaged")))?;
            match sha256(&path.join(name)) {
                Ok(found) if found == sum => Ok(()),
                Ok(_) => Err(fail(format!("{name} is damaged: its SHA-256 is not that of {SUMS}"))),
                Err(error) => Err(fail(format!("{name} is damaged ({error})"))),
            }
        };
        let lines: Vec<&str> = sums.lines().collect();
        lines.par_iter().map(|line| check(line)).collect::<Result<Vec<()>>>()?;
        if let Some(name) = [WEIGHTS, MOMENTS, STATE].iter().find(|name| !lines.iter().any(|line| line.ends_with(*name))) {
            return Err(fail(format!("{SUMS} is damaged: it lacks {name}")));
        }
        let text = fs::read_to_string(path.join(STATE)).map_err(|source| Error::io(&path.join(STATE), source))?;
        let state = toml::from_str(&text).map_err(|error| fail(format!("{STATE}: {}", error.message())))?;
        Ok(Self { path: path.to_owned(), state })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What else the loop carried.
    pub(crate) fn progress<P: DeserializeOwned>(&self) -> Result<P> {
        let fail = |error: toml::de::Error| Error::checkpoint(&self.path.join(STATE), format!("progress: {}", error.message()));
        P::deserialize(self.state.progress.clone()).map_err(fail)
    }

    /// The tensors that the loop carried.
    pub(crate) fn carried(&self, device: &Device) -> Result<ByName> {
        let path = self.path.join(CARRIED);
        if !path.exists() {
            return Ok(ByName::new());
        }
        let weights = Weights::open_file(&path)?;
        weights.names().map(|name| Ok((name.to_owned(), flat(&weights, name, device)?))).collect()
    }

    /// The model with the trainable weights that it had, and the updater as it was.
    pub(crate) fn restore<M: Module>(&self, model: M, updater: &mut Updater) -> Result<M> {
        struct Load {
            weights: Weights,
            device: Option<Device>,
            outcome: Result<()>,
        }

        impl Change for Load {
            fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, tensor, mapper) = param.consume();
                let (shape, device) = (tensor.dims(), tensor.device().inner());
                let tensor = match self.weights.read(path, &shape) {
                    _ if !tensor.is_require_grad() || self.outcome.is_err() => tensor,
                    Ok(values) => Tensor::from_inner(Tensor::from_data(TensorData::new(values, shape), &device)).require_grad(),
                    Err(error) => {
                        self.outcome = Err(error);
                        tensor
                    }
                };
                self.device.get_or_insert(device);
                Param::from_mapped_value(id, tensor, mapper)
            }
        }

        let weights = Weights::open_file(&self.path.join(WEIGHTS))?;
        let mut load = Load { weights, device: None, outcome: Ok(()) };
        let model = change_parameters(model, &mut load);
        load.outcome?;
        let device = load.device.expect("a model has parameters");
        let weights = Weights::open_file(&self.path.join(MOMENTS))?;
        let mut state = UpdaterState { numbers: self.state.updater.clone(), moments: BTreeMap::new() };
        for (path, &count) in &self.state.counts {
            let names = (0..).map(|index| format!("{path}.{index}")).take_while(|name| weights.contains(name));
            let moments = names.map(|name| flat(&weights, &name, &device)).collect::<Result<_>>()?;
            state.moments.insert(path.clone(), (count, moments));
        }
        updater.restore(state);
        Ok(model)
    }
}

/// A tensor of a file, `[elements]`.
fn flat(weights: &Weights, name: &str, device: &Device) -> Result<Tensor<1>> {
    let shape = weights.shape(name).unwrap_or_default().to_vec();
    let values = weights.read(name, &shape)?;
    let n_elements = values.len();
    Ok(Tensor::from_data(TensorData::new(values, [n_elements]), device))
}
