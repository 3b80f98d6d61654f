//! Rows of a table as token sequences for language models: prompt and completion, documents, or blocks of running text.

use crate::rows::{Row, Table};
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::{Encoded, Tokenizer};
use kiln_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows used.
    pub n_rows: usize,
    /// Rows cut at the model's last position.
    pub n_truncated: usize,
    /// Rows left out for their length.
    pub n_dropped: usize,
    /// Tokens of the rows used.
    pub n_tokens: usize,
    /// Of these, tokens or words that are predicted with a loss, where only some are.
    pub n_targets: usize,
    /// Tokens cut off.
    pub n_tokens_cut: usize,
    /// Of these, tokens or words that would have been predicted with a loss.
    pub n_targets_cut: usize,
    /// Lines of the first rows cut or left out; 0 is none.
    #[serde(skip)]
    pub lines_cut: [usize; 3],
}

impl Counts {
    /// Adds those of other rows, which come after these.
    pub fn add(&mut self, others: &Self) {
        self.n_rows += others.n_rows;
        self.n_truncated += others.n_truncated;
        self.n_dropped += others.n_dropped;
        self.n_tokens += others.n_tokens;
        self.n_targets += others.n_targets;
        self.n_tokens_cut += others.n_tokens_cut;
        self.n_targets_cut += others.n_targets_cut;
        others.lines_cut.iter().filter(|&&line| line > 0).for_each(|&line| self.add_line(line));
    }

    /// Takes over what was cut of one row, and what is left to predict.
    pub fn add_cuts(&mut self, of_row: &Self) {
        self.n_targets += of_row.n_targets;
        self.n_tokens_cut += of_row.n_tokens_cut;
        self.n_targets_cut += of_row.n_targets_cut;
        self.add_line(of_row.lines_cut[0]);
    }

    /// Remembers a row that was cut or left out, if it is among the first.
    pub fn add_line(&mut self, line: usize) {
        if let Some(free) = self.lines_cut.iter_mut().find(|free| **free == 0 || **free == line) {
            *free = line;
        }
    }
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
#[derive(Clone, Copy, Debug, Serialize)]
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
    pub fn apply(&self, ids: Vec<u32>, table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<Vec<u32>>> {
        Ok(self.excess(ids.len(), table, row, counts)?.map(|_| self.cut(ids)))
    }

    /// The same for a text or a pair of texts, of which the longer one is cut first, as transformers' `longest_first`.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_pair(&self, mut pair: Encoded, table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<Encoded>> {
        let Some(excess) = self.excess(pair.ids.len(), table, row, counts)? else { return Ok(None) };
        let lengths = pair.texts.clone().map(|text| text.len());
        let kept = longest_first(lengths, (lengths[0] + lengths[1]).saturating_sub(excess));
        // The second text first: what comes before it keeps its place.
        for (text, n_kept) in pair.texts.clone().into_iter().zip(kept).rev() {
            pair.ids.drain(text.start + n_kept..text.end);
            pair.token_types.drain(text.start + n_kept..text.end);
        }
        let [first, second] = pair.texts;
        let second_start = second.start - (first.len() - kept[0]);
        pair.texts = [first.start..first.start + kept[0], second_start..second_start + kept[1]];
        Ok(Some(pair))
    }

