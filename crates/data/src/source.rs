//! Where a run's rows are: files to train on, and a file or a share of them to be judged by.

mod alike;
mod open;
mod sides;
mod sources;
#[cfg(test)]
mod tests;

pub use alike::TextColumns;
pub use open::Files;
pub use sides::{Draw, Tables, Training};
pub use sources::{Source, Sources};

use crate::examples::{Counts, Limit};
use crate::rows::{Format, Table, first_part};
use crate::store::{Sequence, Store};
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
            let Some(path) = path else { continue };
            let refused = |message| Err(Error::config(format!("data.{key}"), message));
            if hub::names_split(path, &is_data) == Some(false) {
                return refused(format!("{} names no split: name one, such as {0}:{split}", path.display()));
            }
            match hub::data_files(path, &is_data)?.as_deref() {
                None => {}
                Some([file]) => path.clone_from(file),
                Some(files) => return refused(format!("{} is {} files: name one of them", path.display(), files.len())),
            }
        }
        Ok(())
    }

    /// Checks that no file has a weight: for settings in a `section` whose rows come in another way.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check_unweighted(&self, section: &str) -> Result<()> {
        match self.train.iter().position(|source| source.weight != 1.0) {
            Some(index) => Err(Error::config(format!("{section}.train[{index}].weight"), "only sft weighs files: leave it out")),
            None => Ok(()),
        }
    }

    /// The files that are read.
    pub fn files(&self) -> Vec<&Path> {
        let files = self.train.iter().map(|source| &source.path).chain(&self.held_out).chain(&self.validation).map(PathBuf::as_path);
        files.filter(|file| !file.as_os_str().is_empty()).collect()
    }

    /// Opens the files. `columns` names those of files without a header.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn open<'a>(&'a self, columns: &'a [String]) -> Result<Files<'a>> {
        Files::open(self, columns)
    }

    /// The rows of the first training file, or of its first part if it is large, those held out and those that validate: for a look at them
    /// before a run.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn sample(&self, columns: &[String], draw: Draw<'_>) -> Result<Sample> {
        let read = |path: &Path| Ok::<Table, Error>(first_part(path, columns, SAMPLE_BYTES)?.0);
        let train = read(self.train.first())?;
        let [train, held_out] = match &self.held_out {
            Some(path) => [train, read(path)?],
            None => sides::separate(&train, self.held_out_share, draw)?,
        };
        let (train, validation) = match &self.validation {
            Some(path) => (train, Some(read(path)?)),
            None => sides::sampled(train, draw),
        };
        Ok(Sample { train, held_out, validation })
    }

    /// The training tables, one for each file, and the held-out ones, which without a file of their own are shares of the training rows; and the
    /// table of rows to validate on, if a file of them is named.
    ///
    /// # Errors
    /// As [`Table::read`]; [`Error::Data`] if a file has only one row, of which none can be held out.
    pub fn tables(&self, columns: &[String], draw: Draw<'_>) -> Result<Tables> {
        let tables = self.tables_but_held_out(columns)?;
        if let Some(path) = &self.held_out {
            return Ok(Tables { held_out: vec![Table::read(path, columns)?], ..tables });
        }
        let pairs = tables.train.iter().map(|table| sides::separate(table, self.held_out_share, draw)).collect::<Result<Vec<_>>>()?;
        let (train, held_out) = pairs.into_iter().map(|[train, held_out]| (train, held_out)).unzip();
        Ok(Tables { train, held_out, ..tables })
    }

    /// The same with nothing held out, whatever the settings say: for a run that is judged by something else.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn tables_but_held_out(&self, columns: &[String]) -> Result<Tables> {
        let read = |path: &PathBuf| Table::read(path, columns);
        let train = self.train.iter().map(|source| read(&source.path)).collect::<Result<_>>()?;
        Ok(Tables { train, held_out: Vec::new(), validation: self.validation.as_ref().map(read).transpose()? })
    }
}

/// Rows that a run is looked at by before it begins.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What trains.
    pub train: Table,
    /// What is held out.
    pub held_out: Table,
    /// What validates, if that is rows.
    pub validation: Option<Table>,
}

/// Bytes of a file that are looked at before a run.
const SAMPLE_BYTES: usize = 64 << 20;

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
    /// What each training file was taken for, in a line for the user.
    pub notes: Vec<String>,
}

impl<R> Default for Rows<R> {
    fn default() -> Self {
        Self { train: Store::default(), validation: Vec::new(), held_out: Vec::new(), counts: [Counts::default(); 3], notes: Vec::new() }
    }
}

impl<R: Sequence> Rows<R> {
    /// The rows that `read` makes of each table, all in memory.
    ///
    /// # Errors
    /// Those of `read`, and if it leaves none.
    pub fn of(
        data: &DataConfig,
        tables: &Tables,
        draw: Draw<'_>,
        limit: Limit,
        mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>,
    ) -> Result<Self> {
        let mut rows = Self::default();
        for (table, source) in tables.train.iter().zip(data.train.iter()) {
            let ([train, validation], counts) = sides::divided(table, draw, limit, &mut read)?;
            rows.train.push_rows(train, source.weight);
            rows.validation.extend(validation);
            rows.counts[0].add(&counts);
        }
        (rows.held_out, rows.counts[1]) = joined(&tables.held_out, limit, &mut read)?;
        if let Some(table) = &tables.validation {
            (rows.validation, rows.counts[2]) = sides::checked(table, limit, &mut read)?;
        }
        Ok(rows)
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

/// What `read` makes of one table after the other.
///
/// # Errors
/// Those of `read`, and if it leaves nothing of a table.
pub fn joined<R>(tables: &[Table], limit: Limit, mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>) -> Result<(Vec<R>, Counts)> {
    let (mut rows, mut counts) = (Vec::new(), Counts::default());
    for table in tables {
        let (of_table, counts_of_table) = sides::checked(table, limit, &mut read)?;
        rows.extend(of_table);
        counts.add(&counts_of_table);
    }
    Ok((rows, counts))
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
