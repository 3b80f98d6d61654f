//! The rows of a file part by part, so that files larger than memory can be read.

use super::{Format, Row, Table};
use kiln_core::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Reads a file as [`Table::read`] does and calls `visit` with its rows in order, in tables of about `max_bytes` of it. The columns of a part
/// are those met so far.
///
/// # Errors
/// As [`Table::read`], and those of `visit`.
pub fn each_part(path: &Path, columns: &[String], max_bytes: usize, visit: &mut dyn FnMut(Table) -> Result<()>) -> Result<()> {
    let part = Table { path: path.to_owned(), columns: columns.to_vec(), rows: Vec::new() };
    let mut parts = Parts { known: columns.iter().cloned().collect(), part, n_bytes: 0, n_parts: 0, max_bytes, visit };
    Format::read(path, &mut parts)?;
    if parts.part.rows.is_empty() && parts.n_parts == 0 {
        return Err(Error::data(path, None, "the file holds no rows: write at least one, or check the path"));
    }
    parts.hand_over()
}

/// The first part of a file, and whether it is all of it.
///
/// # Errors
/// As [`Table::read`], of that part.
pub fn first_part(path: &Path, columns: &[String], max_bytes: usize) -> Result<(Table, bool)> {
    let (mut first, mut is_whole) = (None, true);
    let outcome = each_part(path, columns, max_bytes, &mut |part| match first {
        None => {
            first = Some(part);
            Ok(())
        }
        Some(_) => {
            is_whole = false;
            Err(Error::data(path, None, "read no further"))
        }
    });
    match (first, outcome) {
        (Some(first), Ok(())) => Ok((first, true)),
        (Some(first), Err(_)) if !is_whole => Ok((first, false)),
        (_, Err(error)) => Err(error),
        (None, Ok(())) => unreachable!("a file without rows is refused"),
    }
}

/// What the formats' readers hand their rows to.
pub(super) struct Parts<'a> {
    known: BTreeSet<String>,
    part: Table,
    n_bytes: usize,
    n_parts: usize,
    max_bytes: usize,
    visit: &'a mut dyn FnMut(Table) -> Result<()>,
}

impl Parts<'_> {
    /// The columns known so far.
    pub(super) fn columns(&self) -> &[String] {
        &self.part.columns
    }

    /// Makes a column known.
    pub(super) fn add_column(&mut self, name: &str) {
        if !self.known.contains(name) {
            self.known.insert(name.to_owned());
            self.part.columns.push(name.to_owned());
        }
    }

    /// Adds a row that takes `n_bytes` of the file.
    pub(super) fn push(&mut self, line: usize, fields: BTreeMap<String, Value>, n_bytes: usize) -> Result<()> {
        if self.n_bytes.saturating_add(n_bytes) > self.max_bytes && !self.part.rows.is_empty() {
            self.hand_over()?;
        }
        self.n_bytes += n_bytes;
        self.part.rows.push(Row { line, fields });
        Ok(())
    }

    fn hand_over(&mut self) -> Result<()> {
        let next = Table { path: self.part.path.clone(), columns: self.part.columns.clone(), rows: Vec::new() };
        self.n_bytes = 0;
        self.n_parts += 1;
        (self.visit)(std::mem::replace(&mut self.part, next))
    }
}
