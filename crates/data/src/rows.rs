//! Rows of named fields, read from `.jsonl`, `.json`, `.csv`, `.tsv`, `.txt` and `.conll` files.

mod conll;
#[cfg(test)]
mod tests;

use kiln_core::files::write_atomic;
use kiln_core::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// One row of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// Its fields by column.
    pub fields: BTreeMap<String, Value>,
}

/// The rows of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// The names of the columns, in the order of the file.
    pub columns: Vec<String>,
    /// The rows, in the order of the file; there is at least one.
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads a file in the format its extension names:
    ///
    /// | extension | rows |
    /// |---|---|
    /// | `.jsonl`, `.json` | a JSON object per line |
    /// | `.csv` | comma-separated, fields may be quoted with `"` |
    /// | `.tsv` | tab-separated, quotes mean nothing |
    /// | `.txt` | a text per line, in a column named `text` |
    /// | `.conll` | a token and its tag per line, a blank line after each sentence, in columns named `tokens` and `tags` |
    ///
    /// The first row of a `.csv` or `.tsv` file names the columns, unless `columns` does. Blank lines are no rows. Files are
    /// UTF-8, with or without a byte order mark.
    ///
    /// # Errors
    /// One line with the path and, where there is one, the line: a file that is missing, unreadable, not UTF-8, without rows, or
    /// of an unknown extension; a line that is not a JSON object; a row with too few or too many fields; an unclosed quote.
    pub fn read(path: &Path, columns: &[String]) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
        let mut table = Self { path: path.to_owned(), columns: columns.to_vec(), rows: Vec::new() };
        match extension.as_str() {
            "csv" => table.read_separated(b',')?,
            "tsv" => table.read_separated(b'\t')?,
            "jsonl" | "json" | "txt" | "conll" if !columns.is_empty() => {
                let message = format!("columns can only be named for a .csv or .tsv file, not for .{extension}: leave them out");
                return Err(Error::data(path, None, message));
            }
            "jsonl" | "json" => table.read_json_lines()?,
            "txt" => table.read_text_lines()?,
            "conll" => table.read_conll()?,
            _ => {
                let message = format!("unknown extension {extension:?}: expected .jsonl, .json, .csv, .tsv, .txt or .conll");
                return Err(Error::data(path, None, message));
            }
        }
        if table.rows.is_empty() {
            return Err(Error::data(path, None, "the file holds no rows: write at least one, or check the path"));
        }
        Ok(table)
    }

    /// Whether it is running text, whose rows are lines of one text.
    pub fn is_running_text(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "txt")
    }

    /// Checks that the columns of a fixed layout exist, so that a wrong file is reported before any work is done.
    ///
    /// # Errors
    /// Naming the first unknown column and those that exist.
    pub fn require(&self, columns: &[&str]) -> Result<()> {
        let missing = columns.iter().find(|column| !self.has(column));
        missing.map_or(Ok(()), |column| Err(self.lacks(column, "")))
    }

    /// The same for columns that settings name: pairs of a setting and the column it names.
    ///
    /// # Errors
    /// Naming the first unknown column, those that exist, the setting to change, and the column that was probably meant.
    pub fn require_named(&self, columns: &[(&str, &str)]) -> Result<()> {
        let Some((setting, unknown)) = columns.iter().find(|(_, column)| !self.has(column)) else { return Ok(()) };
        let distance = |column: &&String| strsim::damerau_levenshtein(&column.to_lowercase(), &unknown.to_lowercase());
        // What another setting names is not what was meant.
        let free = self.columns.iter().filter(|known| columns.iter().all(|(_, column)| column != known));
        let nearest = free.min_by_key(distance).filter(|column| distance(column) <= unknown.len() / 2);
        let advice = match nearest {
            Some(column) => format!(": did you mean {setting}={column:?}?"),
            None if self.is_separated() && columns.iter().all(|(_, column)| !self.has(column)) => {
                format!(": name the right one with {setting}, or all of them with columns.names if the first row is no header")
            }
            None => format!(": name the right one with {setting}"),
        };
        Err(self.lacks(unknown, &advice))
    }

    /// Whether there is a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|known| known == column)
    }

    /// The text in a row's `column`.
    ///
    /// # Errors
    /// If the column does not exist, or the field is missing or not a string.
    pub fn text<'a>(&self, row: &'a Row, column: &str) -> Result<&'a str> {
        match self.field(row, column)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong_type(row, column, "text", other)),
        }
    }

    /// The label in a row's `column`. Integers and booleans are labels too: 1, 1.0 and "1" are the same one.
    ///
    /// # Errors
    /// If the column does not exist, or the field is missing, empty, or neither a string, a number nor a boolean.
    pub fn label(&self, row: &Row, column: &str) -> Result<String> {
        match self.field(row, column)? {
            Value::String(name) if name.is_empty() => Err(self.error(row, format!("{column:?} is empty, expected a label"))),
            Value::String(name) => Ok(name.clone()),
            Value::Bool(value) => Ok(value.to_string()),
            // `Display` of f64 writes whole numbers without a point.
            Value::Number(number) => {
                Ok(number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), |float| float.to_string()))
            }
            other => Err(self.wrong_type(row, column, "a label", other)),
        }
    }

    /// The number in a row's `column`, or the one its text spells.
    ///
    /// # Errors
    /// If the column does not exist, or the field is missing or no finite number.
    pub fn number(&self, row: &Row, column: &str) -> Result<f64> {
        let value = self.field(row, column)?;
        let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong_type(row, column, "a number", value))
    }

    /// The list of texts in a row's `column`, such as the words of a sentence and their tags.
    ///
    /// # Errors
    /// If the column does not exist, or the field is missing or not an array of strings.
    pub fn texts<'a>(&self, row: &'a Row, column: &str) -> Result<Vec<&'a str>> {
        let value = self.field(row, column)?;
        let texts = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| self.wrong_type(row, column, "an array of strings", value))
    }

    /// An error about `row`: this file, its line, and `message`.
    pub fn error(&self, row: &Row, message: impl Into<String>) -> Error {
        Error::data(&self.path, Some(row.line), message)
    }

    /// Whatever is in a row's `column`.
    ///
    /// # Errors
    /// If the column does not exist, or the field is missing or null.
    pub fn field<'a>(&self, row: &'a Row, column: &str) -> Result<&'a Value> {
        match row.fields.get(column) {
            Some(Value::Null) => Err(self.error(row, format!("{column:?} is null: give it a value or leave the row out"))),
            Some(value) => Ok(value),
            None => {
                self.require(&[column])?;
                let found = quoted(row.fields.keys());
                Err(self.error(row, format!("the row has no {column:?}, only {found}: add it or leave the row out")))
            }
        }
    }

    fn wrong_type(&self, row: &Row, column: &str, expected: &str, found: &Value) -> Error {
        self.error(row, format!("{column:?} is {}, expected {expected}", described(found)))
    }

    fn lacks(&self, column: &str, advice: &str) -> Error {
        Error::data(&self.path, None, format!("no column {column:?}; the file has {}{advice}", quoted(&self.columns)))
    }

    fn is_separated(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "csv" || extension == "tsv")
    }

    fn read_json_lines(&mut self) -> Result<()> {
        let mut known = BTreeSet::new();
        let path = self.path.clone();
        each_line(&path, |line, text| {
            if text.trim().is_empty() {
                return Ok(());
            }
            let value = serde_json::from_str(text).map_err(|error| {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                Error::data(&path, Some(line), format!("not valid JSON at column {}: {what}; expected one object per line", error.column()))
            })?;
            let object = match value {
                Value::Object(object) => object,
                other => {
                    let message = format!("expected a JSON object such as {{\"text\": \"...\"}}, found {}", described(&other));
                    return Err(Error::data(&path, Some(line), message));
                }
            };
            for column in object.keys() {
                if !known.contains(column) {
                    known.insert(column.clone());
                    self.columns.push(column.clone());
                }
            }
            self.rows.push(Row { line, fields: object.into_iter().collect() });
            Ok(())
        })
    }

    fn read_text_lines(&mut self) -> Result<()> {
        let path = self.path.clone();
        self.columns.push("text".to_owned());
        each_line(&path, |line, text| {
            if !text.trim().is_empty() {
                self.rows.push(Row { line, fields: [("text".to_owned(), text.into())].into() });
            }
            Ok(())
        })
    }

    fn read_separated(&mut self, delimiter: u8) -> Result<()> {
        let path = self.path.clone();
        let lines = Lines { inner: BufReader::new(open(&path)?), line: 0, n_quotes: 0, at_start: true };
        let mut builder = csv::ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(delimiter).quoting(delimiter == b',');
        let mut reader = builder.from_reader(lines);
        let mut record = csv::ByteRecord::new();
        loop {
            let n_quotes = reader.get_ref().n_quotes;
            let is_row = reader.read_byte_record(&mut record).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(source) => Error::io(&path, source),
                other => Error::data(&path, Some(reader.get_ref().line), format!("{other:?}")),
            })?;
            if !is_row {
                return Ok(());
            }
            let n_line_ends = record.iter().flatten().filter(|&&byte| byte == b'\n').count();
            let line = (reader.get_ref().line - n_line_ends).max(1);
            if n_line_ends > 0 && (reader.get_ref().n_quotes - n_quotes) % 2 == 1 {
                // The field swallowed the rest of the file, and perhaps a last line end that no line follows.
                let line = line + usize::from(record.iter().next_back().is_some_and(|field| field.ends_with(b"\n")));
                return Err(Error::data(
                    &path,
                    Some(line),
                    "a quote opened here is not closed: close it, or write \"\" for a quote inside one",
                ));
            }
            let fields = record.iter().map(|field| utf8(&path, line, field)).collect::<Result<Vec<_>>>()?;
            if self.columns.is_empty() {
                self.columns = distinct(&path, line, &fields)?;
                continue;
            }
            if fields.len() != self.columns.len() {
                let advice = if delimiter == b',' { "put quotes around a field with a comma in it" } else { "a field cannot hold a tab" };
                let (found, expected, names) = (fields.len(), self.columns.len(), quoted(&self.columns));
                return Err(Error::data(&path, Some(line), format!("found {found} fields, expected {expected} ({names}): {advice}")));
            }
            let fields = self.columns.iter().cloned().zip(fields.into_iter().map(Value::from)).collect();
            self.rows.push(Row { line, fields });
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::data(path, None, "there is no such file: check the path"),
        _ => Error::io(path, source),
    })
}

