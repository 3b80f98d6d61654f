//! Tagged sentences: a token and its tag per line, a blank line after each sentence.

use super::lines::each_line;
use super::parts::Parts;
use kiln_core::{Error, Result};
use serde_json::Value;
use std::io::BufRead;
use std::path::Path;

/// The line between two documents in the files of CoNLL-2003: no token of a text.
const DOCUMENT_START: &str = "-DOCSTART-";

/// The first column of each line is the token and the last its tag, with a tab or spaces between; those in between are left aside.
pub(super) fn read(reader: &mut dyn BufRead, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    ["tokens", "tags"].iter().for_each(|column| parts.add_column(column));
    let mut sentence = Sentence::default();
    each_line(reader, path, |line, text| {
        if text.trim().is_empty() {
            return std::mem::take(&mut sentence).hand_over(parts);
        }
        let (token, tag) = token_and_tag(text).ok_or_else(|| {
            let message = format!("found {text:?}, expected a token and its tag, with a tab or spaces between");
            Error::data(path, Some(line), message)
        })?;
        if token != DOCUMENT_START {
            sentence.line.get_or_insert(line);
            sentence.n_bytes += text.len();
            sentence.tokens.push(token.into());
            sentence.tags.push(tag.into());
        }
        Ok(())
    })?;
    sentence.hand_over(parts)
}

/// Spaces are part of a token where tabs separate.
fn token_and_tag(line: &str) -> Option<(&str, &str)> {
    let (token, tag) = match line.split_once('\t') {
        Some((token, rest)) => (token, rest.rsplit('\t').next().unwrap_or(rest).trim()),
        None => (line.split_whitespace().next()?, line.trim().rsplit_once(char::is_whitespace)?.1),
    };
    (!token.is_empty() && !tag.is_empty()).then_some((token, tag))
}

#[derive(Default)]
struct Sentence {
    line: Option<usize>,
    n_bytes: usize,
    tokens: Vec<Value>,
    tags: Vec<Value>,
}

impl Sentence {
    /// Nothing between two blank lines.
    fn hand_over(self, parts: &mut Parts<'_>) -> Result<()> {
        let Some(line) = self.line else { return Ok(()) };
        parts.push(line, [("tokens".to_owned(), self.tokens.into()), ("tags".to_owned(), self.tags.into())].into(), self.n_bytes)
    }
}