    /// The same for an example, whose cut tokens have no loss.
    ///
    /// # Errors
    /// As [`Self::apply`], and if no token with a loss is left.
    pub fn apply_example(&self, mut example: Example, table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<Example>> {
        let Some(excess) = self.excess(example.ids.len(), table, row, counts)? else { return Ok(None) };
        let end = example.ids.len() - self.n_end_tokens.min(example.ids.len());
        let start = end.saturating_sub(excess);
        let n_supervised = example.n_supervised();
        example.ids.drain(start..end);
        let moved = |token: usize| if token >= end { token - (end - start) } else { token.min(start) };
        for part in &mut example.supervised {
            *part = moved(part.start)..moved(part.end);
        }
        example.supervised.retain(|part| !part.is_empty());
        counts.n_targets += example.n_supervised();
        counts.n_targets_cut += n_supervised - example.n_supervised();
        if example.n_supervised() == 0 {
            return Err(table.error(row, "truncation leaves no token of the completion to learn; drop such rows or shorten the prompt"));
        }
        Ok(Some(example))
    }

    /// By how many tokens a row of `n_tokens` is too long, and counts it; `None` if the row is to be left out.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn excess(&self, n_tokens: usize, table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<usize>> {
        let excess = n_tokens.saturating_sub(self.max_tokens);
        if excess > 0 {
            counts.add_line(row.line);
            match self.overlong {
                Overlong::Refuse => {
                    let message = format!(
                        "{n_tokens} tokens, the model has {} positions; shorten the row, or set overlong to \"truncate\" or \"drop\"",
                        self.max_tokens
                    );
                    return Err(table.error(row, message));
                }
                Overlong::Truncate => counts.n_truncated += 1,
                Overlong::Drop => {
                    counts.n_dropped += 1;
                    return Ok(None);
                }
            }
        }
        counts.n_rows += 1;
        counts.n_tokens += n_tokens - excess;
        counts.n_tokens_cut += excess;
        Ok(Some(excess))
    }

    /// The ids, cut if there are too many; those at the end that a cut leaves in place stay.
    pub fn cut(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if ids.len() > self.max_tokens {
            let n_kept = self.max_tokens.saturating_sub(self.n_end_tokens);
            ids.drain(n_kept..ids.len() - self.n_end_tokens);
        }
        ids
    }

    /// The first tokens of words that are still there after a cut to `n_tokens`.
    pub fn left(&self, firsts: Vec<Option<usize>>, n_tokens: usize) -> Vec<Option<usize>> {
        let n_left = n_tokens - self.n_end_tokens.min(n_tokens);
        firsts.into_iter().map(|first| first.filter(|&first| first < n_left)).collect()
    }

    /// Checks that a row of the file at `path` was left.
    ///
    /// # Errors
    /// [`Error::Data`] if all were too long.
    pub fn check_left(&self, path: &Path, counts: &Counts) -> Result<()> {
        if counts.n_rows > 0 {
            return Ok(());
        }
        let message = format!("no row is left: all {} are longer than the {} positions that there are", counts.n_dropped, self.max_tokens);
        Err(Error::data(path, None, message))
    }
}

/// How many of two texts' tokens are left if `n_tokens` in all may be: the longer one is cut until both are equal, then both.
fn longest_first(lengths: [usize; 2], n_tokens: usize) -> [usize; 2] {
    let [short, long] = if lengths[0] <= lengths[1] { [0, 1] } else { [1, 0] };
    let mut kept = [0; 2];
    kept[short] = lengths[short].min(n_tokens / 2);
    kept[long] = lengths[long].min(n_tokens - kept[short]);
    kept
}

/// A token sequence and which parts of it have a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The tokens that are predicted with a loss, in order; never the first token of a text, which nothing predicts.
    pub supervised: Vec<Range<usize>>,
}

impl Example {
    /// With a loss on every token from `supervised_from` on.
    pub fn from(ids: Vec<u32>, supervised_from: usize) -> Self {
        let end = ids.len().max(1);
        let part = supervised_from.clamp(1, end)..end;
        Self { ids, supervised: vec![part] }
    }

    /// Tokens with a loss.
    pub fn n_supervised(&self) -> usize {
        self.supervised.iter().map(Range::len).sum()
    }
}

/// Lays examples end to end, each supervised token predicted from the row before it with weight 1.
pub fn pack(examples: &[&Example]) -> (Packed, Supervised) {
    let packed = Packed::new(examples.iter().map(|example| example.ids.as_slice()));
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (example, range) in examples.iter().zip(packed.segments.ranges()) {
        for supervised in &example.supervised {
            rows.extend(supervised.clone().map(|token| (range.start + token - 1) as u32));
            targets.extend_from_slice(&example.ids[supervised.clone()]);
        }
    }
    let weights = vec![1.0; rows.len()];
    (packed, Supervised { rows: rows.into(), targets: targets.into(), weights: weights.into() })
}

