//! Tagged sentences: a token and its tag per line, a blank line after each sentence.

use super::{Row, Table, each_line};
use kiln_core::{Error, Result};
use serde_json::Value;

/// The line between two documents in the files of CoNLL-2003: no token of a text.
const DOCUMENT_START: &str = "-DOCSTART-";

impl Table {
    /// The first column of each line is the token and the last its tag, with a tab or spaces between; those in between are left aside.
    pub(super) fn read_conll(&mut self) -> Result<()> {
        let path = self.path.clone();
        self.columns.extend(["tokens", "tags"].map(str::to_owned));
        let mut sentence = Sentence::default();
        each_line(&path, |line, text| {
            if text.trim().is_empty() {
                self.rows.extend(std::mem::take(&mut sentence).into_row());
                return Ok(());
            }
            let (token, tag) = token_and_tag(text).ok_or_else(|| {
                let message = format!("found {text:?}, expected a token and its tag, with a tab or spaces between");
                Error::data(&path, Some(line), message)
            })?;
            if token != DOCUMENT_START {
                sentence.line.get_or_insert(line);
                sentence.tokens.push(token.into());
                sentence.tags.push(tag.into());
            }
            Ok(())
        })?;
        self.rows.extend(sentence.into_row());
        Ok(())
    }
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
    tokens: Vec<Value>,
    tags: Vec<Value>,
}

impl Sentence {
    /// `None` between two blank lines.
    fn into_row(self) -> Option<Row> {
        let fields = [("tokens".to_owned(), self.tokens.into()), ("tags".to_owned(), self.tags.into())].into();
        self.line.map(|line| Row { line, fields })
    }
}
