//! Where a run's rows are: files to train on, and a file or a share of them to be judged by.

mod open;
mod sources;
#[cfg(test)]
mod tests;

pub use open::Files;
pub use sources::{Source, Sources};

use crate::examples::{Counts, Limit};
use crate::rows::{Format, Table, first_part};
use crate::split::split;
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
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { train: Sources::default(), held_out: None, held_out_share: 0.1 }
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
    /// [`Error::Checkpoint`] if there is no such data set or file; [`Error::Config`] if what is held out is no split or more than a file.
    pub fn fetch(&mut self) -> Result<()> {
        let mut train = Vec::new();
        for source in self.train.iter() {
            match hub::data_files(&source.path, &is_data)? {
                Some(files) => train.extend(files.into_iter().map(|path| Source { path, weight: source.weight })),
                None => train.push(source.clone()),
            }
        }
        self.train = train.into_iter().collect();
        if let Some(path) = &mut self.held_out {
            if hub::names_split(path, &is_data) == Some(false) {
                let message = format!("{} names no split: name one, such as {0}:test", path.display());
                return Err(Error::config("data.held_out", message));
            }
            match hub::data_files(path, &is_data)?.as_deref() {
                None => {}
                Some([file]) => path.clone_from(file),
                Some(files) => {
                    let message = format!("{} is {} files: name one of them", path.display(), files.len());
                    return Err(Error::config("data.held_out", message));
                }
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
        let files = self.train.iter().map(|source| &source.path).chain(&self.held_out).map(PathBuf::as_path);
        files.filter(|file| !file.as_os_str().is_empty()).collect()
    }

    /// Opens the files. `columns` names those of files without a header.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn open<'a>(&'a self, columns: &'a [String]) -> Result<Files<'a>> {
        Files::open(self, columns)
    }

    /// The rows of the first training file, or of its first part if it is large, and those held out: for a look at them before a run.
    ///
    /// # Errors
    /// As [`Self::tables`].
    pub fn sample(&self, columns: &[String], seed: u64) -> Result<[Table; 2]> {
        let read = |path: &Path| Ok::<Table, Error>(first_part(path, columns, SAMPLE_BYTES)?.0);
        let train = read(self.train.first())?;
        match &self.held_out {
            Some(path) => Ok([train, read(path)?]),
            None => separate(train, self.held_out_share, seed),
        }
    }

    /// The training tables, one for each file, whatever is held out.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn train_tables(&self, columns: &[String]) -> Result<Vec<Table>> {
        self.train.iter().map(|source| Table::read(&source.path, columns)).collect()
    }

    /// The training tables, one for each file, and the held-out ones, which without a file of their own are shares of the training rows that
    /// `seed` draws.
    ///
    /// # Errors
    /// As [`Table::read`]; [`Error::Data`] if a file has only one row, of which none can be held out.
    pub fn tables(&self, columns: &[String], seed: u64) -> Result<[Vec<Table>; 2]> {
        let train = self.train_tables(columns)?;
        match &self.held_out {
            Some(path) => Ok([train, vec![Table::read(path, columns)?]]),
            None => {
                let pairs = train.into_iter().map(|table| separate(table, self.held_out_share, seed)).collect::<Result<Vec<_>>>()?;
                let (train, held_out) = pairs.into_iter().map(|[train, held_out]| (train, held_out)).unzip();
                Ok([train, held_out])
            }
        }
    }
}

/// Bytes of a file that are looked at before a run.
const SAMPLE_BYTES: usize = 64 << 20;

fn is_data(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// What trains of a table, and the share that is held out, which `seed` draws.
fn separate(mut train: Table, held_out_share: f64, seed: u64) -> Result<[Table; 2]> {
    check_divisible(&train.path, train.rows.len())?;
    let is_kept = Kept::new(train.rows.len(), held_out_share, seed);
    let rows = std::mem::take(&mut train.rows);
    let mut held_out = train.clone();
    for (index, row) in rows.into_iter().enumerate() {
        let side = if is_kept.contains(index) { &mut train } else { &mut held_out };
        side.rows.push(row);
    }
    Ok([train, held_out])
}

fn check_divisible(path: &Path, n_rows: usize) -> Result<()> {
    if n_rows > 1 {
        return Ok(());
    }
    Err(Error::data(path, None, "1 row, at least 2 are needed to hold one out; or name a file under data.held_out"))
}

/// Which of a file's rows train.
#[derive(Debug)]
struct Kept(Vec<bool>);

impl Kept {
    fn new(n_rows: usize, held_out_share: f64, seed: u64) -> Self {
        let mut is_kept = vec![true; n_rows];
        split(n_rows, held_out_share, seed).1.into_iter().for_each(|row| is_kept[row] = false);
        Self(is_kept)
    }

    fn contains(&self, row: usize) -> bool {
        self.0[row]
    }
}

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// What trains.
    pub train: Store<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the rows read, training rows first.
    pub counts: [Counts; 2],
    /// What each training file was taken for, in a line for the user.
    pub notes: Vec<String>,
}

impl<R: Sequence> Rows<R> {
    /// The rows that `read` makes of each training table and of each held-out one, all in memory.
    ///
    /// # Errors
    /// Those of `read`, and if it leaves none.
    pub fn of(
        data: &DataConfig,
        [train, held_out]: &[Vec<Table>; 2],
        limit: Limit,
        mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>,
    ) -> Result<Self> {
        let mut rows = Self { train: Store::default(), held_out: Vec::new(), counts: [Counts::default(); 2], notes: Vec::new() };
        for (table, source) in train.iter().zip(data.train.iter()) {
            let (of_table, counts) = read(table)?;
            limit.check_left(&table.path, &counts)?;
            rows.train.push_rows(of_table, source.weight);
            rows.counts[0].add(&counts);
        }
        (rows.held_out, rows.counts[1]) = joined(held_out, limit, read)?;
        Ok(rows)
    }
}

/// What `read` makes of one table after the other.
///
/// # Errors
/// Those of `read`, and if it leaves nothing of a table.
pub fn joined<R>(tables: &[Table], limit: Limit, mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>) -> Result<(Vec<R>, Counts)> {
    let (mut rows, mut counts) = (Vec::new(), Counts::default());
    for table in tables {
        let (of_table, counts_of_table) = read(table)?;
        limit.check_left(&table.path, &counts_of_table)?;
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
