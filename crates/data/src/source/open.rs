//! The files of a run: small ones as tables in memory; of large ones, which are read part by part, the tokens are kept on disk.

use super::alike::keys;
use super::sides::{ReadTable, Side, blocks, check_divisible, checked, divided, drawn, sides};
use super::{DataConfig, Draw, Rows};
use crate::examples::{Counts, Limit};
use crate::rows::{Table, each_part, first_part};
use crate::store::cache::Cache;
use crate::store::disk::{Disk, Writer};
use crate::store::{Store, Stored};
use kiln_core::files::{sha256, sha256_of};
use kiln_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A file with more MiB of text is not read as a whole, unless `KILN_CACHE_ABOVE_MIB` says otherwise.
const MOST_MIB_IN_MEMORY: usize = 64;
/// Bytes of a part of a file: enough for all cores to have texts to tokenise, little beside a model.
const PART_BYTES: usize = 2 << 20;
const LEAST_PART_BYTES: usize = 1 << 10;

/// The files of a run, opened.
#[derive(Debug)]
pub struct Files<'a> {
    columns: &'a [String],
    draw: Draw<'a>,
    /// Of each training file, if no file of them is named.
    held_out_share: Option<f64>,
    /// What is not held out, in the order of the configuration, and how often an epoch sees it.
    train: Vec<(Opened, f64)>,
    /// What is held out: a file, or a share of each that trains; nothing where it is a folder.
    held_out: Vec<Opened>,
    /// The file of rows to validate on, if one is named.
    validation: Option<Opened>,
    /// A training file with only one row, of which none can be held out: told when rows are read, after what is wrong with its columns.
    undivided: Option<PathBuf>,
    part_bytes: usize,
}

/// One side of a file of rows.
#[derive(Debug)]
struct Opened {
    /// All its rows; of a file that is not read as a whole the first part, whichever side its rows are on.
    first: Table,
    /// What is known of a file that is not read as a whole.
    large: Option<Rc<Large>>,
    /// Whether it is a share of a training file.
    is_share: bool,
}

#[derive(Debug)]
struct Large {
    sha256: String,
    n_rows: usize,
    /// A number for each row, the same where the text is: 8 bytes of each, from the first time on that they are asked for.
    keys: OnceCell<Vec<u64>>,
}

/// What one pass over a large file finds.
#[derive(Serialize, Deserialize)]
struct Found {
    columns: Vec<String>,
    n_rows: usize,
}

/// Rows that train, and rows that the run is validated on.
#[derive(Clone, Debug)]
pub struct Training<R> {
    /// What trains.
    pub rows: Store<R>,
    /// What validates.
    pub validation: Vec<R>,
    /// What became of the rows of each training file, whose share that validates counts.
    pub files: Vec<Counts>,
    /// What became of those of the file of validation rows.
    pub validation_counts: Counts,
}

fn most_bytes_in_memory() -> Result<usize> {
    const NAME: &str = "KILN_CACHE_ABOVE_MIB";
    let mib = match std::env::var(NAME) {
        Ok(text) => text.trim().parse().map_err(|_| Error::config(NAME, format!("found {text:?}, expected a whole number of MiB")))?,
        Err(_) => MOST_MIB_IN_MEMORY,
    };
    Ok(mib.saturating_mul(1 << 20))
}

impl<'a> Files<'a> {
    pub(super) fn open(data: &'a DataConfig, columns: &'a [String], draw: Draw<'a>) -> Result<Self> {
        Self::open_within(data, columns, draw, most_bytes_in_memory()?, data.held_out.is_none())
    }

    pub(super) fn open_but_held_out(data: &'a DataConfig, columns: &'a [String], draw: Draw<'a>) -> Result<Self> {
        Self::open_within(data, columns, draw, most_bytes_in_memory()?, false)
    }

