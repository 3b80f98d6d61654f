//! Where a run's rows are: files to train on, and a file or a share of them to be judged by.

mod alike;
mod open;
mod sides;
mod sources;
#[cfg(test)]
mod tests;

pub use alike::TextColumns;
pub use open::{Files, Read, Settings, Training};
pub use sides::Draw;
pub use sources::{Source, Sources};

use crate::examples::Counts;
use crate::rows::{Format, Table, first_part};
use crate::store::Store;
use kiln_core::{Error, Result, hub};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the rows are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// The file of training rows, or several with weights.
    pub train: Sources,
    /// Held-out rows; without it a share of the training rows is held out.
    pub held_out: Option<PathBuf>,
    /// The share of the training rows held out when there is no file of them. Default 0.1.
    pub held_out_share: f64,
    /// Rows to validate on while the run goes, instead of a share of the training rows (`validation.share`). Default none.
    pub validation: Option<PathBuf>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { train: Sources::default(), held_out: None, held_out_share: 0.1, validation: None }
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
        self.train.validate(&format!("{section}.train"))?;
        if !(self.held_out_share > 0.0 && self.held_out_share < 1.0) {
            let message = format!("found {}, expected more than 0 and less than 1", self.held_out_share);
            return Err(Error::config(format!("{section}.held_out_share"), message));
        }
        Ok(())
    }

    /// Puts the files in the cache of the hub in the place of names of data sets there ([`kiln_core::hub::data_files`]); all files of a split
    /// have the weight of its name.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such data set or file; [`Error::Config`] if what is held out or validates is no split or more than
    /// a file.
    pub fn fetch(&mut self) -> Result<()> {
        let mut train = Vec::new();
        for source in self.train.iter() {
            match hub::data_files(&source.path, &is_data)? {
                Some(files) => train.extend(files.into_iter().map(|path| Source { path, weight: source.weight })),
                None => train.push(source.clone()),
            }
        }
        self.train = train.into_iter().collect();
        for (key, path, split) in [("held_out", &mut self.held_out, "test"), ("validation", &mut self.validation, "validation")] {
            if let Some(path) = path {
                *path = fetched(&format!("data.{key}"), path, split)?;
            }
        }
        Ok(())
    }

    /// The files that are read.
    pub fn files(&self) -> Vec<&Path> {
        let files = self.train.iter().map(|source| &source.path).chain(&self.held_out).chain(&self.validation).map(PathBuf::as_path);
        files.filter(|file| !file.as_os_str().is_empty()).collect()
    }

    /// Opens the files. `columns` names those of files without a header; `draw` says which rows do not train.
    ///
    /// # Errors
    /// As [`Table::read`]; [`Error::Data`] if a file has only one row, of which none can be held out.
    pub fn open<'a>(&'a self, columns: &'a [String], draw: Draw<'a>) -> Result<Files<'a>> {
        Files::open(self, columns, draw)
    }

    /// The same with nothing held out, whatever the settings say: for a run that is judged by something else.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn open_but_held_out<'a>(&'a self, columns: &'a [String], draw: Draw<'a>) -> Result<Files<'a>> {
        Files::open_but_held_out(self, columns, draw)
    }

    /// Rows of all training files, of large ones the first, those held out and those that validate: for a look at them before a run. Where what
    /// is held out is a folder, it has no rows.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn sample(&self, columns: &[String], draw: Draw<'_>) -> Result<Sample> {
        let most_bytes = SAMPLE_BYTES / self.train.iter().count().max(1);
        let read = |path: &Path, most_bytes| Ok::<Table, Error>(first_part(path, columns, most_bytes)?.0);
        let (mut train, mut held_out, mut validation) = (Vec::new(), Vec::new(), Vec::new());
        for source in self.train.iter() {
            let mut table = read(&source.path, most_bytes)?;
            if self.held_out.is_none() {
                let of_table;
                [table, of_table] = sides::separate(&table, self.held_out_share, draw)?;
                held_out.push(of_table);
            }
            if self.validation.is_none() {
                let of_table;
                (table, of_table) = sides::sampled(table, draw);
                validation.extend(of_table);
            }
            train.push(table);
        }
        if let Some(path) = self.held_out.as_deref().filter(|path| !path.is_dir()) {
            held_out.push(read(path, SAMPLE_BYTES)?);
        }
        if let Some(path) = &self.validation {
            validation.push(read(path, SAMPLE_BYTES)?);
        }
        Ok(Sample { train, held_out, validation })
    }
}

/// Rows that a run is looked at by before it begins: tables of the files.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What trains.
    pub train: Vec<Table>,
    /// What is held out.
    pub held_out: Vec<Table>,
    /// What validates, if that is rows.
    pub validation: Vec<Table>,
}

/// Bytes of all training files that are looked at before a run, an equal share of each, and of held-out ones.
const SAMPLE_BYTES: usize = 64 << 20;

/// The file in the cache of the hub that `path` names there, a file or a split that is one; or else `path` itself. `key` is its setting, `split`
/// an example of a split.
///
/// # Errors
/// [`Error::Checkpoint`] if there is no such data set or file; [`Error::Config`] if it is no split or more than a file.
pub fn fetched(key: &str, path: &Path, split: &str) -> Result<PathBuf> {
    if hub::names_split(path, &is_data) == Some(false) {
        return Err(Error::config(key, format!("{} names no split: name one, such as {0}:{split}", path.display())));
    }
    match hub::data_files(path, &is_data)?.as_deref() {
        None => Ok(path.to_owned()),
        Some([file]) => Ok(file.clone()),
        Some(files) => {
            let message = format!("{} is {} files: name one of them, such as {}", path.display(), files.len(), files[0].display());
            Err(Error::config(key, message))
        }
    }
}

fn is_data(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// What trains.
    pub train: Store<R>,
    /// What validates.
    pub validation: Vec<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the rows read: of the training files, whose share that validates counts; of those held out; and of the file of
    /// validation rows.
    pub counts: [Counts; 3],
    /// What became of those of each training file.
    pub files: Vec<Counts>,
    /// What each training file was taken for, in a line for the user.
    pub notes: Vec<String>,
    /// How many of what trains are canaries, which come last.
    pub n_planted: usize,
}

impl<R> Rows<R> {
    /// Rows and what became of those they were read from.
    pub fn new(training: Training<R>, (held_out, held_out_counts): (Vec<R>, Counts), notes: Vec<String>) -> Self {
        let Training { rows, validation, files, validation_counts } = training;
        let mut counts = [Counts::default(), held_out_counts, validation_counts];
        files.iter().for_each(|of_file| counts[0].add(of_file));
        Self { train: rows, validation, held_out, counts, files, notes, n_planted: 0 }
    }

    /// How many training rows are of the files, and are seen as they are there.
    pub fn n_own(&self) -> usize {
        self.train.n_seen() - self.n_planted
    }
}

/// What became of a run's rows, in a line for the user: of the training files, of those held out, of the file of validation rows; and how many
/// rows validate.
pub fn counted([train, held_out, validation]: &[Counts; 3], n_validation: usize) -> String {
    let aside = match (n_validation, validation.n_rows) {
        (0, _) => String::new(),
        (n, 0) => format!(", of which {n} validate"),
        _ => format!("; validation: {validation}"),
    };
    format!("training rows: {train}{aside}; held out: {held_out}")
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
