//! What an audit found, as files: results, the list of all findings, and a page for people; and as a part of a run.

use super::{Check, DataAudit, DataAuditConfig, Diversity, Finding, Removed};
use crate::run::{FinishedRun, Part};
use kiln_core::files::{write_atomic, write_json};
use kiln_core::{Error, Result};
use kiln_data::rows::write_jsonl;
use kiln_train::preflight::percent;
use kiln_train::{card, report};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Findings of each check that a page shows.
const MOST_SHOWN: usize = 20;
/// What stands in place of a count.
const NOT_MADE: &str = "not looked for";

/// A file that was looked at.
#[derive(Clone, Debug)]
pub struct AuditedFile {
    /// What it is called among the files of a run.
    pub name: String,
    /// The settings.
    pub config: DataAuditConfig,
    /// What was found.
    pub audit: DataAudit,
}

impl DataAudit {
    /// How many findings a check has, for people: `12`, and of rows their share.
    pub fn count(&self, check: Check) -> (usize, String) {
        let n = self.of(check).count();
        (n, if check.is_of_rows() && n > 0 { percent(n, self.table.rows.len()) } else { String::new() })
    }

    /// The checks that were not made, because what they need was not given.
    pub fn not_made(&self) -> Vec<&'static str> {
        Check::ALL.iter().filter(|check| !self.checked.contains(check)).map(|check| check.name()).collect()
    }

    /// What an audit came to, as results.
    pub fn results(&self) -> Value {
        let mut results = self.summary();
        let mut examples = Vec::new();
        for &check in &self.checked {
            examples.extend(self.of(check).take(MOST_SHOWN).map(|finding| {
                let text = finding.row.map_or_else(String::new, |row| self.excerpt(row));
                json!({ "check": check.name(), "line": finding.line.map_or_else(String::new, |line| line.to_string()), "finding": finding.reason, "text": text })
            }));
        }
        results["examples"] = examples.into();
        results
    }

    /// The results without examples.
    fn summary(&self) -> Value {
        let check = |&check: &Check| {
            let (found, share) = self.count(check);
            let first = self.of(check).next().map_or_else(String::new, told);
            json!({ "check": check.name(), "found": found, "share": share, "such as": first })
        };
        let mut results = json!({
            "file": self.table.path.display().to_string(),
            "rows": self.table.rows.len(),
            "held_out_rows": self.n_held_out,
            "checks": self.checked.iter().map(check).collect::<Vec<_>>(),
            "not looked for": self.not_made().join(", "),
            "diversity": self.diversity,
        });
        if let Some(accuracy) = self.classifier_accuracy {
            results["classifier_accuracy"] = accuracy.into();
        }
        results
    }

    /// What a model card says of it: the same lines for every file.
    fn column(&self) -> Vec<[String; 2]> {
        let number = |value: f64| format!("{value:.3}");
        let count = |check: Check| match (self.checked.contains(&check), self.count(check)) {
            (false, _) => NOT_MADE.to_owned(),
            (true, (n, share)) if share.is_empty() => n.to_string(),
            (true, (n, share)) => format!("{n} ({share})"),
        };
        let Diversity { distinct_1, distinct_2, distinct_3, self_bleu, embedding_spread, vendi_score } = self.diversity;
        let measured = |value: Option<f64>| value.map_or_else(|| NOT_MADE.to_owned(), number);
        let numbers = [
            ("agreement with labels of models that have not seen them", measured(self.classifier_accuracy)),
            ("distinct 1-, 2- and 3-grams", [distinct_1, distinct_2, distinct_3].map(number).join(", ")),
            ("self-BLEU", number(self_bleu)),
            ("embedding spread", measured(embedding_spread)),
            ("Vendi score", measured(vendi_score)),
        ];
        let sizes = [("rows", self.table.rows.len()), ("held-out rows compared with", self.n_held_out)];
        let sizes = sizes.into_iter().map(|(name, n)| [name.to_owned(), n.to_string()]);
        let counts = Check::ALL.into_iter().map(|check| [check.name().to_owned(), count(check)]);
        sizes.chain(counts).chain(numbers.map(|(name, value)| [name.to_owned(), value])).collect()
    }
}

