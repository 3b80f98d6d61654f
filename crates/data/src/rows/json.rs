//! JSON objects: one per line, or in an array.

use super::described;
use super::lines::each_line;
use super::parts::Parts;
use kiln_core::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use std::cell::Cell;
use std::fmt;
use std::io::{BufRead, Read};
use std::path::Path;

/// An object per line.
pub(super) fn read_lines(reader: &mut dyn BufRead, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    each_line(reader, path, |line, text| {
        if text.trim().is_empty() {
            return Ok(());
        }
        let value = serde_json::from_str(text).map_err(|error| {
            let message = match text.trim() {
                "{" => "an object over several lines: expected one object per line, or in a .json file an array of objects".to_owned(),
                _ => format!("not valid JSON at column {}: {}; expected one object per line", error.column(), what(&error)),
            };
            Error::data(path, Some(line), message)
        })?;
        push(value, line, text.len(), path, parts)
    })
}

/// An array of objects, or an object per line.
pub(super) fn read(reader: &mut dyn BufRead, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    let start = reader.fill_buf().map_err(|source| Error::io(path, source))?;
    let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start);
    if start.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        return read_lines(reader, path, parts);
    }
    if reader.fill_buf().is_ok_and(|bytes| bytes.starts_with("\u{feff}".as_bytes())) {
        reader.consume(3);
    }
    let (line, n_bytes) = (Cell::new(1), Cell::new(0));
    let counted = Counted { inner: reader, line: &line, n_bytes: &n_bytes };
    let mut deserializer = serde_json::Deserializer::from_reader(counted);
    let mut refusal = None;
    let rows = Rows { line: &line, n_bytes: &n_bytes, path, parts, refusal: &mut refusal };
    let outcome = deserializer.deserialize_seq(rows).and_then(|()| deserializer.end());
    match (refusal, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) if error.is_io() => Err(Error::io(path, error.into())),
        (None, Err(error)) => {
            let message = format!("not valid JSON at column {}: {}; expected an array of objects", error.column(), what(&error));
            Err(Error::data(path, Some(error.line()), message))
        }
    }
}

fn what(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

fn push(value: Value, line: usize, n_bytes: usize, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    let Value::Object(object) = value else {
        let message = format!("expected a JSON object such as {{\"text\": \"...\"}}, found {}", described(&value));
        return Err(Error::data(path, Some(line), message));
    };
    object.keys().for_each(|column| parts.add_column(column));
    parts.push(line, object.into_iter().collect(), n_bytes)
}

/// The elements of an array, one after the other: the array is never in memory as a whole.
struct Rows<'a, 'p> {
    line: &'a Cell<usize>,
    n_bytes: &'a Cell<usize>,
    path: &'a Path,
    parts: &'a mut Parts<'p>,
    refusal: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> std::result::Result<(), A::Error> {
        while let Some((line, value)) = elements.next_element_seed(Element(self.line))? {
            if let Err(error) = push(value, line, self.n_bytes.replace(0), self.path, self.parts) {
                *self.refusal = Some(error);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// An element and the line it starts on.
struct Element<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = (usize, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        // Up to here the reader has handed out the element's first byte and no more.
        let line = self.0.get();
        serde::Deserialize::deserialize(deserializer).map(|value| (line, value))
    }
}

/// Counts lines and bytes on their way.
struct Counted<'a> {
    inner: &'a mut dyn BufRead,
    line: &'a Cell<usize>,
    n_bytes: &'a Cell<usize>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(out)?;
        self.n_bytes.set(self.n_bytes.get() + n);
        self.line.set(self.line.get() + out[..n].iter().filter(|&&byte| byte == b'\n').count());
        Ok(n)
    }
}
