//! Lines of text, and files of a text per line.

use super::parts::Parts;
use kiln_core::{Error, Result};
use std::io::BufRead;
use std::path::Path;

/// Rows of one text each, in a column named `text`.
pub(super) fn read(reader: &mut dyn BufRead, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    parts.add_column("text");
    each_line(reader, path, |line, text| {
        if text.trim().is_empty() {
            return Ok(());
        }
        parts.push(line, [("text".to_owned(), text.into())].into(), text.len())
    })
}

/// Calls `row` with the number and text of every line, without its line end.
pub(super) fn each_line(reader: &mut dyn BufRead, path: &Path, mut row: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(|source| Error::io(path, source))? == 0 {
            break;
        }
        let text = utf8(path, line, &bytes)?.trim_end_matches(['\n', '\r']);
        let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
        row(line, text)?;
    }
    Ok(())
}

pub(super) fn utf8<'a>(path: &Path, line: usize, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes[error.valid_up_to()];
        Error::data(path, Some(line), format!("not UTF-8 (byte {byte:#04x}): save the file in UTF-8"))
    })
}
