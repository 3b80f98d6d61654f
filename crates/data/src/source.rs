//! Where a run's rows are: a file to train on, and a file or a share of it to be judged by.

use crate::examples::Counts;
use crate::rows::Table;
use crate::split::split;
use kiln_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the rows are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Training rows: .jsonl, .csv, .tsv or .txt.
    pub train: PathBuf,
    /// Held-out rows; without it a share of the training rows is held out.
    pub held_out: Option<PathBuf>,
    /// The share of the training rows held out when there is no file of them. Default 0.1.
    pub held_out_share: f64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { train: PathBuf::new(), held_out: None, held_out_share: 0.1 }
    }
}

impl DataConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        self.validate_in("data")
    }

    /// The same for settings that stand in another `section`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate_in(&self, section: &str) -> Result<()> {
        required(&format!("{section}.train"), &self.train, "the file of training rows")?;
        if !(self.held_out_share > 0.0 && self.held_out_share < 1.0) {
            let message = format!("found {}, expected more than 0 and less than 1", self.held_out_share);
            return Err(Error::config(format!("{section}.held_out_share"), message));
        }
        Ok(())
    }

    /// The files that are read.
    pub fn files(&self) -> Vec<&Path> {
        let files = [Some(&self.train), self.held_out.as_ref()].into_iter().flatten().map(PathBuf::as_path);
        files.filter(|file| !file.as_os_str().is_empty()).collect()
    }

    /// The training table and the held-out one, if that is a file of its own. `columns` names those of files without a header.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn read(&self, columns: &[String]) -> Result<(Table, Option<Table>)> {
        let read = |path: &Path| Table::read(path, columns);
        Ok((read(&self.train)?, self.held_out.as_deref().map(read).transpose()?))
    }

    /// The training table and the held-out one, which without a file is a share of the training rows that `seed` draws.
    ///
    /// # Errors
    /// [`Error::Data`] if there is only one row.
    pub fn separate(&self, mut train: Table, held_out: Option<Table>, seed: u64) -> Result<[Table; 2]> {
        if let Some(held_out) = held_out {
            return Ok([train, held_out]);
        }
        if train.rows.len() < 2 {
            return Err(Error::data(&train.path, None, "1 row, at least 2 are needed to hold one out; or name a file under data.held_out"));
        }
        let (kept, _) = split(train.rows.len(), self.held_out_share, seed);
        let mut kept = kept.into_iter().peekable();
        let rows = std::mem::take(&mut train.rows);
        let mut held_out = train.clone();
        for (index, row) in rows.into_iter().enumerate() {
            let side = if kept.next_if_eq(&index).is_some() { &mut train } else { &mut held_out };
            side.rows.push(row);
        }
        Ok([train, held_out])
    }
}

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// What trains.
    pub train: Vec<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the rows read, training rows first.
    pub counts: [Counts; 2],
}

impl<R> Rows<R> {
    /// The rows that `read` makes of the training table and of the held-out one.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn of([train, held_out]: [Table; 2], mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>) -> Result<Self> {
        let (train, train_counts) = read(&train)?;
        let (held_out, held_out_counts) = read(&held_out)?;
        Ok(Self { train, held_out, counts: [train_counts, held_out_counts] })
    }
}

/// Checks that the setting `key`, the path of `what`, was given.
///
/// # Errors
/// [`Error::Config`] naming the key.
pub fn required(key: &str, path: &Path, what: &str) -> Result<()> {
    if path.as_os_str().is_empty() { Err(Error::config(key, format!("missing: {what}"))) } else { Ok(()) }
}

/// Checks a setting that counts something.
///
/// # Errors
/// [`Error::Config`] naming the key, if it is 0.
pub fn at_least_one(key: &str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::config(key, "found 0, expected at least 1")) } else { Ok(()) }
}

/// Checks a setting that is a number: whether its `value` is as `expected`, and does not become infinite in f32.
///
/// # Errors
/// [`Error::Config`] naming the key, if `fits` is false.
pub fn in_range(key: &str, value: f64, fits: bool, expected: &str) -> Result<()> {
    if fits && value.is_finite() && (value as f32).is_infinite() {
        return Err(Error::config(key, format!("found {value:e}, expected at most {:e}", f32::MAX)));
    }
    if fits { Ok(()) } else { Err(Error::config(key, format!("found {value}, expected {expected}"))) }
}
