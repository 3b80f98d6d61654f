//! What a run was made of: written when it begins, and compared before it goes on.

use crate::checkpoint::{CheckpointConfig, FORMAT};
use burn::tensor::Device;
use kiln_core::files::{read_json, sha256, write_json};
use kiln_core::{Error, Result, checkpoint, device, hub};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The file name of a manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file name of the resolved configuration.
pub const CONFIG_FILE: &str = "config.toml";

/// What a run is of.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// The method, which heads the report.
    pub method: &'a str,
    /// Its updates.
    pub n_steps: usize,
    /// When it writes checkpoints.
    pub checkpoint: &'a CheckpointConfig,
    /// The seed of everything random.
    pub seed: u64,
    /// Where it computes.
    pub device: &'a Device,
    /// The models it reads: folders, or names on the hub.
    pub models: Vec<&'a Path>,
    /// The files of rows it reads, or folders of them.
    pub data: Vec<&'a Path>,
}

/// What a run was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The method.
    pub method: String,
    /// The version of Kiln.
    pub kiln: String,
    /// The version of its checkpoints, see [`FORMAT`].
    pub checkpoint_format: u32,
    /// The seed of everything random.
    pub seed: u64,
    /// Where it computes.
    pub device: String,
    /// For information: results do not depend on it.
    pub n_threads: usize,
    /// What of the processor's instructions the kernels use; on others the last bits may differ.
    pub cpu_features: Vec<String>,
    /// The SHA-256 of `config.toml`.
    pub config_sha256: String,
    /// The SHA-256 of each file of the models and of each file of rows.
    pub files_sha256: BTreeMap<PathBuf, String>,
}

impl Manifest {
    /// Of a run whose configuration is in `folder` already.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn new(folder: &Path, about: &About<'_>) -> Result<Self> {
        let mut files = BTreeSet::new();
        about.data.iter().try_for_each(|path| add_files(path, &mut files))?;
        for model in &about.models {
            files.extend(checkpoint::files(&hub::folder(model)?)?);
        }
        let files: Vec<PathBuf> = files.into_iter().collect();
        let sums = files.par_iter().map(|path| sha256(path)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            method: about.method.to_owned(),
            kiln: env!("CARGO_PKG_VERSION").to_owned(),
            checkpoint_format: FORMAT,
            seed: about.seed,
            device: device::name(about.device).to_owned(),
            n_threads: rayon::current_num_threads(),
            cpu_features: cpu_features(),
            config_sha256: sha256(&folder.join(CONFIG_FILE))?,
            files_sha256: files.into_iter().zip(sums).collect(),
        })
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(MANIFEST_FILE), self)
    }

    /// That of the run in `folder`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no run; whatever is wrong with its file.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        match path.exists() {
            true => read_json(&path),
            false => Err(Error::config(folder.display().to_string(), format!("no run is there: it has no {MANIFEST_FILE}"))),
        }
    }

    /// Whether the run in `folder` can still be made: its configuration, its models and its rows are what they were.
    ///
    /// # Errors
    /// [`Error::Config`] naming what changed, or what cannot be read.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let fail = |message: String| Err(Error::config(folder.display().to_string(), message));
        if self.checkpoint_format != FORMAT {
            let (found, kiln) = (self.checkpoint_format, &self.kiln);
            return fail(format!("its checkpoints have version {found}, of Kiln {kiln}; this Kiln reads version {FORMAT}"));
        }
        if sha256(&folder.join(CONFIG_FILE))? != self.config_sha256 {
            return fail(format!("{CONFIG_FILE} was changed since the run began: put it back, or start a new run with it"));
        }
        let changed = self.files_sha256.par_iter().map(|(path, sum)| match sha256(path) {
            Ok(found) if found == *sum => None,
            Ok(_) => Some(format!("{} was changed since the run began: put it back, or start a new run", path.display())),
            Err(error) => Some(format!("a file of the run cannot be read: {error}")),
        });
        match changed.collect::<Vec<_>>().into_iter().flatten().next() {
            Some(message) => fail(message),
            None => Ok(()),
        }
    }
}

/// Adds a file, or every file of a folder, such as one in BEIR's layout.
fn add_files(path: &Path, into: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        into.insert(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(|source| Error::io(path, source))? {
        add_files(&entry.map_err(|source| Error::io(path, source))?.path(), into)?;
    }
    Ok(())
}

/// The settings of the run in `folder`, if it can go on.
///
/// # Errors
/// [`Error::Config`] if there is no run, it is finished, or something it reads was changed.
pub fn resumable<C: DeserializeOwned>(folder: &Path) -> Result<C> {
    let manifest = Manifest::read(folder)?;
    if folder.join("results.json").exists() {
        return Err(Error::config(folder.display().to_string(), "the run is finished: its results are in results.json"));
    }
    manifest.check(folder)?;
    settings(folder)
}

/// The settings that the run in `folder` was begun with.
///
/// # Errors
/// If their file cannot be read.
pub fn settings<C: DeserializeOwned>(folder: &Path) -> Result<C> {
    let path = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    toml::from_str(&text).map_err(|error| Error::data(&path, None, error.message()))
}

/// The wide instructions of this processor.
fn cpu_features() -> Vec<String> {
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ];
        features.extend(known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name));
    }
    [std::env::consts::ARCH].into_iter().chain(features.drain(..)).map(str::to_owned).collect()
}
