//! Rows and tables as files.

use super::{Format, Table};
use kiln_core::files::write_atomic;
use kiln_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufWriter, Error as IoError, Write};
use std::path::Path;

/// Writes `rows` as a `.jsonl` file, one JSON object per line, atomically.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    write_objects(path, rows)
}

impl Table {
    /// Writes the rows, atomically, in the format that the extension of `path` names: `.jsonl`, `.csv`, `.tsv`, or `.txt` for the column `text`.
    /// A `.csv` or `.tsv` file starts with the names of the columns if `header` is set.
    ///
    /// # Errors
    /// If the extension is another, a field cannot be written in the format, or the file cannot be written.
    pub fn write(&self, path: &Path, header: bool) -> Result<()> {
        match (Format::of(path), path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))) {
            // In the order of the file, not of the names.
            (Some(Format::JsonLines), false) => write_objects(
                path,
                self.rows.iter().map(|row| {
                    let fields = self.columns.iter().filter_map(|column| Some((column, row.fields.get(column)?)));
                    fields.map(|(column, value)| (column.clone(), value.clone())).collect::<Map<_, _>>()
                }),
            ),
            (Some(Format::Csv), false) => write_separated(self, path, b',', header),
            (Some(Format::Tsv), false) => write_separated(self, path, b'\t', header),
            (Some(Format::Text), false) => write_lines(self, path),
            _ => Err(Error::data(path, None, "cannot be written in this format: expected .jsonl, .csv, .tsv or .txt")),
        }
    }
}

fn write_objects<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    write_atomic(path, |temporary| {
        let mut file = BufWriter::new(File::create(temporary)?);
        for row in rows {
            serde_json::to_writer(&mut file, &row)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    })
}

fn write_separated(table: &Table, path: &Path, delimiter: u8, header: bool) -> Result<()> {
    let is_quoted = delimiter == b',';
    let mut records = Vec::with_capacity(table.rows.len() + 1);
    records.extend(header.then(|| table.columns.clone()));
    for row in &table.rows {
        let field = |column: &String| match row.fields.get(column) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) if !is_quoted && text.contains(['\t', '\n', '\r']) => {
                Err(table.error(row, format!("{column:?} holds a tab or a line end, which .tsv cannot: write .jsonl or .csv")))
            }
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => Err(table.error(row, format!("{column:?} is a list or an object, which a table cannot hold: write .jsonl"))),
        };
        records.push(table.columns.iter().map(field).collect::<Result<Vec<_>>>()?);
    }
    let style = if is_quoted { csv::QuoteStyle::Necessary } else { csv::QuoteStyle::Never };
    write_atomic(path, |temporary| {
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).quote_style(style).from_path(temporary).map_err(IoError::other)?;
        records.iter().try_for_each(|record| writer.write_record(record).map_err(IoError::other))?;
        writer.flush()
    })
}

fn write_lines(table: &Table, path: &Path) -> Result<()> {
    table.require(&["text"])?;
    let lines = table.rows.iter().map(|row| table.text(row, "text")).collect::<Result<Vec<_>>>()?;
    write_atomic(path, |temporary| {
        let mut file = BufWriter::new(File::create(temporary)?);
        lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        file.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["text".to_owned(), "label".into()];
        for (name, content, columns) in [
            ("a.jsonl", "{\"z\":\"x\",\"text\":\"b\\t\\\"c\\\"\",\"n\":1.5,\"list\":[1]}\n{\"z\":\"y\",\"n\":2}\n", &[][..]),
            ("a.csv", "text,label\n\"a, \"\"b\"\"\",1\nc,2\n", &[]),
            ("a.tsv", "a \"b\"\t1\nc\t2\n", &names),
            ("a.txt", "one line\nanother\n", &[]),
        ] {
            let (path, other) = (folder.path().join(name), folder.path().join(format!("copy-{name}")));
            std::fs::write(&path, content).unwrap();
            let table = Table::read(&path, columns).unwrap();
            table.write(&other, columns.is_empty()).unwrap();
            assert_eq!(std::fs::read_to_string(&other).unwrap(), content, "{name}");
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"text\":\"a\\tb\",\"list\":[1]}\n").unwrap();
        let mut table = Table::read(&path, &[]).unwrap();
        let error = |table: &Table, name: &str| table.write(&folder.path().join(name), true).unwrap_err().to_string();
        assert!(error(&table, "b.csv").contains("a.jsonl:1: \"list\" is a list or an object"));
        table.columns = vec!["text".into()];
        assert!(error(&table, "b.tsv").contains("holds a tab or a line end"));
        assert!(error(&table, "b.parquet").contains("expected .jsonl, .csv, .tsv or .txt"));
    }
}
