//! Rows of the user's files as token sequences: texts to hide tokens of, and groups of texts to compare.

use crate::config::{ColumnsConfig, ContrastiveConfig, Objective};
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_data::examples::{Counts, Limit};
use kiln_data::layout;
use kiln_data::rows::{Row, Table};
use kiln_data::source::{Read, Rows};
use kiln_data::store::encode::{Words, push_float, push_list};
use kiln_data::store::{Sequence, Stored};
use kiln_data::text::settings;
use kiln_data::texts::{self, filled};

/// Texts that are compared with each other, and how alike they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The tokens of each text: a text; an anchor, its positive and its hard negatives; or the two texts of a scored pair.
    pub texts: Vec<Vec<u32>>,
    /// The score of a scored pair, else 0.
    pub score: f64,
}

impl Sequence for Group {
    fn n_tokens(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }
}

impl Stored for Group {
    fn write(&self, words: &mut Vec<u32>) {
        push_float(words, self.score);
        self.texts.iter().for_each(|text| push_list(words, text));
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let (score, mut texts) = (words.float()?, Vec::new());
        while words.end().is_none() {
            texts.push(words.list()?.to_vec());
        }
        (!texts.is_empty()).then_some(Self { texts, score })
    }
}

/// Texts for masked language modelling.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long or empty.
pub fn texts(config: &ContrastiveConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Rows<Text>> {
    let ContrastiveConfig { columns, block_tokens, .. } = config;
    let files = config.data.open(&columns.names, config.draw())?;
    let notes = files.train().map(|table| layout::note(table, "text", &[&columns.text], &[])).collect();
    let limit = Limit::new(model.max_positions, config.overlong, tokenizer)?;
    let settings = || settings("texts", &columns.text, limit, tokenizer, block_tokens);
    let rows = files.rows(limit, &settings, |table| texts::read(table, &columns.text, tokenizer, limit, *block_tokens))?;
    Ok(Rows { notes, ..rows })
}

/// The tokens of texts, cut where they are longer than `limit` allows, whatever it says of such rows.
///
/// # Errors
/// If the tokenizer or the model cannot represent one.
pub(crate) fn cut(texts: Vec<String>, tokenizer: &Tokenizer, limit: Limit, counts: &mut Counts) -> Result<Vec<Vec<u32>>> {
    let mut sequences = tokenizer.encode_all(texts)?;
    for ids in &mut sequences {
        let n_tokens = ids.len();
        *ids = limit.cut(std::mem::take(ids));
        counts.n_truncated += usize::from(ids.len() < n_tokens);
        counts.n_tokens += ids.len();
    }
    counts.n_rows += sequences.len();
    Ok(sequences)
}

/// Groups of texts for the embedding objectives, and what became of the rows.
///
/// # Errors
/// If a column is missing or bad, or a text is too long or empty.
pub fn groups(table: &Table, objective: Objective, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Read<Group> {
    let has_negatives = table.columns.contains(&columns.negative);
    let (anchor, positive) = (("columns.anchor", columns.anchor.as_str()), ("columns.positive", columns.positive.as_str()));
    let wanted = match objective {
        Objective::Mlm | Objective::Simcse => vec![("columns.text", columns.text.as_str())],
        Objective::Mnrl | Objective::CachedMnrl if !has_negatives => vec![anchor, positive],
        Objective::Mnrl | Objective::CachedMnrl | Objective::Triplet => vec![anchor, positive, ("columns.negative", &columns.negative)],
        Objective::Cosent => vec![anchor, positive, ("columns.score", &columns.score)],
    };
    table.require_named(&wanted)?;
    let n_single = wanted.len().min(2);
    let mut texts = Vec::new();
    let mut rows = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let first = texts.len();
        for (_, column) in &wanted[..n_single] {
            texts.push(filled(table, row, column, table.text(row, column)?)?);
        }
        let mut score = 0.0;
        match objective {
            Objective::Cosent => score = table.number(row, &columns.score)?,
            // A file may have negatives for some of its rows only.
            Objective::Mnrl | Objective::CachedMnrl if !row.fields.contains_key(&columns.negative) => {}
            _ if wanted.len() > 2 => texts.extend(negatives(table, row, &columns.negative)?),
            _ => {}
        }
        if objective == Objective::Triplet && texts.len() - first != 3 {
            return Err(table.error(row, format!("{} negatives, triplet takes one: repeat the row, or use mnrl", texts.len() - first - 2)));
        }
        rows.push((row, texts.len() - first, score));
    }
    let mut counts = Counts::default();
    let mut groups = Vec::with_capacity(rows.len());
    let mut encoded = tokenizer.encode_all(texts)?.into_iter();
    for (row, n_texts, score) in rows {
        let of_row: Vec<Vec<u32>> = encoded.by_ref().take(n_texts).collect();
        let mut of_texts = Counts::default();
        let mut kept = Vec::with_capacity(n_texts);
        for ids in of_row {
            kept.extend(limit.apply(ids, table, row, &mut of_texts)?);
        }
        counts.n_truncated += usize::from(of_texts.n_truncated > 0);
        counts.add_cuts(&of_texts);
        if of_texts.n_dropped > 0 {
            counts.n_dropped += 1;
            continue;
        }
        counts.n_rows += 1;
        counts.n_tokens += of_texts.n_tokens;
        groups.push(Group { texts: kept, score });
    }
    Ok((groups, counts))
}

/// The texts of groups column by column: first texts, second texts, then hard negatives.
pub fn by_column<'a>(groups: &[&'a Group]) -> Vec<&'a [u32]> {
    let n_columns = groups.iter().map(|group| group.texts.len()).max().unwrap_or(0);
    let column = |index: usize| groups.iter().filter_map(move |group| group.texts.get(index).map(Vec::as_slice));
    (0..n_columns).flat_map(column).collect()
}

/// The hard negatives of a row: a text, or an array of texts.
fn negatives(table: &Table, row: &Row, column: &str) -> Result<Vec<String>> {
    let texts = match row.fields.get(column) {
        Some(field) if field.is_array() => table.texts(row, column)?,
        _ => vec![table.text(row, column)?],
    };
    texts.into_iter().map(|text| filled(table, row, column, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_on_disk_come_back_as_they_were() {
        for group in [
            Group { texts: vec![vec![1, 2, 3]], score: 0.0 },
            Group { texts: vec![vec![1], vec![2, 3], vec![4, 5, 6], vec![7]], score: 0.0 },
            Group { texts: vec![vec![1, 2], vec![]], score: 0.1 + 0.2 },
        ] {
            let mut words = Vec::new();
            group.write(&mut words);
            assert_eq!(Group::read(&words), Some(group));
        }
        assert_eq!(Group::read(&[0, 0, 3, 1, 2]), None, "cut off");
        assert_eq!(Group::read(&[0, 0]), None, "no text");
    }
}
