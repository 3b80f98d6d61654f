//! Rows of a table as texts whose words are known, for masked language modelling: documents, or blocks of running text.

use crate::examples::{Counts, Limit, block_length};
use crate::rows::{Row, Table};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Error, Result};

/// Blocks of `block_tokens` of a `.txt` file (0: as [`block_length`]), else one text per row, in `column`; and what became of the rows.
///
/// # Errors
/// If the column is missing, a row is too long for `limit` or holds no token to predict, or no block fits.
pub fn read(table: &Table, column: &str, tokenizer: &Tokenizer, limit: Limit, block_tokens: usize) -> Result<(Vec<Text>, Counts)> {
    if table.is_running_text() { blocks(table, tokenizer, limit, block_tokens) } else { documents(table, column, tokenizer, limit) }
}

/// One text per row.
fn documents(table: &Table, column: &str, tokenizer: &Tokenizer, limit: Limit) -> Result<(Vec<Text>, Counts)> {
    let mut counts = Counts::default();
    let mut texts = Vec::with_capacity(table.rows.len());
    for (row, Text { ids, mut words }) in table.rows.iter().zip(tokenizer.encode_words(column_of(table, column)?)?) {
        if words.iter().all(Option::is_none) {
            return Err(table.error(row, format!("column {column:?} holds no token to predict")));
        }
        let n_tokens = ids.len();
        let Some(ids) = limit.apply(ids, table, row, &mut counts)? else { continue };
        // A cut leaves the tokens at the end in place.
        words.drain(ids.len() - limit.n_end_tokens..n_tokens - limit.n_end_tokens);
        texts.push(Text { ids, words });
    }
    Ok((texts, counts))
}

/// Running text, line after line, in blocks that each begin and end as the tokenizer begins and ends a text. The last one may be shorter.
fn blocks(table: &Table, tokenizer: &Tokenizer, limit: Limit, block_tokens: usize) -> Result<(Vec<Text>, Counts)> {
    let block_tokens = block_length(block_tokens, limit.max_tokens)?;
    let around = tokenizer.encode("")?;
    let (start, end) = around.split_at(around.len() - limit.n_end_tokens);
    if block_tokens <= around.len() {
        return Err(Error::config("block_tokens", format!("found {block_tokens}, expected more than {}", around.len())));
    }
    let (mut ids, mut words, mut n_words) = (Vec::new(), Vec::new(), 0);
    for Text { ids: line, words: line_words } in tokenizer.encode_words(column_of(table, "text")?)? {
        let inside = start.len()..line.len() - end.len();
        ids.extend_from_slice(&line[inside.clone()]);
        words.extend(line_words[inside].iter().map(|word| word.map(|word| n_words + word)));
        n_words += line_words.iter().flatten().max().map_or(0, |last| last + 1);
    }
    let n_inside = block_tokens - around.len();
    let wrapped = |(ids, words): (&[u32], &[Option<u32>])| Text {
        ids: [start, ids, end].concat(),
        words: [&vec![None; start.len()], words, &vec![None; end.len()]].concat(),
    };
    let texts: Vec<Text> = ids.chunks(n_inside).zip(words.chunks(n_inside)).map(wrapped).collect();
    let texts: Vec<Text> = texts.into_iter().filter(|text| text.words.iter().any(Option::is_some)).collect();
    if texts.is_empty() {
        return Err(Error::data(&table.path, None, "no token to predict"));
    }
    let counts = Counts { n_rows: table.rows.len(), n_tokens: ids.len(), ..Counts::default() };
    Ok((texts, counts))
}

/// The texts of a column.
///
/// # Errors
/// If there is no such column, or it holds something else or nothing.
pub fn column_of(table: &Table, column: &str) -> Result<Vec<String>> {
    table.require_named(&[("columns.text", column)])?;
    table.rows.iter().map(|row| filled(table, row, column, table.text(row, column)?)).collect()
}

/// `text`, which stands in the row's `column`, unless it is blank.
///
/// # Errors
/// [`Error::Data`] naming the row and the column.
pub fn filled(table: &Table, row: &Row, column: &str, text: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Err(table.error(row, format!("column {column:?} is empty: expected a text")));
    }
    Ok(text.to_owned())
}
