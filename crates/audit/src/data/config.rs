//! The settings of an audit of data.

use super::Check;
use crate::copies::NEAR;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::source::{in_range, required};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The settings of an audit of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataAuditConfig {
    /// The rows to look at.
    pub data: PathBuf,
    /// Rows that a model will be judged by, none of which should be among the rows to look at. Default: none.
    pub held_out: Option<PathBuf>,
    /// The folder of a sentence encoder. Without one there is no search for label errors and outliers, no test of the order of topics, and no
    /// spread. Default: none.
    pub model: Option<PathBuf>,
    /// What the columns mean.
    pub columns: ColumnsConfig,
    /// The column that says where a row comes from, such as an annotator or a site. Default: none.
    pub source: Option<String>,
    /// From this resemblance on two texts are nearly the same. Default 0.8.
    pub near: f64,
    /// Classifiers that judge each other's rows, to find label errors. Default 5.
    pub folds: usize,
    /// Which rows a cleaned file leaves out. Default: empty, garbled, duplicates, leakage, conflicts and label errors.
    pub remove: Vec<Check>,
    /// How likely a label is to be wrong for a cleaned file to leave its row out. Default 0.5.
    pub wrong_from: f64,
    /// Whether a cleaned file has marks such as `[EMAIL]` in place of personal data. Default true.
    pub redact: bool,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for DataAuditConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            held_out: None,
            model: None,
            columns: ColumnsConfig::default(),
            source: None,
            near: NEAR,
            folds: 5,
            remove: vec![Check::Empty, Check::Garbled, Check::Duplicates, Check::Leakage, Check::Conflicts, Check::LabelErrors],
            wrong_from: 0.5,
            redact: true,
            seed: 0,
        }
    }
}

impl DataAuditConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("data", &self.data, "the file of rows")?;
        in_range("near", self.near, self.near >= 0.5 && self.near <= 1.0, "from 0.5 to 1")?;
        in_range("wrong_from", self.wrong_from, (0.0..=1.0).contains(&self.wrong_from), "from 0 to 1")?;
        if self.folds < 2 {
            return Err(Error::config("folds", format!("found {}, expected at least 2", self.folds)));
        }
        match self.remove.iter().find(|check| !check.is_of_rows()) {
            Some(check) => Err(Error::config("remove", format!("{} is a finding about the file, not about rows", check.name()))),
            None => Ok(()),
        }
    }
}