/// Prompts and completions, with the loss on the completion and the end token only. Both are tokenised as one text; the loss starts where
/// its tokens first differ from those of the prompt alone.
///
/// # Errors
/// If the tokenizer or the model cannot represent one of them.
pub fn completions(texts: Vec<[String; 2]>, tokenizer: &Tokenizer, end_id: u32) -> Result<Vec<Example>> {
    let (prompts, wholes) = texts.into_iter().map(|[prompt, completion]| (prompt.clone(), prompt + &completion)).unzip();
    let (prompts, wholes) = (tokenizer.encode_all(prompts)?, tokenizer.encode_all(wholes)?);
    let example = |(prompt, whole): (Vec<u32>, Vec<u32>)| {
        let common = prompt.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        Example::from(ended(whole, end_id), common)
    };
    Ok(prompts.into_iter().zip(wholes).map(example).collect())
}

/// The text in a row's `column`, which must not be empty: it is what is learnt.
///
/// # Errors
/// If the column is missing or the text empty.
pub fn completion<'a>(table: &Table, row: &'a Row, column: &str) -> Result<&'a str> {
    match table.text(row, column)? {
        "" => Err(table.error(row, format!("column {column:?} is empty: nothing to learn"))),
        text => Ok(text),
    }
}

/// Rows of a prompt and a completion, as [`completions`].
///
/// # Errors
/// If a column is missing, a row is too long for `limit`, or a completion leaves no token to learn.
pub fn prompt_completion(
    table: &Table,
    columns: [&str; 2],
    tokenizer: &Tokenizer,
    end_id: u32,
    limit: Limit,
) -> Result<(Vec<Example>, Counts)> {
    table.require_named(&[("columns.prompt", columns[0]), ("columns.completion", columns[1])])?;
    let texts = |row| Ok([table.text(row, columns[0])?.to_owned(), completion(table, row, columns[1])?.to_owned()]);
    completions_within(table, texts, tokenizer, end_id, limit)
}

/// What `texts` makes of each row, a prompt and a completion, as [`completions`].
///
/// # Errors
/// Those of `texts`; if a row is too long for `limit`, or a completion leaves no token to learn.
pub fn completions_within<'a>(
    table: &'a Table,
    texts: impl Fn(&'a Row) -> Result<[String; 2]>,
    tokenizer: &Tokenizer,
    end_id: u32,
    limit: Limit,
) -> Result<(Vec<Example>, Counts)> {
    let texts = table.rows.iter().map(texts).collect::<Result<_>>()?;
    let mut counts = Counts::default();
    let mut examples = Vec::with_capacity(table.rows.len());
    for (row, example) in table.rows.iter().zip(completions(texts, tokenizer, end_id)?) {
        examples.extend(limit.apply_example(example, table, row, &mut counts)?);
    }
    Ok((examples, counts))
}

/// Rows that are one text each, with the loss on every token but the first.
///
/// # Errors
/// If the column is missing, a row is too long for `limit`, or a text has fewer than two tokens.
pub fn documents(table: &Table, column: &str, tokenizer: &Tokenizer, end_id: u32, limit: Limit) -> Result<(Vec<Example>, Counts)> {
    table.require_named(&[("columns.text", column)])?;
    let texts = table.rows.iter().map(|row| table.text(row, column).map(str::to_owned)).collect::<Result<_>>()?;
    let mut counts = Counts::default();
    let mut examples = Vec::with_capacity(table.rows.len());
    for (row, ids) in table.rows.iter().zip(tokenizer.encode_all(texts)?) {
        let example = Example::from(ended(ids, end_id), 1);
        if example.n_supervised() == 0 {
            return Err(table.error(row, format!("column {column:?}: {} tokens, at least 2 are needed to predict one", example.ids.len())));
        }
        examples.extend(limit.apply_example(example, table, row, &mut counts)?);
    }
    Ok((examples, counts))
}