/// Calls `row` with the number and text of every line, without its line end.
fn each_line(path: &Path, mut row: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut file = BufReader::new(open(path)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(|source| Error::io(path, source))? == 0 {
            break;
        }
        let text = utf8(path, line, &bytes)?.trim_end_matches(['\n', '\r']);
        let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
        row(line, text)?;
    }
    Ok(())
}

fn utf8<'a>(path: &Path, line: usize, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes[error.valid_up_to()];
        Error::data(path, Some(line), format!("not UTF-8 (byte {byte:#04x}): save the file in UTF-8"))
    })
}

fn distinct(path: &Path, line: usize, header: &[&str]) -> Result<Vec<String>> {
    let mut known = BTreeSet::new();
    match header.iter().find(|&&column| !known.insert(column)) {
        Some(twice) => Err(Error::data(path, Some(line), format!("the header names the column {twice:?} twice: rename one"))),
        None => Ok(header.iter().map(|&column| column.to_owned()).collect()),
    }
}

/// A value in few words.
fn described(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => format!("{:?}...", text.chars().take(40).collect::<String>()),
        value => value.to_string(),
    }
}

fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Hands out one line per read, so that after every record it is known which line it ended on: the positions of the csv crate
/// do not count blank lines and the second half of `\r\n` in time.
struct Lines<R> {
    inner: R,
    line: usize,
    n_quotes: usize,
    at_start: bool,
}

impl<R: BufRead> Read for Lines<R> {
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

/// Writes `rows` as a `.jsonl` file, one JSON object per line, atomically.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    write_atomic(path, |temporary| {
        let mut file = BufWriter::new(File::create(temporary)?);
        for row in rows {
            serde_json::to_writer(&mut file, row)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    })
}
