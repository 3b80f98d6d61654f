//! What the length limit cuts, whether a decoder learns to stop, and special tokens in the user's text.

use super::rows::FieldsOf;
use super::{Finding, MOST_EXAMPLES, Severity, exceeds, limit, percent};
use kiln_core::Result;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::{Counts, Example};
use kiln_data::rows::{Table, text_of};
use regex::Regex;
use std::path::Path;

/// Of what should be learnt, less than an epoch's noise.
const CUT: f64 = 0.01;
/// A tenth of the work of whoever wrote the rows.
const MUCH_CUT: f64 = 0.1;
/// Some rows may be cut before their end.
const WITHOUT_END: f64 = 0.1;

/// Tokens of a file's training rows beyond the length limit, and rows left out for it.
pub fn cut(path: &Path, counts: &Counts) -> Option<Finding> {
    let &Counts { n_rows, n_truncated, n_dropped, n_tokens, n_targets, n_tokens_cut, n_targets_cut, lines_cut } = counts;
    let (n_read, n_all, n_all_targets) = (n_rows + n_dropped, n_tokens + n_tokens_cut, n_targets + n_targets_cut);
    let worst =
        |most: f64| exceeds(n_dropped, n_read, most) || exceeds(n_tokens_cut, n_all, most) || exceeds(n_targets_cut, n_all_targets, most);
    let severity = if worst(MUCH_CUT) { Severity::Stop } else { Severity::Note };
    let threshold = if severity == Severity::Stop { MUCH_CUT } else { CUT };
    let targets = match n_all_targets {
        0 => String::new(),
        _ => format!(", {n_targets_cut} of {n_all_targets} targets ({})", percent(n_targets_cut, n_all_targets)),
    };
    let dropped =
        if n_dropped > 0 { format!("{n_dropped} of {n_read} rows are left out ({})", percent(n_dropped, n_read)) } else { String::new() };
    let truncated = if n_truncated > 0 {
        format!("{n_truncated} of {n_read} rows are cut: {n_tokens_cut} of {n_all} tokens ({}){targets}", percent(n_tokens_cut, n_all))
    } else {
        String::new()
    };
    let parts: Vec<String> = [dropped, truncated].into_iter().filter(|part| !part.is_empty()).collect();
    worst(CUT).then(|| Finding {
        name: "cut-tokens",
        severity,
        count: n_truncated + n_dropped,
        found: format!("{} (the limit is {})", parts.join(", "), limit(threshold)),
        examples: lines_cut.iter().filter(|&&line| line > 0).map(|line| format!("{}:{line}", path.display())).collect(),
        advice: "shorten or split the rows, or take a model with more positions".into(),
    })
}

/// Rows of which the length limit leaves no token with a loss, by their lines: a training refuses the first.
pub fn nothing_to_learn(path: &Path, lines: &[usize], n_rows: usize) -> Option<Finding> {
    let count = lines.len();
    (count > 0).then(|| Finding {
        name: "nothing-to-learn",
        severity: Severity::Stop,
        count,
        found: format!(
            "of {count} of {n_rows} rows the length limit leaves no token to learn ({}; the limit is 0)",
            percent(count, n_rows)
        ),
        examples: lines.iter().take(MOST_EXAMPLES).map(|line| format!("{}:{line}", path.display())).collect(),
        advice: "shorten their prompts, or set overlong to \"drop\"".into(),
    })
}

/// Training rows in which no token with a loss ends a generation.
pub fn stop<'a>(path: &Path, rows: impl IntoIterator<Item = &'a Example>, end_ids: &[u32]) -> Option<Finding> {
    let (mut n, mut n_without) = (0, 0);
    for row in rows {
        n += 1;
        let mut targets = row.supervised.iter().cloned().flatten().map(|token| row.ids[token]);
        n_without += usize::from(!targets.any(|id| end_ids.contains(&id)));
    }
    let severity = if n_without == n { Severity::Stop } else { Severity::Note };
    let threshold = if severity == Severity::Stop { "all".to_owned() } else { limit(WITHOUT_END) };
    exceeds(n_without, n, WITHOUT_END).then(|| Finding {
        name: "stop-token-untrained",
        severity,
        count: n_without,
        found: format!(
            "in {n_without} of {n} rows of {} no token that ends a generation is learnt ({}; the limit is {threshold})",
            path.display(),
            percent(n_without, n)
        ),
        examples: Vec::new(),
        advice: "the model would learn to go on: check \"eos_token_id\" in config.json, and whether rows are cut before their end".into(),
    })
}

/// Rows whose text writes a special token of the tokenizer, which is then read as one.
///
/// # Errors
/// If the tokenizer's tokens make no expression.
pub fn special(tables: &[&Table], fields: &FieldsOf<'_>, tokenizer: &Tokenizer) -> Result<Option<Finding>> {
    let names: Vec<String> = tokenizer.special_ids().iter().filter_map(|&id| tokenizer.token(id)).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let any = names.iter().map(|name| regex::escape(name)).collect::<Vec<_>>().join("|");
    let any = Regex::new(&any).map_err(|error| kiln_core::Error::config("model", format!("special tokens: {error}")))?;
    let (mut n, mut count, mut examples) = (0, 0, Vec::new());
    for table in tables {
        let columns = fields(table).texts;
        for row in &table.rows {
            n += 1;
            let text = text_of(row, &columns);
            if let Some(found) = any.find(&text) {
                count += 1;
                if examples.len() < MOST_EXAMPLES {
                    examples.push(format!("{:?} ({}:{})", found.as_str(), table.path.display(), row.line));
                }
            }
        }
    }
    Ok((count > 0).then(|| Finding {
        name: "special-tokens",
        severity: Severity::Note,
        count,
        found: format!("{count} of {n} rows write special tokens of the tokenizer in their text ({}; the limit is 0)", percent(count, n)),
        examples,
        advice: "they act as such: leave them out if a template or the tokenizer adds its own".into(),
    }))
}
