//! What is wrong with a run's rows and settings, found before its first step.
//!
//! - [`look`]: the rows of all files, by
//!   - [`rows`]: empty rows, rows that are there twice, held-out rows that train, labels
//!   - [`tokens`]: what the length limit cuts, whether the model learns to stop, special tokens in the user's text
//! - [`settings`]: a learning rate of another kind of training, too few held-out rows
//! - [`plan`], with [`memory`], [`time`] and [`work`]: what the run will take
//!
//! `docs/preflight.md` lists every finding with its threshold and the reason for it.

pub mod look;
pub mod machine;
pub mod memory;
pub mod plan;
pub mod rows;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod time;
pub mod tokens;
pub mod work;

use kiln_core::{Error, Result};
use serde::Serialize;
use std::fmt;

/// What a finding does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It stops the run unless `force` is set.
    Stop,
    /// The user is told.
    Note,
}

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Its name in `docs/preflight.md`.
    pub name: &'static str,
    /// What it does to a run.
    pub severity: Severity,
    /// How many rows, tokens or labels are concerned.
    pub count: usize,
    /// What was found, with the count, and the threshold that it broke.
    pub found: String,
    /// At most [`MOST_EXAMPLES`] of the places concerned.
    pub examples: Vec<String>,
    /// What to do.
    pub advice: String,
}

/// Places named in a finding.
pub const MOST_EXAMPLES: usize = 3;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.found)?;
        if !self.examples.is_empty() {
            write!(f, ", such as {}", self.examples.join(", "))?;
        }
        write!(f, "; {}", self.advice)
    }
}

/// `part` of `whole` as a percentage, for people.
pub fn percent(part: usize, whole: usize) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    match share {
        ..0.1 if part > 0 => format!("{share:.2} %"),
        ..10.0 => format!("{share:.1} %"),
        _ => format!("{share:.0} %"),
    }
}

/// Whether `part` is more than `share` of `whole`.
fn exceeds(part: usize, whole: usize, share: f64) -> bool {
    part as f64 > share * whole as f64
}

/// A share as its threshold is told.
fn limit(share: f64) -> String {
    format!("{} %", 100.0 * share)
}

/// Lets the run go on, and returns what the user is to be told; or does not.
///
/// # Errors
/// [`Error::Config`] if a finding stops the run and it is not `force`d. The other findings are then on stderr already.
pub fn settle(mut findings: Vec<Finding>, force: bool) -> Result<Vec<String>> {
    findings.sort_by_key(|finding| finding.severity);
    let n_stopping = if force { 0 } else { findings.iter().take_while(|finding| finding.severity == Severity::Stop).count() };
    if n_stopping == 0 {
        return Ok(findings.iter().map(Finding::to_string).collect());
    }
    let worst = findings.remove(0);
    findings.iter().for_each(|finding| eprintln!("{finding}"));
    Err(Error::config("pre-flight", format!("{worst}; or go on with --force")))
}
