//! `thresholds.json` beside a classifier of two classes: how likely the positive class must be in each group.

use kiln_core::files::{read_json, write_json};
use kiln_core::{Error, Result};
use kiln_data::rows::{Row, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: &str = "thresholds.json";

/// The thresholds of a classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The columns that make the groups.
    pub columns: Vec<String>,
    /// The class whose probability is compared.
    pub positive: String,
    /// What they make equal, for the reader.
    pub criterion: String,
    /// By the name of the group ([`kiln_data::grouped::name`]); one that is not there has ½.
    pub thresholds: BTreeMap<String, f64>,
}

impl Thresholds {
    /// Those in a model's folder, if there are some.
    ///
    /// # Errors
    /// If the file is damaged, or `classes`, the names of the model's classes, are not two with the positive one among them.
    pub fn find(folder: &Path, classes: &[String]) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let fail = |message: String| Error::checkpoint(&path, message);
        let found: Self = read_json(&path)?;
        if classes.len() != 2 || !classes.contains(&found.positive) {
            return Err(fail(format!("is of the class {:?}, the model's are {}: remove it", found.positive, classes.join(", "))));
        }
        Ok(Some(found))
    }

    /// Writes them into a model's folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(FILE), self)
    }

    /// Whether a table says which groups its rows are about.
    pub fn fit(&self, table: &Table) -> bool {
        self.columns.iter().all(|column| table.has(column))
    }

    /// The threshold of a group.
    pub fn of(&self, group: &str) -> f64 {
        self.thresholds.get(group).copied().unwrap_or(0.5)
    }

    /// The threshold of a row's group.
    ///
    /// # Errors
    /// If a column is missing or empty.
    pub fn of_row(&self, table: &Table, row: &Row) -> Result<f64> {
        Ok(self.of(&kiln_data::grouped::name(table, row, &self.columns)?))
    }

    /// The place of the positive class among the `classes` of [`Self::find`].
    ///
    /// # Panics
    /// If it is none of them.
    pub fn positive_of(&self, classes: &[String]) -> usize {
        classes.iter().position(|class| *class == self.positive).expect("a class of the model")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_does_not_belong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let classes = ["no".to_owned(), "yes".to_owned()];
        assert_eq!(Thresholds::find(folder.path(), &classes).unwrap(), None);
        let thresholds = Thresholds {
            columns: vec!["gender".into(), "site".into()],
            positive: "yes".into(),
            criterion: "equal_opportunity".into(),
            thresholds: [("f × north".to_owned(), 0.3)].into(),
        };
        thresholds.save(folder.path()).unwrap();
        let found = Thresholds::find(folder.path(), &classes).unwrap().unwrap();
        assert_eq!((&found, found.of("f × north"), found.of("m × north"), found.positive_of(&classes)), (&thresholds, 0.3, 0.5, 1));
        let row = |line, site: &str| Row { line, fields: [("gender".to_owned(), "f".into()), ("site".to_owned(), site.into())].into() };
        let rows = vec![row(1, "north"), row(2, "south")];
        let table = Table { path: "a.jsonl".into(), columns: vec!["gender".into(), "site".into()], rows };
        assert!(found.fit(&table) && !found.fit(&Table { columns: vec!["gender".into()], ..table.clone() }));
        assert_eq!([0, 1].map(|row| found.of_row(&table, &table.rows[row]).unwrap()), [0.3, 0.5]);

        let refused = |classes: &[String]| Thresholds::find(folder.path(), classes).unwrap_err().to_string();
        assert!(refused(&["a".into(), "b".into()]).contains("is of the class \"yes\", the model's are a, b: remove it"));
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(refused(&classes).contains("thresholds.json"));
    }
}
