//! Fields between commas or tabs.

use super::lines::utf8;
use super::parts::Parts;
use super::quoted;
use kiln_core::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::Path;

/// Rows whose fields `delimiter` separates; the first one names the columns unless they are known.
pub(super) fn read(reader: &mut dyn BufRead, path: &Path, delimiter: u8, parts: &mut Parts<'_>) -> Result<()> {
    let lines = Lines { inner: reader, line: 0, n_quotes: 0, at_start: true };
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter).quoting(delimiter == b',');
    let mut reader = builder.from_reader(lines);
    let mut record = csv::ByteRecord::new();
    loop {
        let n_quotes = reader.get_ref().n_quotes;
        let is_row = reader.read_byte_record(&mut record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::io(path, source),
            other => Error::data(path, Some(reader.get_ref().line), format!("{other:?}")),
        })?;
        if !is_row {
            return Ok(());
        }
        let n_line_ends = record.iter().flatten().filter(|&&byte| byte == b'\n').count();
        let line = (reader.get_ref().line - n_line_ends).max(1);
        if n_line_ends > 0 && (reader.get_ref().n_quotes - n_quotes) % 2 == 1 {
            // The field swallowed the rest of the file, and perhaps a last line end that no line follows.
            let line = line + usize::from(record.iter().next_back().is_some_and(|field| field.ends_with(b"\n")));
            return Err(Error::data(path, Some(line), "a quote opened here is not closed: close it, or write \"\" for a quote inside one"));
        }
        let fields = record.iter().map(|field| utf8(path, line, field)).collect::<Result<Vec<_>>>()?;
        if parts.columns().is_empty() {
            check_distinct(path, line, &fields)?;
            fields.iter().for_each(|column| parts.add_column(column));
            continue;
        }
        let columns = parts.columns();
        if fields.len() != columns.len() {
            let advice = if delimiter == b',' { "put quotes around a field with a comma in it" } else { "a field cannot hold a tab" };
            let (found, expected, names) = (fields.len(), columns.len(), quoted(columns));
            return Err(Error::data(path, Some(line), format!("found {found} fields, expected {expected} ({names}): {advice}")));
        }
        let fields = columns.iter().cloned().zip(fields.into_iter().map(Value::from)).collect();
        parts.push(line, fields, record.as_slice().len())?;
    }
}

fn check_distinct(path: &Path, line: usize, header: &[&str]) -> Result<()> {
    let mut known = BTreeSet::new();
    match header.iter().find(|&&column| !known.insert(column)) {
        Some(twice) => Err(Error::data(path, Some(line), format!("the header names the column {twice:?} twice: rename one"))),
        None => Ok(()),
    }
}

/// Hands out one line per read, so that after every record it is known which line it ended on: the positions of the csv crate
/// do not count blank lines and the second half of `\r\n` in time.
struct Lines<'a> {
    inner: &'a mut dyn BufRead,
    line: usize,
    n_quotes: usize,
    at_start: bool,
}

impl Read for Lines<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buffered = self.inner.fill_buf()?;
        let line_end = buffered.iter().position(|&byte| byte == b'\n').map_or(buffered.len(), |end| end + 1);
        let n = line_end.min(out.len());
        out[..n].copy_from_slice(&buffered[..n]);
        self.inner.consume(n);
        if let Some(&last) = out[..n].last() {
            self.line += usize::from(self.at_start);
            self.n_quotes += out[..n].iter().filter(|&&byte| byte == b'"').count();
            self.at_start = last == b'\n';
        }
        Ok(n)
    }
}
