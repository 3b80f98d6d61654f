//! Finished runs, as audits find them, and what audits leave with them.

use kiln_core::files::{read_json, write_json};
use kiln_core::{Error, Result};
use kiln_data::canaries::{CANARIES_FILE, Canary};
use kiln_train::manifest::Manifest;
use kiln_train::run::{Line, read_metrics};
use kiln_train::{card, report};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A finished run.
#[derive(Clone, Debug)]
pub struct FinishedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was made of.
    pub manifest: Manifest,
    /// The metrics of its steps.
    pub metrics: Vec<Line>,
    /// What it came to.
    pub results: Value,
}

/// An audit of a run: what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of its rows.
    Data,
    /// Of what it learnt by heart.
    Fit,
}

impl Part {
    const ALL: [Self; 2] = [Self::Data, Self::Fit];

    /// Its file in the run's folder, which is also what it is called on the page.
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Fit => "fit",
        }
    }

    /// The heading of its section in the model's card.
    fn title(self) -> &'static str {
        match self {
            Self::Data => "Data",
            Self::Fit => "Fit",
        }
    }
}

impl FinishedRun {
    /// Reads the run in `folder`, and checks that its models and its rows are still there.
    ///
    /// # Errors
    /// If there is no run, it is not finished, or what it reads was changed.
    pub fn read(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let results = folder.join("results.json");
        if !results.exists() {
            let message = "the run is not finished: it has no results.json; go on with it by cargo xtask resume";
            return Err(Error::config(folder.display().to_string(), message));
        }
        manifest.check(folder)?;
        let metrics = read_metrics(&folder.join("metrics.jsonl"))?;
        Ok(Self { folder: folder.to_owned(), manifest, metrics, results: read_json(&results)? })
    }

    /// The canaries that it planted.
    ///
    /// # Errors
    /// If their file is damaged.
    pub fn canaries(&self) -> Result<Vec<Canary>> {
        let path = self.folder.join(CANARIES_FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
        let parse = |(index, line)| serde_json::from_str(line).map_err(|error| Error::data(&path, Some(index + 1), error.to_string()));
        text.lines().enumerate().map(parse).collect()
    }

    /// Adds what an audit `found` to the folder: as a file, to its page beside what other audits found, and as a `section` of the model's card.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub fn add(&self, part: Part, found: &Value, section: &str) -> Result<()> {
        let file = |part: Part| self.folder.join(format!("{}.json", part.name()));
        write_json(&file(part), found)?;
        let mut results = self.results.clone();
        for part in Part::ALL.into_iter().filter(|&part| file(part).exists()) {
            results[part.name()] = read_json(&file(part))?;
        }
        report::write(&self.folder, &self.manifest.method, &results, &self.metrics)?;
        card::add_section(&self.folder.join("model"), part.title(), section).map(|_| ())
    }
}