/// Blocks of running text are at most this long unless asked for: longer ones cost quadratic attention for little gain.
const DEFAULT_BLOCK_TOKENS: usize = 512;

/// Tokens per block of running text: as many as `asked` for, or if that is 0 as the model has positions, at most 512.
///
/// # Errors
/// [`Error::Config`] if the model has fewer positions.
pub fn block_length(asked: usize, max_positions: usize) -> Result<usize> {
    match asked {
        0 => Ok(max_positions.min(DEFAULT_BLOCK_TOKENS)),
        _ if asked <= max_positions => Ok(asked),
        _ => Err(Error::config("block_tokens", format!("found {asked}, the model has {max_positions} positions"))),
    }
}

/// Running text, the rows joined by line ends, cut into blocks of `block_tokens` that each start with what the tokenizer puts before a text.
/// The last block may be shorter; one of a single token is left out.
///
/// # Errors
/// If the column is missing or the text is too short for one prediction.
pub fn blocks(table: &Table, column: &str, tokenizer: &Tokenizer, block_tokens: usize) -> Result<(Vec<Example>, Counts)> {
    table.require_named(&[("columns.text", column)])?;
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
        .map(|block| Example::from([start.as_slice(), block].concat(), start.len()))
        .filter(|example| example.n_supervised() > 0)
        .collect();
    if examples.is_empty() {
        return Err(Error::data(&table.path, None, "too short: not one token can be predicted from another"));
    }
    let n_targets = examples.iter().map(Example::n_supervised).sum();
    let counts = Counts { n_rows: table.rows.len(), n_tokens: ids.len(), n_targets, ..Counts::default() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_is_cut_first() {
        for (lengths, n_tokens, kept) in [
            ([3, 9], 12, [3, 9]),
            ([3, 9], 8, [3, 5]),
            ([9, 3], 8, [5, 3]),
            ([9, 8], 7, [4, 3]),
            ([8, 9], 7, [3, 4]),
            ([5, 0], 3, [3, 0]),
            ([5, 4], 0, [0, 0]),
        ] {
            assert_eq!(longest_first(lengths, n_tokens), kept, "{lengths:?} in {n_tokens}");
        }
    }

    #[test]
    fn a_cut_takes_its_part_of_the_loss() {
        let row = Row { line: 1, fields: [].into() };
        let table = Table { path: "a.jsonl".into(), columns: Vec::new(), rows: vec![row.clone()] };
        let whole = Example { ids: (0..10).collect(), supervised: vec![2..4, 6..10] };
        let cut = |max_tokens, n_end_tokens| {
            let limit = Limit { max_tokens, overlong: Overlong::Truncate, n_end_tokens };
            limit.apply_example(whole.clone(), &table, &row, &mut Counts::default())
        };
        let expected = |ids: &[u32], parts: &[[usize; 2]]| {
            Some(Example { ids: ids.to_vec(), supervised: parts.iter().map(|&[start, end]| start..end).collect() })
        };
        assert_eq!(cut(10, 1).unwrap(), Some(whole.clone()));
        assert_eq!(cut(8, 1).unwrap(), expected(&[0, 1, 2, 3, 4, 5, 6, 9], &[[2, 4], [6, 8]]));
        assert_eq!(cut(5, 0).unwrap(), expected(&[0, 1, 2, 3, 4], &[[2, 4]]));
        assert_eq!(cut(3, 1).unwrap(), expected(&[0, 1, 9], &[[2, 3]]));
        assert!(cut(2, 0).unwrap_err().to_string().contains("leaves no token"));
    }

    #[test]
    fn parts_of_a_sequence_are_predicted_from_the_tokens_before_them() {
        let turns = Example { ids: vec![5, 6, 7, 8, 9], supervised: vec![1..2, 3..5] };
        let (packed, supervised) = pack(&[&Example::from(vec![1, 2, 3], 2), &turns]);
        assert_eq!(packed.ids[..], [1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(supervised.rows[..], [1, 3, 5, 6]);
        assert_eq!(supervised.targets[..], [3, 6, 8, 9]);
        assert_eq!(turns.n_supervised(), 3);
    }
}
