//! Tags of words in IOB2: `B-` begins an entity, `I-` goes on with it, `O` is outside of all.

use crate::labels::Labels;
use crate::rows::{Row, Table};
use crate::source::Files;
use kiln_core::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// The tag of a word that is in no entity.
pub const OUTSIDE: &str = "O";

/// The words and tags of a row.
///
/// # Errors
/// If a column is missing, there are not as many tags as words, or the tags are not IOB2.
pub fn tagged<'a>(table: &Table, row: &'a Row, [tokens, tags]: [&str; 2]) -> Result<(Vec<&'a str>, Vec<&'a str>)> {
    let (words, found) = (table.texts(row, tokens)?, table.texts(row, tags)?);
    if words.is_empty() {
        return Err(table.error(row, format!("{tokens:?} is empty: no word to tag")));
    }
    if words.len() != found.len() {
        return Err(
            table.error(row, format!("{} words in {tokens:?}, {} tags in {tags:?}: give each word its tag", words.len(), found.len()))
        );
    }
    let mut before = OUTSIDE;
    for (word, tag) in words.iter().zip(&found) {
        let fits = match tag.split_once('-') {
            Some(("B", kind)) => !kind.is_empty(),
            Some(("I", kind)) => before.split_once('-').is_some_and(|(_, open)| open == kind),
            _ => *tag == OUTSIDE,
        };
        if !fits {
            let message = format!(
                "tag {tag:?} of {word:?} after {before:?} is not IOB2: an entity begins with B-, goes on with I- of the same kind, and all else is O"
            );
            return Err(table.error(row, message));
        }
        before = tag;
    }
    Ok((words, found))
}

/// Checks that the classes of the model in `folder` are tags of IOB2.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first that is not.
pub fn check_names(names: &[String], folder: &Path) -> Result<()> {
    let is_tag = |name: &String| name == OUTSIDE || matches!(name.split_once('-'), Some(("B" | "I", kind)) if !kind.is_empty());
    match names.iter().find(|name| !is_tag(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("key \"id2label\": class {name:?} is no tag of IOB2, such as B-PER, I-PER or O");
            Err(Error::checkpoint(&folder.join("config.json"), message))
        }
    }
}

/// `O`, and for each kind of entity in the table, in the order of their bytes, its `B-` and `I-`.
///
/// # Errors
/// As [`tagged`].
pub fn labels(table: &Table, columns: [&str; 2]) -> Result<Labels> {
    let mut kinds = BTreeSet::new();
    add_kinds(&mut kinds, table, columns)?;
    Ok(of_kinds(kinds))
}

/// The same for all training files.
///
/// # Errors
/// As [`tagged`].
pub fn labels_of_files(files: &Files<'_>, columns: [&str; 2]) -> Result<Labels> {
    files.gathered(&("tags", columns), |kinds, table| add_kinds(kinds, table, columns)).map(of_kinds)
}

fn add_kinds(kinds: &mut BTreeSet<String>, table: &Table, columns: [&str; 2]) -> Result<()> {
    for row in &table.rows {
        kinds.extend(tagged(table, row, columns)?.1.iter().filter_map(|tag| Some(tag.split_once('-')?.1.to_owned())));
    }
    Ok(())
}

fn of_kinds(kinds: BTreeSet<String>) -> Labels {
    let both = kinds.into_iter().flat_map(|kind| [format!("B-{kind}"), format!("I-{kind}")]);
    Labels::in_order(std::iter::once(OUTSIDE.to_owned()).chain(both).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [&str; 2] = ["tokens", "tags"];

    fn table(rows: &[(&[&str], &[&str])]) -> Table {
        let row = |(line, (tokens, tags)): (usize, &(&[&str], &[&str]))| Row {
            line: line + 1,
            fields: [("tokens".to_owned(), json!(tokens)), ("tags".to_owned(), json!(tags))].into(),
        };
        Table { path: "a.jsonl".into(), columns: COLUMNS.map(str::to_owned).to_vec(), rows: rows.iter().enumerate().map(row).collect() }
    }

    #[test]
    fn labels_begin_and_go_on_with_every_kind() {
        let table = table(&[(&["in", "Ys"], &["O", "B-LOC"]), (&["Bo", "Li", "Ed"], &["B-PER", "I-PER", "B-PER"])]);
        assert_eq!(labels(&table, COLUMNS).unwrap().names(), ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]);
    }

    #[test]
    fn other_schemes_are_refused() {
        let refusal = |tokens: &[&str], tags: &[&str]| {
            let table = table(&[(tokens, tags)]);
            tagged(&table, &table.rows[0], COLUMNS).unwrap_err().to_string()
        };
        for tags in [["O", "I-LOC"], ["B-PER", "I-LOC"], ["B-PER", "L-PER"], ["O", "B-"], ["O", "PER"]] {
            let found = refusal(&["in", "Ys"], &tags);
            assert!(found.starts_with(&format!("a.jsonl:1: tag {:?} of \"Ys\" after {:?} is not IOB2", tags[1], tags[0])), "{found}");
        }
        assert_eq!(refusal(&["in", "Ys"], &["O"]), "a.jsonl:1: 2 words in \"tokens\", 1 tags in \"tags\": give each word its tag");
        assert_eq!(refusal(&[], &[]), "a.jsonl:1: \"tokens\" is empty: no word to tag");
    }
}