    /// Files with more than `most_bytes` are large. `holds_out`: a share of each training file.
    pub(super) fn open_within(
        data: &'a DataConfig,
        columns: &'a [String],
        draw: Draw<'a>,
        most_bytes: usize,
        holds_out: bool,
    ) -> Result<Self> {
        let open = |path: &Path| Opened::new(path, columns, most_bytes);
        let (mut train, mut held_out, mut undivided) = (Vec::new(), Vec::new(), None);
        for source in data.train.iter() {
            let mut file = open(&source.path)?;
            if holds_out {
                let share;
                undivided = undivided.or_else(|| (file.n_rows() < 2).then(|| source.path.clone()));
                [file, share] = file.divided(data.held_out_share, draw);
                held_out.push(share);
            }
            train.push((file, source.weight));
        }
        if let Some(path) = data.held_out.as_deref().filter(|path| !path.is_dir()) {
            held_out.push(open(path)?);
        }
        let validation = data.validation.as_deref().map(open).transpose()?;
        let held_out_share = holds_out.then_some(data.held_out_share);
        let part_bytes = PART_BYTES.min(most_bytes.max(LEAST_PART_BYTES));
        Ok(Self { columns, draw, held_out_share, train, held_out, validation, undivided, part_bytes })
    }

    /// The rows of each training file that are not held out, or those of its first part.
    pub fn train(&self) -> impl Iterator<Item = &Table> {
        self.train.iter().map(|(file, _)| &file.first)
    }

    /// The same of what is held out.
    pub fn held_out(&self) -> impl Iterator<Item = &Table> {
        self.held_out.iter().map(|file| &file.first)
    }

    /// The same of what is held out, and of the file of rows to validate on.
    pub fn aside(&self) -> impl Iterator<Item = &Table> {
        self.held_out.iter().chain(&self.validation).map(|file| &file.first)
    }

    /// All rows that train, and all that are held out, as tables.
    ///
    /// # Errors
    /// [`Error::Data`] naming a file that is too large to be one.
    pub fn into_tables(self) -> Result<[Vec<Table>; 2]> {
        let table = |file: Opened| match file.large {
            None => Ok(file.first),
            Some(_) => {
                Err(Error::data(&file.first.path, None, "is too large to be held in memory; KILN_CACHE_ABOVE_MIB says from what size"))
            }
        };
        let train = self.train.into_iter().map(|(file, _)| table(file)).collect::<Result<_>>()?;
        Ok([train, self.held_out.into_iter().map(table).collect::<Result<_>>()?])
    }

    /// What `gather` has made of all parts of the training files, with what is held out of them, starting from the default. `settings` name it
    /// and say what it depends on beside the rows.
    ///
    /// # Errors
    /// Those of `gather`.
    pub fn gathered<T: Default + Serialize + DeserializeOwned>(
        &self,
        settings: &impl Serialize,
        mut gather: impl FnMut(&mut T, &Table) -> Result<()>,
    ) -> Result<T> {
        let train = || self.train.iter().map(|(file, _)| file);
        let mut all = || {
            let mut gathered = T::default();
            for Opened { first, large, .. } in train() {
                match large {
                    None => gather(&mut gathered, first)?,
                    Some(_) => each_part(&first.path, self.columns, self.part_bytes, &mut |part| gather(&mut gathered, &part))?,
                }
            }
            let shares = self.held_out.iter().filter(|file| file.is_share && file.large.is_none());
            shares.map(|file| &file.first).try_for_each(|table| gather(&mut gathered, table))?;
            Ok(gathered)
        };
        if train().all(|file| file.large.is_none()) {
            return all();
        }
        let of = |file: &Opened| file.large.as_ref().map_or_else(|| sha256(&file.first.path), |large| Ok(large.sha256.clone()));
        let files = train().map(of).collect::<Result<Vec<_>>>()?;
        Cache::find()?.value(&key(&(settings, self.columns, files)), all)
    }

    /// The rows that `read` makes of the files, as [`Self::read_train`] and [`Self::read_held_out`].
    ///
    /// # Errors
    /// As these.
    pub fn rows<R: Stored>(&self, limit: Limit, settings: Settings<'_>, mut read: impl FnMut(&Table) -> Read<R>) -> Result<Rows<R>> {
        let training = self.read_train(limit, settings, &mut read)?;
        Ok(Rows::new(training, self.read_held_out(limit, settings, read)?, Vec::new()))
    }

