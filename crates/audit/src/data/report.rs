//! What an audit found, as files: results, the list of all findings, and a page for people.

use super::{Check, DataAudit, DataAuditConfig, Finding, Removed};
use kiln_core::files::{write_atomic, write_json};
use kiln_core::{Error, Result};
use kiln_data::rows::write_jsonl;
use kiln_train::preflight::percent;
use kiln_train::report;
use serde_json::{Value, json};
use std::path::Path;

/// Findings of each check that a page shows.
const MOST_SHOWN: usize = 20;

impl DataAudit {
    /// How many findings a check has, for people: `12`, and of rows their share.
    pub fn count(&self, check: Check) -> (usize, String) {
        let n = self.of(check).count();
        (n, if check.is_of_rows() && n > 0 { percent(n, self.table.rows.len()) } else { String::new() })
    }

    /// What an audit came to, as results.
    pub fn results(&self) -> Value {
        let check = |&check: &Check| {
            let (found, share) = self.count(check);
            let first = self.of(check).next().map_or_else(String::new, told);
            json!({ "check": check.name(), "found": found, "share": share, "such as": first })
        };
        let mut examples = Vec::new();
        for &check in &self.checked {
            examples.extend(self.of(check).take(MOST_SHOWN).map(|finding| {
                let text = finding.row.map_or_else(String::new, |row| self.excerpt(row));
                json!({ "check": check.name(), "line": finding.line.map_or_else(String::new, |line| line.to_string()), "finding": finding.reason, "text": text })
            }));
        }
        let mut results = json!({
            "file": self.table.path.display().to_string(),
            "rows": self.table.rows.len(),
            "held_out_rows": self.n_held_out,
            "checks": self.checked.iter().map(check).collect::<Vec<_>>(),
            "diversity": self.diversity,
            "examples": examples,
        });
        if let Some(accuracy) = self.classifier_accuracy {
            results["classifier_accuracy"] = accuracy.into();
        }
        results
    }
}

/// `line 12: the same as line 3`.
pub(super) fn told(finding: &Finding) -> String {
    finding.line.map_or_else(|| finding.reason.clone(), |line| format!("line {line}: {}", finding.reason))
}

/// Writes `results.json`, `findings.jsonl`, `config.toml` and `report.html` into `folder`, and `removed.jsonl` if rows were left out.
///
/// # Errors
/// [`Error::Io`] if one cannot be written.
pub fn write(audit: &DataAudit, config: &DataAuditConfig, removed: Option<&[Removed]>, folder: &Path) -> Result<()> {
    let mut results = audit.results();
    if let Some(removed) = removed {
        let count = |what| removed.iter().filter(|row| row.what == what).count();
        results["cleaned"] = json!({ "removed": count("removed"), "redacted": count("redacted") });
        write_jsonl(&folder.join("removed.jsonl"), removed)?;
    }
    write_jsonl(&folder.join("findings.jsonl"), &audit.findings)?;
    write_settings(folder, config)?;
    report::write(folder, &format!("Data: {}", audit.table.path.display()), &results, &[])?;
    // Last: a folder that has it is complete.
    write_json(&folder.join("results.json"), &results)
}

/// Writes `config.toml` into `folder`.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub(crate) fn write_settings(folder: &Path, config: &impl serde::Serialize) -> Result<()> {
    let path = folder.join("config.toml");
    let text = toml::to_string(config).map_err(|error| Error::io(&path, std::io::Error::other(error)))?;
    write_atomic(&path, |temporary| std::fs::write(temporary, text))
}
