//! Rows of named fields, read from `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, `.txt` and `.conll` files, at once or part by part.

mod conll;
mod format;
mod json;
mod lines;
mod parquet;
mod parts;
mod separated;
#[cfg(test)]
mod tests;
mod write;

pub use format::Format;
pub use parts::{each_part, first_part};
pub use write::write_jsonl;

use kiln_core::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One row of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line it starts on, counted from 1; of a `.parquet` file its number.
    pub line: usize,
    /// Its fields by column.
    pub fields: BTreeMap<String, Value>,
}

/// The rows of a data file, or of a part of one.
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
    /// Reads a file in the format that its extension names:
    ///
    /// | extension | rows |
    /// |---|---|
    /// | `.jsonl` | a JSON object per line |
    /// | `.json` | an array of objects, or an object per line |
    /// | `.csv` | comma-separated, fields may be quoted with `"` |
    /// | `.tsv` | tab-separated, quotes mean nothing |
    /// | `.parquet` | its rows, nested ones too; the class names that Hugging Face's data sets keep stand for their numbers |
    /// | `.txt` | a text per line, in a column named `text` |
    /// | `.conll` | a token and its tag per line, a blank line after each sentence, in columns named `tokens` and `tags` |
    ///
    /// All but `.parquet` may be compressed, with `.gz` behind. The first row of a `.csv` or `.tsv` file names the columns, unless `columns`
    /// does. Blank lines are no rows. Files are UTF-8, with or without a byte order mark.
    ///
    /// # Errors
    /// One line with the path and, where there is one, the line: a file that is missing, unreadable, not UTF-8, without rows, or
    /// of an unknown extension; a line that is not a JSON object; a row with too few or too many fields; an unclosed quote.
    pub fn read(path: &Path, columns: &[String]) -> Result<Self> {
        let mut whole = None;
        each_part(path, columns, usize::MAX, &mut |part| {
            whole = Some(part);
            Ok(())
        })?;
        Ok(whole.expect("a file without rows is refused"))
    }

    /// Whether it is running text, whose rows are lines of one text.
    pub fn is_running_text(&self) -> bool {
        Format::of(&self.path) == Some(Format::Text)
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
        matches!(Format::of(&self.path), Some(Format::Csv | Format::Tsv))
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

/// The texts of a row, one after the other.
pub fn text_of(row: &Row, columns: &[&str]) -> String {
    let mut text = String::new();
    columns.iter().filter_map(|&column| row.fields.get(column)).for_each(|field| append(&mut text, field));
    text
}

/// A text, the texts of a list, or what the messages of a conversation say.
fn append(text: &mut String, field: &Value) {
    match field {
        Value::String(field) => {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(field);
        }
        Value::Array(items) => items.iter().for_each(|item| append(text, item)),
        // Sharegpt's messages have a value.
        Value::Object(message) => ["content", "value"].iter().filter_map(|key| message.get(*key)).for_each(|said| append(text, said)),
        _ => {}
    }
}
