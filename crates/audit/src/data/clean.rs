//! A file without its faulty rows, and the list of what was left out.

use super::{Check, DataAudit, DataAuditConfig, Finding, rows};
use crate::personal::redacted;
use kiln_core::{Error, Result};
use kiln_data::rows::Table;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A row that was left out, or changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Removed {
    /// The line it starts on.
    pub line: usize,
    /// "removed" or "redacted".
    pub what: &'static str,
    /// The checks that say so, with their reasons.
    pub reasons: Vec<String>,
}

/// Writes the rows that no check of `config.remove` found to `path`, in the format of its extension, without personal data if `config.redact` is
/// set. Returns what was left out or changed, in the order of the file.
///
/// # Errors
/// If `path` is the file that was read, no row is left, or it cannot be written.
pub fn clean(audit: &DataAudit, config: &DataAuditConfig, path: &Path) -> Result<Vec<Removed>> {
    let is_same = |other: &Path| other == path || other.canonicalize().ok().is_some_and(|other| path.canonicalize().ok() == Some(other));
    if is_same(&config.data) {
        return Err(Error::config("--clean", format!("{} is the file that is read: choose another name", path.display())));
    }
    let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let is_removed = |finding: &&Finding| {
        config.remove.contains(&finding.check) && finding.probability.is_none_or(|probability| probability >= config.wrong_from)
    };
    for Finding { check, row, reason, .. } in audit.findings.iter().filter(is_removed) {
        reasons.entry(row.expect("a check of rows")).or_default().push(format!("{}: {reason}", check.name()));
    }
    if reasons.len() == audit.table.rows.len() {
        return Err(Error::data(&config.data, None, "no row would be left: remove fewer kinds with remove"));
    }
    let personal: BTreeSet<usize> = audit.of(Check::PersonalData).filter_map(|finding| finding.row).collect();
    let columns = rows::text_columns(&audit.table, &config.columns)?;
    let mut kept = Table { path: audit.table.path.clone(), columns: audit.table.columns.clone(), rows: Vec::new() };
    let mut removed = Vec::new();
    for (index, row) in audit.table.rows.iter().enumerate() {
        if let Some(reasons) = reasons.remove(&index) {
            removed.push(Removed { line: row.line, what: "removed", reasons });
            continue;
        }
        let mut row = row.clone();
        if config.redact && personal.contains(&index) {
            columns.iter().for_each(|&column| row.fields.get_mut(column).into_iter().for_each(redact));
            removed.push(Removed { line: row.line, what: "redacted", reasons: vec![Check::PersonalData.name().to_owned()] });
        }
        kept.rows.push(row);
    }
    kept.write(path, config.columns.names.is_empty())?;
    Ok(removed)
}

/// Takes the personal data out of a text, of the texts in a list, or of what messages say.
fn redact(field: &mut Value) {
    match field {
        Value::String(text) => redacted(text).into_iter().for_each(|clean| *text = clean),
        Value::Array(items) => items.iter_mut().for_each(redact),
        // Sharegpt's messages have a value.
        Value::Object(message) => ["content", "value"].iter().for_each(|key| message.get_mut(*key).into_iter().for_each(redact)),
        _ => {}
    }
}
