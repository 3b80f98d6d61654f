//! The training rows of a run by their index: in memory, or on disk where a file is too large for that; and in which order they come.

pub(crate) mod cache;
pub(crate) mod disk;
pub mod encode;

use crate::split::shuffled;
use disk::Disk;
use kiln_core::Result;
use std::borrow::Cow;
use std::ops::Range;

/// A row that is a token sequence, or several.
pub trait Sequence {
    /// Its tokens.
    fn n_tokens(&self) -> usize;
}

/// A row that can be kept on disk.
pub trait Stored: Sequence + Sized {
    /// Appends it to `words`.
    fn write(&self, words: &mut Vec<u32>);

    /// The row that these words were written for; `None` if they are damaged.
    fn read(words: &[u32]) -> Option<Self>;
}

/// Rows by their index.
#[derive(Clone, Debug)]
pub struct Store<R> {
    parts: Vec<Part<R>>,
}

/// The rows of one file.
#[derive(Clone, Debug)]
struct Part<R> {
    rows: Place<R>,
    /// Of each row, in tokens.
    lengths: Vec<u32>,
    /// The index of its first row.
    start: usize,
    weight: f64,
}

#[derive(Clone, Debug)]
enum Place<R> {
    Memory(Vec<R>),
    Disk(Disk<R>),
}

impl<R> Default for Store<R> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<R: Sequence> From<Vec<R>> for Store<R> {
    fn from(rows: Vec<R>) -> Self {
        let mut store = Self::default();
        store.push_rows(rows, 1.0);
        store
    }
}

impl<R: Sequence> Store<R> {
    /// Adds the rows of a file, in memory. An epoch sees each `weight` times.
    pub fn push_rows(&mut self, rows: Vec<R>, weight: f64) {
        let lengths = rows.iter().map(|row| row.n_tokens() as u32).collect();
        self.parts.push(Part { rows: Place::Memory(rows), lengths, start: self.len(), weight });
    }
}

impl<R> Store<R> {
    /// The same of rows on disk.
    pub(crate) fn push_disk(&mut self, mut disk: Disk<R>, weight: f64) {
        let lengths = std::mem::take(&mut disk.lengths);
        self.parts.push(Part { rows: Place::Disk(disk), lengths, start: self.len(), weight });
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.parts.last().map_or(0, |part| part.start + part.lengths.len())
    }

    /// How many rows epochs may see: those of weight 0 are only there to be asked for, and come last.
    pub fn n_seen(&self) -> usize {
        self.parts.iter().filter(|part| part.weight > 0.0).map(|part| part.lengths.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of each file.
    pub fn files(&self) -> Vec<Range<usize>> {
        self.parts.iter().map(|part| part.start..part.start + part.lengths.len()).collect()
    }

    /// How many rows an epoch sees.
    pub fn epoch_len(&self) -> usize {
        self.parts.iter().map(|part| part.n_whole() + part.n_more()).sum()
    }

    /// The tokens of each row.
    pub fn lengths(&self) -> Vec<usize> {
        self.parts.iter().flat_map(|part| &part.lengths).map(|&length| length as usize).collect()
    }

    /// The rows that an epoch sees, those of weight 1 once, in the order of the files.
    ///
    /// Of a file with n rows and weight w each row comes ⌊w⌋ times, and round(n·(w - ⌊w⌋)) of them once more: the next ones of a fixed
    /// order of `seed`, which goes on from epoch to epoch.
    pub fn epoch(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut rows = Vec::with_capacity(self.epoch_len());
        for part @ Part { lengths, start, weight, .. } in &self.parts {
            let n = lengths.len();
            (0..*weight as usize).for_each(|_| rows.extend(*start..start + n));
            let n_more = part.n_more();
            if n_more > 0 {
                let order = crate::split::order(n, seed.wrapping_add(*start as u64));
                let first = (u128::from(epoch) * n_more as u128 % n as u128) as usize;
                rows.extend(order.iter().cycle().skip(first).take(n_more).map(|row| start + row));
            }
        }
        rows
    }

    /// The same, shuffled by `seed` and `epoch`: of rows that all have weight 1 it is the order of [`crate::split::order`].
    pub fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        shuffled(self.epoch(seed, epoch), seed.wrapping_add(epoch))
    }
}

impl<R> Part<R> {
    /// Rows that an epoch sees as often as every other.
    fn n_whole(&self) -> usize {
        self.lengths.len() * self.weight as usize
    }

    /// And those that it sees once more.
    fn n_more(&self) -> usize {
        (self.lengths.len() as f64 * self.weight.fract()).round() as usize
    }
}

impl<R: Clone> Store<R> {
    /// The row at `index`.
    ///
    /// # Errors
    /// If it is on disk and cannot be read.
    pub fn get(&self, index: usize) -> Result<Cow<'_, R>> {
        let part = &self.parts[self.parts.partition_point(|part| part.start <= index) - 1];
        match &part.rows {
            Place::Memory(rows) => Ok(Cow::Borrowed(&rows[index - part.start])),
            Place::Disk(disk) => disk.get(index - part.start).map(Cow::Owned),
        }
    }

    /// What `of` finds in each row, in order.
    ///
    /// # Errors
    /// If one on disk cannot be read.
    pub fn each<T>(&self, mut of: impl FnMut(&R) -> T) -> Result<Vec<T>> {
        (0..self.len()).map(|index| Ok(of(&*self.get(index)?))).collect()
    }

    /// The rows at `indices`, those in memory as they stand there.
    ///
    /// # Errors
    /// If one on disk cannot be read.
    pub fn pick(&self, indices: &[usize]) -> Result<Vec<Cow<'_, R>>> {
        indices.iter().map(|&index| self.get(index)).collect()
    }
}
