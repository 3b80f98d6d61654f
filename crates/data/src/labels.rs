//! The label names of a classification task and their indices.

use crate::rows::{Row, Table};
use crate::source::Files;
use kiln_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// More names than this are not listed in an error.
const MAX_LISTED: usize = 20;

/// Distinct label names; a label's index is its place among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    indices: BTreeMap<String, usize>,
}

impl Labels {
    /// The distinct names among `names`, in numeric order if all are integers and in the order of their bytes otherwise, so
    /// that the indices do not depend on the order of the rows.
    pub fn distinct(names: impl IntoIterator<Item = String>) -> Self {
        let distinct: BTreeSet<String> = names.into_iter().collect();
        let mut names: Vec<String> = distinct.into_iter().collect();
        if let Ok(numbers) = names.iter().map(|name| name.parse()).collect::<std::result::Result<Vec<i64>, _>>() {
            let mut numbered: Vec<(i64, String)> = numbers.into_iter().zip(names).collect();
            numbered.sort();
            names = numbered.into_iter().map(|(_, name)| name).collect();
        }
        Self::in_order(names)
    }

    /// `names` in the order given, as a trained model has them. Of a name given twice the last index counts.
    pub fn in_order(names: Vec<String>) -> Self {
        let indices = names.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        Self { names, indices }
    }

    /// The distinct labels in a column of `table`.
    ///
    /// # Errors
    /// As [`Table::label`].
    pub fn of_column(table: &Table, column: &str) -> Result<Self> {
        let names = table.rows.iter().map(|row| table.label(row, column)).collect::<Result<Vec<_>>>()?;
        Ok(Self::distinct(names))
    }

    /// The distinct labels in a column of the training files.
    ///
    /// # Errors
    /// As [`Table::label`].
    pub fn of_files(files: &Files<'_>, column: &str) -> Result<Self> {
        let names = files.gathered(&("labels", column), |names: &mut BTreeSet<String>, table| {
            for row in &table.rows {
                names.insert(table.label(row, column)?);
            }
            Ok(())
        })?;
        Ok(Self::distinct(names))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of `name`, if it is one of the labels.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.indices.get(name).copied()
    }

    /// The index of the label in a row's `column`.
    ///
    /// # Errors
    /// As [`Table::label`], and naming file, line, the label found and the known ones if it is none of them.
    pub fn index_of_row(&self, table: &Table, row: &Row, column: &str) -> Result<usize> {
        self.index_of(table, row, column, &table.label(row, column)?)
    }

    /// The index of `name`, which stands in a row's `column`.
    ///
    /// # Errors
    /// Naming file, line, the label found and the known ones if it is none of them.
    pub fn index_of(&self, table: &Table, row: &Row, column: &str, name: &str) -> Result<usize> {
        self.index(name).ok_or_else(|| {
            let known = self.names.iter().take(MAX_LISTED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let more = if self.len() > MAX_LISTED { format!(" and {} more", self.len() - MAX_LISTED) } else { String::new() };
            let message = format!("unknown label {name:?} in {column:?}; known are {known}{more}: correct the row or leave it out");
            Error::data(&table.path, Some(row.line), message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn distinct(names: &[&str]) -> Vec<String> {
        Labels::distinct(names.iter().map(|&name| name.to_owned())).names
    }

    #[test]
    fn integers_are_in_numeric_order_names_in_byte_order() {
        assert_eq!(distinct(&["10", "9", "-1", "10"]), ["-1", "9", "10"]);
        assert_eq!(distinct(&["10", "9", "none"]), ["10", "9", "none"]);
        assert_eq!(distinct(&["sport", "food", "sport"]), ["food", "sport"]);
    }

    #[test]
    fn an_unknown_label_names_file_line_and_the_known_ones() {
        let row = |line, label| Row { line, fields: [("label".to_owned(), label)].into() };
        let rows = vec![row(1, json!(3)), row(2, json!("0")), row(4, json!(1))];
        let mut table = Table { path: "train.jsonl".into(), columns: vec!["label".into()], rows };
        let labels = Labels::of_column(&table, "label").unwrap();
        assert_eq!((labels.len(), labels.names()), (3, &["0".to_owned(), "1".into(), "3".into()][..]));
        assert_eq!(labels.index_of_row(&table, &table.rows[0], "label").unwrap(), 2);

        table.path = "test.jsonl".into();
        let error = labels.index_of_row(&table, &row(7, json!(2)), "label").unwrap_err();
        let expected = r#"test.jsonl:7: unknown label "2" in "label"; known are "0", "1", "3": correct the row or leave it out"#;
        assert_eq!(error.to_string(), expected);
    }
}