    /// The rows that `read` makes of what trains and of what validates: of each file as a whole, or of its parts one after the other. Those of
    /// large files are kept on disk under what they depend on: the file, which of its rows train, and the `settings`, which are all that `read`
    /// looks at.
    ///
    /// # Errors
    /// Those of `read`; if no row of a file is left; if the cache cannot be written.
    pub fn read_train<R: Stored>(
        &self,
        limit: Limit,
        settings: Settings<'_>,
        mut read: impl FnMut(&Table) -> Read<R>,
    ) -> Result<Training<R>> {
        let mut training = self.read_train_only(limit, settings, &mut read)?;
        if let Some(file) = &self.validation {
            let mut reading = Reading { files: self, limit, settings, read: &mut read };
            (training.validation, training.validation_counts) = reading.whole(file)?;
        }
        Ok(training)
    }

    /// The same but for the file of rows to validate on.
    ///
    /// # Errors
    /// As [`Self::read_train`].
    pub fn read_train_only<R: Stored>(
        &self,
        limit: Limit,
        settings: Settings<'_>,
        mut read: impl FnMut(&Table) -> Read<R>,
    ) -> Result<Training<R>> {
        self.undivided.as_deref().map_or(Ok(()), |path| check_divisible(path, 1))?;
        let mut reading = Reading { files: self, limit, settings, read: &mut read };
        let mut training =
            Training { rows: Store::default(), validation: Vec::new(), files: Vec::new(), validation_counts: Counts::default() };
        for (Opened { first, large, .. }, weight) in &self.train {
            let Some(large) = large else {
                let ([rows, validation], counts) = divided(first, self.draw, limit, reading.read)?;
                training.rows.push_rows(rows, *weight);
                training.validation.extend(validation);
                training.files.push(counts);
                continue;
            };
            let rows = reading.on_disk(first, large, Some(Side::Train))?;
            let mut counts = rows.counts;
            training.rows.push_disk(rows, *weight);
            if self.draw.validation_share > 0.0 {
                let (validation, counts_of_validation) = reading.on_disk(first, large, Some(Side::Validation))?.into_memory()?;
                training.validation.extend(validation);
                counts.add(&counts_of_validation);
            }
            training.files.push(counts);
        }
        Ok(training)
    }

    /// The same of what is held out, in memory.
    ///
    /// # Errors
    /// As [`Self::read_train`].
    pub fn read_held_out<R: Stored>(
        &self,
        limit: Limit,
        settings: Settings<'_>,
        mut read: impl FnMut(&Table) -> Read<R>,
    ) -> Result<(Vec<R>, Counts)> {
        let mut reading = Reading { files: self, limit, settings, read: &mut read };
        let (mut rows, mut counts) = (Vec::new(), Counts::default());
        for file in &self.held_out {
            let (of_file, counts_of_file) = reading.whole(file)?;
            rows.extend(of_file);
            counts.add(&counts_of_file);
        }
        Ok((rows, counts))
    }
}

impl Opened {
    fn new(path: &Path, columns: &[String], most_bytes: usize) -> Result<Self> {
        let is_large = std::fs::metadata(path).is_ok_and(|file| file.len() > most_bytes as u64);
        let (mut first, is_whole) = first_part(path, columns, if is_large { PART_BYTES.min(most_bytes) } else { most_bytes })?;
        if is_whole && !is_large {
            return Ok(Self { first, large: None, is_share: false });
        }
        let sha256 = sha256(path)?;
        let count = || {
            let mut found = Found { columns: Vec::new(), n_rows: 0 };
            each_part(path, columns, PART_BYTES, &mut |part| {
                found.n_rows += part.rows.len();
                found.columns = part.columns;
                Ok(())
            })?;
            Ok(found)
        };
        let found: Found = Cache::find()?.value(&key(&("rows", &sha256, columns)), count)?;
        // Later rows may have more of them.
        first.columns = found.columns;
        let large = Large { sha256, n_rows: found.n_rows, keys: OnceCell::new() };
        Ok(Self { first, large: Some(Rc::new(large)), is_share: false })
    }

    fn n_rows(&self) -> usize {
        self.large.as_ref().map_or(self.first.rows.len(), |large| large.n_rows)
    }

    /// What is not held out, and the share that is.
    fn divided(self, held_out_share: f64, draw: Draw<'_>) -> [Self; 2] {
        let tables = match &self.large {
            None => drawn(&self.first, held_out_share, draw),
            Some(_) => [self.first.clone(), self.first],
        };
        tables.map(|first| Self { first, large: self.large.clone(), is_share: true })
    }
}