/// `line 12: the same as line 3`.
pub(super) fn told(finding: &Finding) -> String {
    finding.line.map_or_else(|| finding.reason.clone(), |line| format!("line {line}: {}", finding.reason))
}

/// A line of `findings.jsonl`.
#[derive(Serialize)]
struct Found<'a> {
    file: &'a Path,
    #[serde(flatten)]
    finding: &'a Finding,
}

/// Writes `results.json`, `findings.jsonl`, `config.toml` and `report.html` into `folder`, and `removed.jsonl` if rows were left out. Of several files
/// the results are by name.
///
/// # Errors
/// [`Error::Io`] if one cannot be written.
pub fn write(files: &[AuditedFile], removed: Option<&[Removed]>, folder: &Path) -> Result<()> {
    let mut results = results(files, DataAudit::results);
    if let Some(removed) = removed {
        let count = |what| removed.iter().filter(|row| row.what == what).count();
        results["cleaned"] = json!({ "removed": count("removed"), "redacted": count("redacted") });
        write_jsonl(&folder.join("removed.jsonl"), removed)?;
    }
    let mut findings = Vec::new();
    for AuditedFile { audit, .. } in files {
        findings.extend(audit.findings.iter().map(|finding| Found { file: &audit.table.path, finding }));
    }
    write_jsonl(&folder.join("findings.jsonl"), &findings)?;
    match files {
        [AuditedFile { config, .. }] => write_settings(folder, config)?,
        several => {
            let by_name = several.iter().map(|file| (&file.name, &file.config)).collect::<BTreeMap<_, _>>();
            write_settings(folder, &by_name)?;
        }
    }
    let names: Vec<String> = files.iter().map(|file| file.audit.table.path.display().to_string()).collect();
    report::write(folder, &format!("Data: {}", names.join(", ")), &results, &[])?;
    // Last: a folder that has it is complete.
    write_json(&folder.join("results.json"), &results)
}

/// Adds what was found in the files of a run to its folder: as `data.json`, to its page, and as the section "Data" to the model's card.
///
/// # Errors
/// If one cannot be written.
pub fn write_into_run(files: &[AuditedFile], run: &FinishedRun) -> Result<()> {
    let columns: Vec<Vec<[String; 2]>> = files.iter().map(|file| file.audit.column()).collect();
    let line = |index: usize| {
        let [name, _] = &columns[0][index];
        [name].into_iter().chain(columns.iter().map(|column| &column[index][1])).cloned().collect()
    };
    let rows: Vec<Vec<String>> = (0..columns[0].len()).map(line).collect();
    let heads: Vec<&str> = ["of"].into_iter().chain(files.iter().map(|file| file.name.as_str())).collect();
    let section = format!("What was found in the training rows, by check, and how varied they are.\n\n{}", card::table(&heads, &rows));
    run.add(Part::Data, &results(files, DataAudit::summary), &section)
}

/// The results of each file, by name if there are several.
fn results(files: &[AuditedFile], of: fn(&DataAudit) -> Value) -> Value {
    match files {
        [file] => of(&file.audit),
        several => several.iter().map(|file| (file.name.clone(), of(&file.audit))).collect::<Map<_, _>>().into(),
    }
}

/// Writes `config.toml` into `folder`.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub(crate) fn write_settings(folder: &Path, config: &impl Serialize) -> Result<()> {
    let path = folder.join("config.toml");
    let text = toml::to_string(config).map_err(|error| Error::io(&path, std::io::Error::other(error)))?;
    write_atomic(&path, |temporary| std::fs::write(temporary, text))
}
