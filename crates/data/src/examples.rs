//! Rows of a table as token sequences for language models: prompt and completion, documents, or blocks of running text.

use crate::rows::{Row, Table};
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What happens to a row that is longer than the model's positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    /// The run does not start.
    #[default]
    Refuse,
    /// Its end is cut off, and the number of such rows reported.
    Truncate,
    /// It is left out, and the number of such rows reported.
    Drop,
}

/// How many rows became how many examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows used.
    pub n_rows: usize,
    /// Rows cut at the model's last position.
    pub n_truncated: usize,
    /// Rows left out for their length.
    pub n_dropped: usize,
    /// Tokens of the rows used.
    pub n_tokens: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} tokens", self.n_rows, self.n_tokens)?;
        if self.n_truncated > 0 {
            write!(f, ", {} rows truncated", self.n_truncated)?;
        }
        if self.n_dropped > 0 {
            write!(f, ", {} rows dropped as too long", self.n_dropped)?;
        }
        Ok(())
    }
}

/// The longest sequence allowed, and what happens beyond it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Tokens.
    pub max_tokens: usize,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// Tokens at a row's end that a cut leaves in place, such as BERT's `[SEP]`.
    pub n_end_tokens: usize,
}

impl Limit {
    /// At most `max_tokens`, of which a cut leaves in place those the tokenizer puts after a text.
    ///
    /// # Errors
    /// If the tokenizer cannot say what it puts there.
    pub fn new(max_tokens: usize, overlong: Overlong, tokenizer: &Tokenizer) -> Result<Self> {
        Ok(Self { max_tokens, overlong, n_end_tokens: tokenizer.n_end_tokens()? })
    }

    /// Applies the limit to the ids of one row and counts it; `None` if the row is to be left out.
    ///
    /// # Errors
    /// [`Error::Data`] naming the row, if it is too long and that is to be refused.
    pub fn apply(&self, mut ids: Vec<u32>, table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<Vec<u32>>> {
        if ids.len() > self.max_tokens {
            match self.overlong {
                Overlong::Refuse => {
                    let message = format!(
                        "{} tokens, the model has {} positions; shorten the row, or set overlong to \"truncate\" or \"drop\"",
                        ids.len(),
                        self.max_tokens
                    );
                    return Err(table.error(row, message));
                }
                Overlong::Truncate => {
                    ids = self.cut(ids);
                    counts.n_truncated += 1;
                }
                Overlong::Drop => {
                    counts.n_dropped += 1;
                    return Ok(None);
                }
            }
        }
        counts.n_rows += 1;
        counts.n_tokens += ids.len();
        Ok(Some(ids))
    }

    /// The ids, cut if there are too many; those at the end that a cut leaves in place stay.
    pub fn cut(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if ids.len() > self.max_tokens {
            let n_kept = self.max_tokens.saturating_sub(self.n_end_tokens);
            ids.drain(n_kept..ids.len() - self.n_end_tokens);
        }
        ids
    }

    /// Checks that a row of `table` was left.
    ///
    /// # Errors
    /// [`Error::Data`] if all were too long.
    pub fn check_left(&self, table: &Table, counts: &Counts) -> Result<()> {
        if counts.n_rows > 0 {
            return Ok(());
        }
        let message = format!("no row is left: all {} are longer than the model's {} positions", counts.n_dropped, self.max_tokens);
        Err(Error::data(&table.path, None, message))
    }
}

/// A token sequence and which part of it has a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The first token that is predicted with a loss, at least 1: nothing predicts the first token of a text.
    pub supervised_from: usize,
}

impl Example {
    /// Tokens with a loss.
    pub fn n_supervised(&self) -> usize {
        self.ids.len().saturating_sub(self.supervised_from)
    }
}

/// Lays examples end to end, each supervised token predicted from the row before it with weight 1.
pub fn pack(examples: &[&Example]) -> (Packed, Supervised) {
    let packed = Packed::new(examples.iter().map(|example| example.ids.as_slice()));
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (example, range) in examples.iter().zip(packed.segments.ranges()) {
        rows.extend((example.supervised_from..example.ids.len()).map(|token| (range.start + token - 1) as u32));
        targets.extend_from_slice(&example.ids[example.supervised_from.min(example.ids.len())..]);
    }
    let weights = vec![1.0; rows.len()];
    (packed, Supervised { rows: rows.into(), targets: targets.into(), weights: weights.into() })
}

