//! Sentences of tagged words.

use super::{Rows, labels_of_model, limit};
use crate::config::{ColumnsConfig, SftConfig};
use kiln_core::config::ModelConfig;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Limit};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::tags::{self, tagged};

/// A sentence and the tag of each of its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The first token of each word, which its tag is predicted from; `None` for a word without tokens: one that was cut off, or that the
    /// tokenizer leaves nothing of.
    pub firsts: Vec<Option<usize>>,
    /// The tag of each word, of those without tokens too.
    pub tags: Vec<u32>,
}

impl Tagged {
    /// The first token of each word that has one, with the word's tag.
    pub fn supervised(&self) -> impl Iterator<Item = (usize, u32)> {
        self.firsts.iter().zip(&self.tags).filter_map(|(&first, &tag)| Some((first?, tag)))
    }
}

/// Sentences laid end to end, each word's tag predicted from its first token with weight 1.
pub fn pack(sentences: &[&Tagged]) -> (Packed, Supervised) {
    let packed = Packed::new(sentences.iter().map(|sentence| sentence.ids.as_slice()));
    let starts = packed.segments.ranges().map(|range| range.start);
    let (rows, targets): (Vec<u32>, Vec<u32>) = sentences
        .iter()
        .zip(starts)
        .flat_map(|(sentence, start)| sentence.supervised().map(move |(first, tag)| ((start + first) as u32, tag)))
        .unzip();
    let weights = vec![1.0; rows.len()];
    (packed, Supervised { rows: rows.into(), targets: targets.into(), weights: weights.into() })
}

/// Sentences, and the tags of the training file.
///
/// # Errors
/// If a file, column or tag is missing or bad, or a sentence is too long.
pub fn sentences(config: &SftConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<(Rows<Tagged>, Labels)> {
    let (train, held_out) = config.data.read(&config.columns.names)?;
    let columns = config.columns.tagged();
    let labels = match labels_of_model(model, &model.family.token_classifier_class()) {
        Some(labels) => {
            tags::check_names(labels.names(), &config.model)?;
            labels
        }
        None => tags::labels(&train, columns)?,
    };
    if labels.len() < 2 {
        let message = format!("column {:?} holds only the tag {:?}: nothing to find", config.columns.tags, tags::OUTSIDE);
        return Err(Error::data(&config.data.train, None, message));
    }
    let limit = limit(config, model, tokenizer)?;
    let tables = config.data.separate(train, held_out, config.seed)?;
    let rows = Rows::of(tables, |table| sentence_table(table, &config.columns, &labels, tokenizer, limit))?;
    Ok((rows, labels))
}

/// The sentences of one table.
///
/// # Errors
/// If a column is missing, a tag is unknown or not IOB2, or a sentence or all are too long for `limit`.
pub fn sentence_table(
    table: &Table,
    columns: &ColumnsConfig,
    labels: &Labels,
    tokenizer: &Tokenizer,
    limit: Limit,
) -> Result<(Vec<Tagged>, Counts)> {
    table.require_named(&[("columns.tokens", &columns.tokens), ("columns.tags", &columns.tags)])?;
    let mut all_words = Vec::with_capacity(table.rows.len());
    let mut all_tags = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let (words, tags) = tagged(table, row, columns.tagged())?;
        all_words.push(words.into_iter().map(str::to_owned).collect());
        all_tags.push(tags.into_iter().map(|tag| labels.index_of(table, row, &columns.tags, tag)).collect::<Result<Vec<_>>>()?);
    }
    let mut counts = Counts::default();
    let mut sentences = Vec::with_capacity(table.rows.len());
    for ((row, words), tags) in table.rows.iter().zip(tokenizer.encode_split(all_words)?).zip(all_tags) {
        let Some(ids) = limit.apply(words.ids, table, row, &mut counts)? else { continue };
        let n_left = ids.len() - limit.n_end_tokens.min(ids.len());
        let firsts = words.firsts.into_iter().map(|first| first.filter(|&first| first < n_left)).collect();
        let tags = tags.into_iter().map(|tag| tag as u32).collect();
        let sentence = Tagged { ids, firsts, tags };
        if sentence.supervised().next().is_none() {
            return Err(table.error(row, "no word has a token: nothing to tag; leave the row out"));
        }
        sentences.push(sentence);
    }
    limit.check_left(table, &counts)?;
    Ok((sentences, counts))
}