/// How files become rows.
struct Reading<'a, R> {
    files: &'a Files<'a>,
    limit: Limit,
    settings: Settings<'a>,
    read: &'a mut ReadTable<'a, R>,
}

/// Says what rows depend on beside their file, if that has to be known.
pub type Settings<'a> = &'a dyn Fn() -> Result<Value>;

/// The rows made of a table, and what became of its own.
pub type Read<R> = Result<(Vec<R>, Counts)>;

impl<R: Stored> Reading<'_, R> {
    /// The rows of a held-out share, or of a file that is not divided.
    fn whole(&mut self, Opened { first, large, is_share }: &Opened) -> Read<R> {
        match large {
            None => checked(first, self.limit, self.read),
            Some(large) => self.on_disk(first, large, is_share.then_some(Side::HeldOut))?.into_memory(),
        }
    }

    /// The keys of all rows of the file that `first` is the first part of.
    fn keys<'l>(&self, first: &Table, large: &'l Large) -> Result<&'l [u64]> {
        if let Some(keys) = large.keys.get() {
            return Ok(keys);
        }
        let mut all = Vec::with_capacity(large.n_rows);
        each_part(&first.path, self.files.columns, self.files.part_bytes, &mut |mut table| {
            table.columns.clone_from(&first.columns);
            all.extend(keys(&table, self.files.draw.texts, all.len()));
            Ok(())
        })?;
        Ok(large.keys.get_or_init(|| all))
    }

    /// The rows of one side of the file that `first` is the first part of, or all of them, from the cache or put into it.
    fn on_disk(&mut self, first: &Table, large: &Large, side: Option<Side>) -> Result<Disk<R>> {
        let path = &first.path;
        let cache = Cache::find()?;
        let &Files { columns, draw, held_out_share, part_bytes, .. } = self.files;
        let Draw { seed, validation_share, texts } = draw;
        let drawn = side.map(|side| (side, held_out_share, validation_share, seed, texts.of(first)));
        let depends = ("tokens", env!("CARGO_PKG_VERSION"), &large.sha256, columns, drawn, (self.settings)()?);
        let entry = cache.path(&key(&depends), "rows");
        if let Some(disk) = Disk::open(&entry) {
            return Ok(disk);
        }
        // Of running text the blocks of what is not held out are divided, part by part.
        let is_text = first.is_running_text();
        let blocks_of = side.filter(|&side| is_text && validation_share > 0.0 && side != Side::HeldOut);
        let lines = match side {
            None => None,
            Some(side) => {
                let sides = sides(held_out_share, self.keys(first, large)?, is_text, draw);
                Some((sides, if blocks_of.is_some() { Side::Train } else { side }))
            }
        };
        eprintln!("{}: {} rows become tokens in {}, once", path.display(), large.n_rows, cache.folder().display());
        cache.write(&entry, |temporary| {
            let failed = |source| Error::io(&entry, source);
            let mut writer = Writer::new(temporary).map_err(failed)?;
            let (mut n_rows, mut n_parts) = (0, 0);
            each_part(path, columns, part_bytes, &mut |mut table| {
                // Those of the whole file, so that all parts have one layout.
                table.columns.clone_from(&first.columns);
                table.rows.retain(|_| {
                    n_rows += 1;
                    lines.as_ref().is_none_or(|(sides, side)| sides[n_rows - 1] == *side)
                });
                if table.rows.is_empty() {
                    return Ok(());
                }
                let (mut rows, mut counts) = (self.read)(&table)?;
                if let Some(side) = blocks_of {
                    let [train, validation] = blocks(rows, validation_share, seed.wrapping_add(n_parts));
                    n_parts += 1;
                    // The lines count once, with what trains.
                    (rows, counts) = if side == Side::Train { (train, counts) } else { (validation, Counts::default()) };
                }
                writer.push(&rows, &counts).map_err(failed)
            })?;
            if blocks_of.is_none() {
                self.limit.check_left(path, writer.counts())?;
            }
            writer.finish().map_err(failed)
        })?;
        Disk::open(&entry).ok_or_else(|| Error::io(&entry, std::io::Error::other("cannot be read back: is the disk full?")))
    }
}

/// What is kept in the cache for all that `of` says.
fn key(of: &impl Serialize) -> String {
    sha256_of(&serde_json::to_vec(of).expect("settings are JSON"))
}
