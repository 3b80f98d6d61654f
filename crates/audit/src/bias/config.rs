//! The settings of an audit for bias.

use super::templates::TemplatesConfig;
use crate::benchmarks::Benchmark;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::source::{at_least_one, required};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The settings of an audit for bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BiasAuditConfig {
    /// The folder of a classifier, which predicts what there is no column of. Default: none.
    pub model: Option<PathBuf>,
    /// The folder of the model that it was made from, to be compared with. Default: none.
    pub before: Option<PathBuf>,
    /// Published benchmarks that the model is asked by, each with its file or folder. Default: none.
    pub benchmarks: BTreeMap<Benchmark, PathBuf>,
    /// Sentences that differ only in whom they are about, which the classifier is asked. Default: none.
    pub templates: Option<TemplatesConfig>,
    /// Rows with the right labels, the groups, and predictions or texts to predict from.
    pub data: PathBuf,
    /// What the columns mean.
    pub columns: ColumnsConfig,
    /// The column of predictions, if there is no model. Default "prediction".
    pub prediction: String,
    /// The columns that say which group a row is about, such as a gender. Of several, rows that agree in all are groups too. Default: none, with a
    /// model only.
    pub groups: Vec<String>,
    /// The class that it is good to be given. Default: of two classes the second; of more, each in turn.
    pub positive: Option<String>,
    /// Groups of fewer rows are shown, but not compared. Default 10.
    pub fewest_rows: usize,
    /// A file of more words to exchange, two a line. Default: none.
    pub swaps: Option<PathBuf>,
    /// Draws the resamples of the intervals.
    pub seed: u64,
}

impl Default for BiasAuditConfig {
    fn default() -> Self {
        Self {
            model: None,
            before: None,
            benchmarks: BTreeMap::new(),
            templates: None,
            data: PathBuf::new(),
            columns: ColumnsConfig::default(),
            prediction: "prediction".into(),
            groups: Vec::new(),
            positive: None,
            fewest_rows: 10,
            swaps: None,
            seed: 0,
        }
    }
}

impl BiasAuditConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        at_least_one("fewest_rows", self.fewest_rows)?;
        let asked =
            [("before", self.before.is_some()), ("benchmarks", !self.benchmarks.is_empty()), ("templates", self.templates.is_some())];
        if let Some((key, _)) = asked.iter().find(|(_, is_asked)| *is_asked && self.model.is_none()) {
            return Err(Error::config(*key, "there is no model to ask: name its folder in place of a file of predictions"));
        }
        if self.data.as_os_str().is_empty() && (!self.benchmarks.is_empty() || self.templates.is_some()) {
            return Ok(());
        }
        required("data", &self.data, "the file of labelled rows")?;
        if self.groups.is_empty() && self.model.is_none() {
            return Err(Error::config("groups", "missing: the columns that say which group a row is about, such as groups=[\"gender\"]"));
        }
        Ok(())
    }
}
