//! What an encoder is judged by: scored pairs, or queries that have to find what answers them.

use crate::config::{ColumnsConfig, ContrastiveConfig, Objective};
use crate::data::{Group, Judged, cut, groups};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Limit};
use kiln_data::retrieval::Collection;
use kiln_data::rows::Table;
use kiln_data::source::joined;
use std::collections::BTreeMap;
use std::path::Path;

/// What an encoder is judged by.
#[derive(Clone, Debug)]
pub enum Judge {
    /// Pairs and their scores.
    Scores(Vec<Group>),
    /// Queries, documents, and which answer which.
    Search(Search),
}

/// A search in tokens.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The tokens of each document.
    pub documents: Vec<Vec<u32>>,
    /// The tokens of each query.
    pub queries: Vec<Vec<u32>>,
    /// For each query the documents judged, by their place, and how relevant each is.
    pub judgements: Vec<Vec<(usize, u32)>>,
}

/// The groups that train, and what judges the encoder.
///
/// The judge is the folder or file of held-out data, by what it holds: judged queries, scored pairs, or anchors and positives, each anchor
/// then to find its positives among all positives and negatives of the file.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long or empty.
pub fn train_and_judge(config: &ContrastiveConfig, tokenizer: &Tokenizer, max_tokens: usize) -> Result<Judged<Group, Judge>> {
    let limit = Limit::new(max_tokens, config.overlong, tokenizer)?;
    let (objective, columns) = (config.objective, &config.columns);
    let folder = config.data.held_out.as_deref().filter(|path| path.is_dir());
    if objective == Objective::Simcse && config.data.held_out.is_none() {
        let message = "missing: texts alone cannot judge; name scored pairs, anchors and positives, or a folder of judged queries";
        return Err(Error::config("data.held_out", message));
    }
    let tables = match folder {
        Some(_) => config.data.tables_but_held_out(&columns.names)?,
        None => config.data.tables(&columns.names, config.draw())?,
    };
    let training = tables.training(config.draw(), limit, |table| groups(table, objective, columns, tokenizer, limit))?;
    let (judge, held_out) = match folder {
        Some(folder) => judge(folder, columns, tokenizer, limit)?,
        None => of_tables(&tables.held_out, columns, tokenizer, limit)?,
    };
    Ok(Judged { training, judge, held_out })
}

/// What the folder or file at `path` judges an encoder by.
///
/// # Errors
/// As [`train_and_judge`].
pub fn judge(path: &Path, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<(Judge, Counts)> {
    if !path.is_dir() {
        return of_tables(&[Table::read(path, &columns.names)?], columns, tokenizer, limit);
    }
    let Collection { documents, queries, judgements } = Collection::read(path)?;
    let mut counts = Counts::default();
    let documents = cut(documents, tokenizer, limit, &mut counts)?;
    let search = Search { documents, queries: cut(queries, tokenizer, limit, &mut counts)?, judgements };
    Ok((Judge::Search(search), counts))
}

fn of_tables(tables: &[Table], columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<(Judge, Counts)> {
    let of = |objective| joined(tables, limit, |table| groups(table, objective, columns, tokenizer, limit));
    if tables.iter().all(|table| table.has(&columns.score)) {
        let (pairs, counts) = of(Objective::Cosent)?;
        if pairs.iter().all(|pair| pair.score == pairs[0].score) {
            return Err(Error::data(&tables[0].path, None, format!("every {:?} is {}: nothing to rank", columns.score, pairs[0].score)));
        }
        return Ok((Judge::Scores(pairs), counts));
    }
    let (groups, counts) = of(Objective::Mnrl)?;
    let (mut documents, mut queries) = (Numbers::default(), Numbers::default());
    let mut judgements: Vec<Vec<(usize, u32)>> = Vec::new();
    for group in &groups {
        let (query, document) = (queries.of(&group.texts[0]), documents.of(&group.texts[1]));
        judgements.resize(queries.texts.len(), Vec::new());
        if !judgements[query].iter().any(|(known, _)| *known == document) {
            judgements[query].push((document, 1));
        }
        group.texts[2..].iter().for_each(|negative| {
            documents.of(negative);
        });
    }
    Ok((Judge::Search(Search { documents: documents.texts, queries: queries.texts, judgements }), counts))
}

/// Distinct texts, numbered as they come.
#[derive(Default)]
struct Numbers {
    texts: Vec<Vec<u32>>,
    numbers: BTreeMap<Vec<u32>, usize>,
}

impl Numbers {
    fn of(&mut self, text: &[u32]) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.numbers.insert(text.to_vec(), self.texts.len());
        self.texts.push(text.to_vec());
        self.texts.len() - 1
    }
}
