//! Sentences of tagged words.

use crate::columns::ColumnsConfig;
use crate::examples::{Counts, Limit};
use crate::labels::Labels;
use crate::layout;
use crate::rows::Table;
use crate::source::{DataConfig, Draw, Rows};
use crate::tags::{self, tagged};
use crate::text::TextSource;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};

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

    /// The names of the tags predicted and of the right ones, given what was `found` for each word that has a token. A word without tokens counts
    /// as outside of all entities, so that what was cut off is missed and not left out.
    pub fn names<'a>(&self, mut found: impl FnMut() -> usize, labels: &'a [String]) -> [Vec<&'a str>; 2] {
        let predicted = self.firsts.iter().map(|first| first.map_or(tags::OUTSIDE, |_| labels[found()].as_str())).collect();
        [predicted, self.tags.iter().map(|&tag| labels[tag as usize].as_str()).collect()]
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

/// Sentences, and the tags: those `known`, or those of the training file. `draw` says which train.
///
/// # Errors
/// If a file, column or tag is missing or bad, or a sentence is too long.
pub fn sentences(data: &DataConfig, source: &TextSource<'_>, known: Option<Labels>, draw: Draw<'_>) -> Result<(Rows<Tagged>, Labels)> {
    let TextSource { columns, tokenizer, limit, .. } = *source;
    let files = data.open(&columns.names, draw)?;
    let labels = match known {
        Some(labels) => {
            tags::check_names(labels.names(), source.folder)?;
            labels
        }
        None => tags::labels_of_files(&files, columns.tagged())?,
    };
    if labels.len() < 2 {
        let message = format!("column {:?} holds only the tag {:?}: nothing to find", columns.tags, tags::OUTSIDE);
        return Err(Error::data(data.train.first(), None, message));
    }
    let notes = files.train().map(|table| layout::note(table, "tagging", &columns.tagged(), &[])).collect();
    let rows = files
        .rows(limit, &|| source.settings("sentences", labels.names()), |table| sentence_table(table, columns, &labels, tokenizer, limit))?;
    Ok((Rows { notes, ..rows }, labels))
}

/// The sentences of one table.
///
/// # Errors
/// If a column is missing, a tag is unknown or not IOB2, or a sentence is too long for `limit`.
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
        let n_words = words.firsts.iter().flatten().count();
        let firsts = limit.left(words.firsts, ids.len());
        let n_left = firsts.iter().flatten().count();
        counts.n_targets += n_left;
        counts.n_targets_cut += n_words - n_left;
        let tags = tags.into_iter().map(|tag| tag as u32).collect();
        let sentence = Tagged { ids, firsts, tags };
        if sentence.supervised().next().is_none() {
            return Err(table.error(row, "no word has a token: nothing to tag; leave the row out"));
        }
        sentences.push(sentence);
    }
    Ok((sentences, counts))
}