/// Rows of a prompt and a completion, with the loss on the completion and the end token only. Both are tokenised as one text; the loss starts
/// where its tokens first differ from those of the prompt alone.
///
/// # Errors
/// If a column is missing, a row or all rows are too long for `limit`, or a completion leaves no token to learn.
pub fn prompt_completion(
    table: &Table,
    columns: [&str; 2],
    tokenizer: &Tokenizer,
    end_id: u32,
    limit: Limit,
) -> Result<(Vec<Example>, Counts)> {
    table.require(&columns)?;
    let mut prompts = Vec::with_capacity(table.rows.len());
    let mut texts = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let (prompt, completion) = (table.text(row, columns[0])?, table.text(row, columns[1])?);
        if completion.is_empty() {
            return Err(table.error(row, format!("column {:?} is empty: nothing to learn", columns[1])));
        }
        prompts.push(prompt.to_owned());
        texts.push(format!("{prompt}{completion}"));
    }
    let (prompts, texts) = (tokenizer.encode_all(prompts)?, tokenizer.encode_all(texts)?);
    let mut counts = Counts::default();
    let mut examples = Vec::with_capacity(texts.len());
    for ((row, prompt), text) in table.rows.iter().zip(prompts).zip(texts) {
        let common = prompt.iter().zip(&text).take_while(|(a, b)| a == b).count();
        let Some(ids) = limit.apply(ended(text, end_id), table, row, &mut counts)? else { continue };
        let example = Example { ids, supervised_from: common.max(1) };
        if example.n_supervised() == 0 {
            return Err(table.error(row, "truncation leaves no token of the completion to learn; drop such rows or shorten the prompt"));
        }
        examples.push(example);
    }
    limit.check_left(table, &counts)?;
    Ok((examples, counts))
}

/// Rows that are one text each, with the loss on every token but the first.
///
/// # Errors
/// If the column is missing, a row or all rows are too long for `limit`, or a text has fewer than two tokens.
pub fn documents(table: &Table, column: &str, tokenizer: &Tokenizer, end_id: u32, limit: Limit) -> Result<(Vec<Example>, Counts)> {
    table.require(&[column])?;
    let texts = table.rows.iter().map(|row| table.text(row, column).map(str::to_owned)).collect::<Result<_>>()?;
    let mut counts = Counts::default();
    let mut examples = Vec::with_capacity(table.rows.len());
    for (row, ids) in table.rows.iter().zip(tokenizer.encode_all(texts)?) {
        let Some(ids) = limit.apply(ended(ids, end_id), table, row, &mut counts)? else { continue };
        if ids.len() < 2 {
            return Err(table.error(row, format!("column {column:?}: {} tokens, at least 2 are needed to predict one", ids.len())));
        }
        examples.push(Example { ids, supervised_from: 1 });
    }
    limit.check_left(table, &counts)?;
    Ok((examples, counts))
}

/// Running text, the rows joined by line ends, cut into blocks of `block_tokens` that each start with what the tokenizer puts before a text.
/// The last block may be shorter; one of a single token is left out.
///
/// # Errors
/// If the column is missing or the text is too short for one prediction.
pub fn blocks(table: &Table, column: &str, tokenizer: &Tokenizer, block_tokens: usize) -> Result<(Vec<Example>, Counts)> {
    table.require(&[column])?;
    let start = tokenizer.encode("")?;
    if block_tokens <= start.len() + 1 {
        return Err(Error::config("block_tokens", format!("found {block_tokens}, expected more than {}", start.len() + 1)));
    }
    let lines = table.rows.iter().map(|row| Ok(format!("{}\n", table.text(row, column)?))).collect::<Result<Vec<_>>>()?;
    // Line by line, because tokenizers take time quadratic in the length of a text.
    let encoded = tokenizer.encode_all(lines)?;
    let ids: Vec<u32> = encoded.iter().flat_map(|ids| ids.strip_prefix(start.as_slice()).unwrap_or(ids)).copied().collect();
    let examples: Vec<Example> = ids
        .chunks(block_tokens - start.len())
        .map(|block| Example { ids: [start.as_slice(), block].concat(), supervised_from: start.len().max(1) })
        .filter(|example| example.n_supervised() > 0)
        .collect();
    if examples.is_empty() {
        return Err(Error::data(&table.path, None, "too short: not one token can be predicted from another"));
    }
    let counts = Counts { n_rows: table.rows.len(), n_tokens: ids.len(), ..Counts::default() };
    Ok((examples, counts))
}

/// `ids` with the end token, which some tokenizers already put there.
fn ended(mut ids: Vec<u32>, end_id: u32) -> Vec<u32> {
    if ids.last() != Some(&end_id) {
        ids.push(end_id);
    }
    ids
}

/// The token that ends a text, of those the model's configuration names.
///
/// # Errors
/// [`Error::Checkpoint`] if it names none: the model would never learn to stop.
pub fn end_id(end_ids: &[u32], model: &Path) -> Result<u32> {
    end_ids.first().copied().ok_or_else(|| {
        let message = "key \"eos_token_id\" is missing: the model would never learn to stop; add the end token's id";
        Error::checkpoint(&model.join("config.json"), message)
    })
}
