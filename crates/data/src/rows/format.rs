//! The formats of data files, by their extensions.

use super::parts::Parts;
use super::{conll, json, lines, parquet, separated};
use flate2::bufread::MultiGzDecoder;
use kiln_core::{Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// What a data file looks like inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object per line.
    JsonLines,
    /// A JSON array of objects, or an object per line.
    Json,
    /// Fields between commas.
    Csv,
    /// Fields between tabs.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// A text per line.
    Text,
    /// A token and its tag per line.
    Conll,
}

const EXTENSIONS: &[(&str, Format)] = &[
    ("jsonl", Format::JsonLines),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("parquet", Format::Parquet),
    ("txt", Format::Text),
    ("conll", Format::Conll),
];

impl Format {
    /// That of a file with this name, if its extension, or the one before `.gz`, is known.
    pub fn of(path: &Path) -> Option<Self> {
        let plain = if is_compressed(path) { Path::new(path.file_stem()?) } else { path };
        let extension = plain.extension()?.to_str()?.to_lowercase();
        EXTENSIONS.iter().find(|(known, _)| *known == extension).map(|(_, format)| *format)
    }

    /// Reads the rows of the file at `path`.
    pub(super) fn read(path: &Path, parts: &mut Parts<'_>) -> Result<()> {
        let Some(format) = Self::of(path) else {
            let found = path.extension().and_then(OsStr::to_str).unwrap_or_default();
            let (last, known) = EXTENSIONS.split_last().expect("formats");
            let known = known.iter().map(|(extension, _)| format!(".{extension}")).collect::<Vec<_>>().join(", ");
            let message = format!("unknown extension {found:?}: expected {known} or .{}, perhaps with .gz behind", last.0);
            return Err(Error::data(path, None, message));
        };
        if !parts.columns().is_empty() && !matches!(format, Self::Csv | Self::Tsv) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let message = format!("columns can only be named for a .csv or .tsv file, not for {name}: leave them out");
            return Err(Error::data(path, None, message));
        }
        let file = File::open(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::data(path, None, "there is no such file: check the path"),
            _ => Error::io(path, source),
        })?;
        if format == Self::Parquet {
            if is_compressed(path) {
                return Err(Error::data(path, None, "a .parquet file compresses its own columns: unpack it"));
            }
            return parquet::read(file, path, parts);
        }
        let file = BufReader::with_capacity(1 << 18, file);
        let mut reader: Box<dyn BufRead> =
            if is_compressed(path) { Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file))) } else { Box::new(file) };
        let outcome = match format {
            Self::JsonLines => json::read_lines(&mut reader, path, parts),
            Self::Json => json::read(&mut reader, path, parts),
            Self::Csv => separated::read(&mut reader, path, b',', parts),
            Self::Tsv => separated::read(&mut reader, path, b'\t', parts),
            Self::Text => lines::read(&mut reader, path, parts),
            Self::Conll => conll::read(&mut reader, path, parts),
            Self::Parquet => unreachable!("read above"),
        };
        outcome.map_err(|error| match error {
            Error::Io { source, .. } if is_compressed(path) => Error::data(path, None, format!("cannot be unpacked: {source}")),
            error => error,
        })
    }
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}
