//! The files of a run: small ones as tables in memory; of large ones, which are read part by part, the tokens are kept on disk.

use super::alike::keys;
use super::sides::{ReadTable, Side, blocks, checked, divided, separate, sides};
use super::{DataConfig, Draw, Rows};
use crate::examples::{Counts, Limit};
use crate::rows::{Table, each_part, first_part};
use crate::store::Stored;
use crate::store::cache::Cache;
use crate::store::disk::{Disk, Writer};
use kiln_core::files::{sha256, sha256_of};
use kiln_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::OnceCell;
use std::path::Path;

/// A file with more bytes of text is not read as a whole.
const MOST_BYTES_IN_MEMORY: usize = 64 << 20;
/// Bytes of a part of a file: enough for all cores to have texts to tokenise, little beside a model.
const PART_BYTES: usize = 2 << 20;

/// The files of a run, opened.
#[derive(Debug)]
pub struct Files<'a> {
    data: &'a DataConfig,
    columns: &'a [String],
    /// In the order of the configuration.
    train: Vec<Opened>,
    held_out: Option<Opened>,
    validation: Option<Opened>,
    part_bytes: usize,
}

/// A file of rows.
#[derive(Debug)]
struct Opened {
    /// All of it, or the first part.
    first: Table,
    /// What is known of a file that is not read as a whole.
    large: Option<Large>,
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

impl<'a> Files<'a> {
    pub(super) fn open(data: &'a DataConfig, columns: &'a [String]) -> Result<Self> {
        Self::open_within(data, columns, MOST_BYTES_IN_MEMORY)
    }

    /// Files with more than `most_bytes` are large.
    pub(super) fn open_within(data: &'a DataConfig, columns: &'a [String], most_bytes: usize) -> Result<Self> {
        let open = |path: &Path| Opened::new(path, columns, most_bytes);
        let train = data.train.iter().map(|source| open(&source.path)).collect::<Result<_>>()?;
        let [held_out, validation] = [&data.held_out, &data.validation].map(|path| path.as_deref().map(open).transpose());
        Ok(Self { data, columns, train, held_out: held_out?, validation: validation?, part_bytes: PART_BYTES.min(most_bytes) })
    }

    /// All rows of each training file, or those of its first part.
    pub fn train(&self) -> impl Iterator<Item = &Table> {
        self.train.iter().map(|file| &file.first)
    }

    /// The same of the files of held-out rows and of rows to validate on, where there are such.
    pub fn aside(&self) -> impl Iterator<Item = &Table> {
        self.held_out.iter().chain(&self.validation).map(|file| &file.first)
    }

    /// What `gather` has made of all parts of the training files, starting from the default. `settings` name it and say what it depends on
    /// beside the rows.
    ///
    /// # Errors
    /// Those of `gather`.
    pub fn gathered<T: Default + Serialize + DeserializeOwned>(
        &self,
        settings: &impl Serialize,
        mut gather: impl FnMut(&mut T, &Table) -> Result<()>,
    ) -> Result<T> {
        let mut all = || {
            let mut gathered = T::default();
            for Opened { first, large } in &self.train {
                match large {
                    None => gather(&mut gathered, first)?,
                    Some(_) => each_part(&first.path, self.columns, self.part_bytes, &mut |part| gather(&mut gathered, &part))?,
                }
            }
            Ok(gathered)
        };
        if self.train.iter().all(|file| file.large.is_none()) {
            return all();
        }
        let of = |file: &Opened| file.large.as_ref().map_or_else(|| sha256(&file.first.path), |large| Ok(large.sha256.clone()));
        let files = self.train.iter().map(of).collect::<Result<Vec<_>>>()?;
        Cache::find()?.value(&key(&(settings, self.columns, files)), all)
    }

