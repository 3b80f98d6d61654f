//! Rows in a file, one after the other, and where each is.
//!
//! ```text
//! the rows     32-bit words, little-endian
//! the index    for each row the number of its words and of its tokens, 32 bits each
//! the end      JSON: {"counts": ..., "n_rows": ...}; its bytes, the words of all rows, and `kiln-r01`, 8 bytes each
//! ```

use super::Stored;
use crate::examples::Counts;
use kiln_core::files::read_exact_at;
use kiln_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"kiln-r01";
const WORD: u64 = size_of::<u32>() as u64;

#[derive(Serialize, Deserialize)]
struct End {
    counts: Counts,
    n_rows: usize,
}

/// Rows in a file.
#[derive(Debug)]
pub(crate) struct Disk<R> {
    file: Arc<File>,
    path: PathBuf,
    /// The first word of each row, and the end of the last.
    starts: Vec<u64>,
    /// The tokens of each row.
    pub lengths: Vec<u32>,
    /// What became of the rows read.
    pub counts: Counts,
    read: fn(&[u32]) -> Option<R>,
}

impl<R> Clone for Disk<R> {
    fn clone(&self) -> Self {
        let Self { file, path, starts, lengths, counts, read } = self;
        Self { file: file.clone(), path: path.clone(), starts: starts.clone(), lengths: lengths.clone(), counts: *counts, read: *read }
    }
}

impl<R> Disk<R> {
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// All rows, and what became of those they were read from.
    pub(crate) fn into_memory(self) -> Result<(Vec<R>, Counts)> {
        let rows = (0..self.len()).map(|index| self.get(index)).collect::<Result<_>>()?;
        Ok((rows, self.counts))
    }

    /// The row at `index`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read or is damaged.
    pub(crate) fn get(&self, index: usize) -> Result<R> {
        let (start, end) = (self.starts[index], self.starts[index + 1]);
        let mut bytes = vec![0; ((end - start) * WORD) as usize];
        read_exact_at(&self.file, &mut bytes, start * WORD).map_err(|source| Error::io(&self.path, source))?;
        (self.read)(&words(&bytes)).ok_or_else(|| Error::io(&self.path, io::Error::new(io::ErrorKind::InvalidData, DAMAGED)))
    }
}

const DAMAGED: &str = "damaged: remove the file, and it is made anew";

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

impl<R: Stored> Disk<R> {
    /// The rows of a file that a [`Writer`] has finished; `None` if there is no such file or it is none.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let n_bytes = file.metadata().ok()?.len();
        let mut end = [0; 24];
        file.seek(SeekFrom::Start(n_bytes.checked_sub(24)?)).ok()?;
        file.read_exact(&mut end).ok()?;
        let number = |index: usize| u64::from_le_bytes(end[8 * index..8 * (index + 1)].try_into().expect("8 bytes"));
        let (n_end, n_words) = (number(0), number(1));
        let index_start = n_words.checked_mul(WORD)?;
        let index_end = n_bytes.checked_sub(24)?.checked_sub(n_end)?;
        if end[16..] != *MAGIC || index_start > index_end {
            return None;
        }
        let mut rest = vec![0; (n_bytes - 24 - index_start) as usize];
        read_exact_at(&file, &mut rest, index_start).ok()?;
        let (index, told) = rest.split_at((index_end - index_start) as usize);
        let End { counts, n_rows } = serde_json::from_slice(told).ok()?;
        let (entries, []) = index.as_chunks::<8>() else { return None };
        let (mut starts, mut lengths) = (vec![0], Vec::with_capacity(entries.len()));
        for entry in entries {
            let pair = words(entry);
            starts.push(starts.last()? + u64::from(pair[0]));
            lengths.push(pair[1]);
        }
        let fits = entries.len() == n_rows && starts.last() == Some(&n_words);
        fits.then(|| Self { file: Arc::new(file), path: path.to_owned(), starts, lengths, counts, read: R::read })
    }
}

/// Writes rows to a file.
pub(crate) struct Writer {
    file: BufWriter<File>,
    index: Vec<u8>,
    n_words: u64,
    counts: Counts,
    words: Vec<u32>,
}

impl Writer {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { file, index: Vec::new(), n_words: 0, counts: Counts::default(), words: Vec::new() })
    }

    /// Adds rows, and what became of those they were read from.
    pub(crate) fn push<R: Stored>(&mut self, rows: &[R], counts: &Counts) -> io::Result<()> {
        self.counts.add(counts);
        for row in rows {
            self.words.clear();
            row.write(&mut self.words);
            for word in &self.words {
                self.file.write_all(&word.to_le_bytes())?;
            }
            self.n_words += self.words.len() as u64;
            for number in [self.words.len(), row.n_tokens()] {
                self.index.extend_from_slice(&(number as u32).to_le_bytes());
            }
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Makes the file whole.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let end = serde_json::to_vec(&End { counts: self.counts, n_rows: self.index.len() / 8 })?;
        self.file.write_all(&self.index)?;
        self.file.write_all(&end)?;
        for number in [end.len() as u64, self.n_words] {
            self.file.write_all(&number.to_le_bytes())?;
        }
        self.file.write_all(MAGIC)?;
        self.file.flush()
    }
}
