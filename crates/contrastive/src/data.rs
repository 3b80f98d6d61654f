//! Rows of the user's files as token sequences: texts to hide tokens of, groups of texts to compare, and what judges an encoder.

use crate::config::{ColumnsConfig, ContrastiveConfig, Objective};
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Limit};
use kiln_data::rows::{Row, Table};
use std::collections::BTreeMap;
use std::path::Path;

/// A text, and which tokens make a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The word each token belongs to, a number that no neighbouring word has; `None` for special tokens, which are never hidden.
    pub words: Vec<Option<u32>>,
}

/// Texts that are compared with each other, and how alike they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The tokens of each text: a text; an anchor, its positive and its hard negatives; or the two texts of a scored pair.
    pub texts: Vec<Vec<u32>>,
    /// The score of a scored pair, else 0.
    pub score: f64,
}

/// Blocks of running text are at most this long unless asked for: longer ones cost quadratic attention for little gain.
const DEFAULT_BLOCK_TOKENS: usize = 512;

/// Texts for masked language modelling: training ones and held-out ones, and what became of the rows.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long or empty.
pub fn texts(config: &ContrastiveConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<[(Vec<Text>, Counts); 2]> {
    let (train, held_out) = config.data.read(&config.columns.names)?;
    let [train, held_out] = config.data.separate(train, held_out, config.seed)?;
    let of = |table: &Table| {
        if table.path.extension().is_some_and(|extension| extension == "txt") {
            blocks(table, config, model, tokenizer)
        } else {
            documents(table, config, model, tokenizer)
        }
    };
    Ok([of(&train)?, of(&held_out)?])
}

/// One text per row.
fn documents(table: &Table, config: &ContrastiveConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<(Vec<Text>, Counts)> {
    let column = &config.columns.text;
    let limit = Limit::new(model.max_positions, config.overlong, tokenizer)?;
    let mut counts = Counts::default();
    let mut texts = Vec::with_capacity(table.rows.len());
    for (row, (ids, mut words)) in table.rows.iter().zip(tokenizer.encode_words(column_of(table, column)?)?) {
        if words.iter().all(Option::is_none) {
            return Err(table.error(row, format!("column {column:?} holds no token to predict")));
        }
        let n_tokens = ids.len();
        let Some(ids) = limit.apply(ids, table, row, &mut counts)? else { continue };
        // A cut leaves the tokens at the end in place.
        words.drain(ids.len() - limit.n_end_tokens..n_tokens - limit.n_end_tokens);
        texts.push(Text { ids, words });
    }
    limit.check_left(table, &counts)?;
    Ok((texts, counts))
}

/// Running text, line after line, in blocks that each begin and end as the tokenizer begins and ends a text. The last one may be shorter.
fn blocks(table: &Table, config: &ContrastiveConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<(Vec<Text>, Counts)> {
    let most = model.max_positions;
    let block_tokens = if config.block_tokens == 0 { most.min(DEFAULT_BLOCK_TOKENS) } else { config.block_tokens };
    let around = tokenizer.encode("")?;
    let (start, end) = around.split_at(around.len() - tokenizer.n_end_tokens()?);
    if block_tokens > most {
        return Err(Error::config("block_tokens", format!("found {block_tokens}, the model has {most} positions")));
    }
    if block_tokens <= around.len() {
        return Err(Error::config("block_tokens", format!("found {block_tokens}, expected more than {}", around.len())));
    }
    let (mut ids, mut words, mut n_words) = (Vec::new(), Vec::new(), 0);
    for (line, line_words) in tokenizer.encode_words(column_of(table, "text")?)? {
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

fn column_of(table: &Table, column: &str) -> Result<Vec<String>> {
    table.require(&[column])?;
    table.rows.iter().map(|row| table.text(row, column).map(str::to_owned)).collect()
}