    /// The rows that `read` makes of the files: of each as a whole, or of its parts one after the other. Those of large files are kept on disk
    /// under what they depend on: the file, which of its rows train, and the `settings`, which are all that `read` looks at.
    ///
    /// # Errors
    /// Those of `read`; if none is left; if the cache cannot be written.
    pub fn rows<R: Stored + Clone>(
        self,
        draw: Draw<'_>,
        limit: Limit,
        settings: &dyn Fn() -> Result<Value>,
        mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>,
    ) -> Result<Rows<R>> {
        let mut rows = Rows::default();
        let Self { data, columns, part_bytes, .. } = self;
        let mut reading = Reading { data, columns, part_bytes, draw, limit, settings, read: &mut read };
        let held_out_share = data.held_out.is_none().then_some(data.held_out_share);
        for (Opened { first, large }, source) in self.train.into_iter().zip(data.train.iter()) {
            let Some(large) = large else {
                let (train, held_out) = match held_out_share {
                    None => (first, None),
                    Some(share) => separate(&first, share, draw).map(|[train, held_out]| (train, Some(held_out)))?,
                };
                let ([of_table, validation], counts) = divided(&train, draw, limit, reading.read)?;
                rows.counts[0].add(&counts);
                rows.train.push_rows(of_table, source.weight);
                rows.validation.extend(validation);
                if let Some(held_out) = held_out {
                    rows.add_held_out(checked(&held_out, limit, reading.read)?);
                }
                continue;
            };
            let train = reading.on_disk(&first, &large, Some(Side::Train))?;
            rows.counts[0].add(&train.counts);
            rows.train.push_disk(train, source.weight);
            if draw.validation_share > 0.0 {
                let (validation, counts) = reading.on_disk(&first, &large, Some(Side::Validation))?.into_memory()?;
                rows.counts[0].add(&counts);
                rows.validation.extend(validation);
            }
            if held_out_share.is_some() {
                rows.add_held_out(reading.on_disk(&first, &large, Some(Side::HeldOut))?.into_memory()?);
            }
        }
        let mut whole = |Opened { first, large }: Opened| match large {
            None => checked(&first, limit, reading.read),
            Some(large) => reading.on_disk(&first, &large, None)?.into_memory(),
        };
        if let Some(file) = self.held_out {
            rows.add_held_out(whole(file)?);
        }
        if let Some(file) = self.validation {
            (rows.validation, rows.counts[2]) = whole(file)?;
        }
        Ok(rows)
    }
}

impl<R> Rows<R> {
    fn add_held_out(&mut self, (rows, counts): (Vec<R>, Counts)) {
        self.held_out.extend(rows);
        self.counts[1].add(&counts);
    }
}

impl Opened {
    fn new(path: &Path, columns: &[String], most_bytes: usize) -> Result<Self> {
        let is_large = std::fs::metadata(path).is_ok_and(|file| file.len() > most_bytes as u64);
        let (mut first, is_whole) = first_part(path, columns, if is_large { PART_BYTES.min(most_bytes) } else { most_bytes })?;
        if is_whole {
            return Ok(Self { first, large: None });
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
        Ok(Self { first, large: Some(Large { sha256, n_rows: found.n_rows, keys: OnceCell::new() }) })
    }
}

/// How files become rows.
struct Reading<'a, R> {
    data: &'a DataConfig,
    columns: &'a [String],
    part_bytes: usize,
    draw: Draw<'a>,
    limit: Limit,
    settings: &'a dyn Fn() -> Result<Value>,
    read: &'a mut ReadTable<'a, R>,
}

impl<R: Stored> Reading<'_, R> {
    /// The keys of all rows of the file that `first` is the first part of.
    fn keys<'l>(&self, first: &Table, large: &'l Large) -> Result<&'l [u64]> {
        if let Some(keys) = large.keys.get() {
            return Ok(keys);
        }
        let mut all = Vec::with_capacity(large.n_rows);
        each_part(&first.path, self.columns, self.part_bytes, &mut |mut table| {
            table.columns.clone_from(&first.columns);
            all.extend(keys(&table, self.draw.texts, all.len()));
            Ok(())
        })?;
        Ok(large.keys.get_or_init(|| all))
    }

    /// The rows of one side of the file that `first` is the first part of, or all of them, from the cache or put into it.
    fn on_disk(&mut self, first: &Table, large: &Large, side: Option<Side>) -> Result<Disk<R>> {
        let path = &first.path;
        let cache = Cache::find()?;
        let Draw { seed, validation_share, texts } = self.draw;
        let held_out_share = self.data.held_out.is_none().then_some(self.data.held_out_share);
        let drawn = side.map(|side| (side, held_out_share, validation_share, seed, texts.of(first)));
        let depends = ("tokens", env!("CARGO_PKG_VERSION"), &large.sha256, self.columns, drawn, (self.settings)()?);
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
                let sides = sides(self.data, path, self.keys(first, large)?, is_text, self.draw)?;
                Some((sides, if blocks_of.is_some() { Side::Train } else { side }))
            }
        };
        eprintln!("{}: {} rows become tokens in {}, once", path.display(), large.n_rows, cache.folder().display());
        cache.write(&entry, |temporary| {
            let failed = |source| Error::io(&entry, source);
            let mut writer = Writer::new(temporary).map_err(failed)?;
            let (mut n_rows, mut n_parts) = (0, 0);
            each_part(path, self.columns, self.part_bytes, &mut |mut table| {
                // Those of the whole file, so that all parts have one layout.
                table.columns.clone_from(&first.columns);
                table.rows.retain(|_| {
                    n_rows += 1;
                    lines.as_ref().is_none_or(|(sides, side)| sides[n_rows - 1] == *side)
                });
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
