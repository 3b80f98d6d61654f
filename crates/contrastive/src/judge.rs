//! What an encoder is judged by: scored pairs, or queries that have to find what answers them.

use crate::config::{ColumnsConfig, ContrastiveConfig, Objective};
use crate::data::{Group, cut, groups};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Limit};
use kiln_data::retrieval::Collection;
use kiln_data::rows::Table;
use kiln_data::source::Rows;
use kiln_data::{layout, text};
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

/// The training groups, and what judges the encoder in their place of held-out rows.
///
/// The judge is the folder or file of held-out data, by what it holds: judged queries, scored pairs, or anchors and positives, each anchor
/// then to find its positives among all positives and negatives of the file.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long or empty.
pub fn train_and_judge(config: &ContrastiveConfig, tokenizer: &Tokenizer, max_tokens: usize) -> Result<(Rows<Group>, Judge)> {
    let limit = Limit::new(max_tokens, config.overlong, tokenizer)?;
    let (objective, columns) = (config.objective, &config.columns);
    if objective == Objective::Simcse && config.data.held_out.is_none() {
        let message = "missing: texts alone cannot judge; name scored pairs, anchors and positives, or a folder of judged queries";
        return Err(Error::config("data.held_out", message));
    }
    let folder = config.data.held_out.as_deref().filter(|path| path.is_dir());
    let files = match folder {
        Some(_) => config.data.open_but_held_out(&columns.names, config.draw())?,
        None => config.data.open(&columns.names, config.draw())?,
    };
    let settings = |objective: Objective| text::settings("groups", columns, limit, tokenizer, &objective);
    let train = files.read_train(limit, &|| settings(objective), |table| groups(table, objective, columns, tokenizer, limit))?;
    let (judge, counts) = match folder {
        Some(folder) => judge(folder, columns, tokenizer, limit)?,
        None => {
            let held_out = files.held_out().collect::<Vec<_>>();
            let objective = judged_as(&held_out, columns);
            let settings = || settings(objective);
            let (judges, counts) = files.read_held_out(limit, &settings, |table| groups(table, objective, columns, tokenizer, limit))?;
            (of_groups(held_out[0], objective, judges, columns)?, counts)
        }
    };
    let notes = files.train().map(|table| note(table, objective, columns)).collect();
    Ok((Rows::new(train, (Vec::new(), counts), notes), judge))
}

/// What a training file was taken for.
fn note(table: &Table, objective: Objective, columns: &ColumnsConfig) -> String {
    let [anchor, positive, negative, score] = [&columns.anchor, &columns.positive, &columns.negative, &columns.score].map(String::as_str);
    let (name, of_rows) = match objective {
        Objective::Mlm | Objective::Simcse => ("text", vec![columns.text.as_str()]),
        Objective::Cosent => ("scored pairs", vec![anchor, positive, score]),
        _ if table.has(negative) => ("triplets", vec![anchor, positive, negative]),
        _ => ("pairs", vec![anchor, positive]),
    };
    layout::note(table, name, &of_rows, &[])
}

/// How held-out rows are read: as scored pairs if all have scores.
fn judged_as(tables: &[&Table], columns: &ColumnsConfig) -> Objective {
    if tables.iter().all(|table| table.has(&columns.score)) { Objective::Cosent } else { Objective::Mnrl }
}

/// What the folder or file at `path` judges an encoder by.
///
/// # Errors
/// As [`train_and_judge`].
pub fn judge(path: &Path, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<(Judge, Counts)> {
    if !path.is_dir() {
        let table = Table::read(path, &columns.names)?;
        let objective = judged_as(&[&table], columns);
        let (judges, counts) = groups(&table, objective, columns, tokenizer, limit)?;
        limit.check_left(path, &counts)?;
        return Ok((of_groups(&table, objective, judges, columns)?, counts));
    }
    let Collection { documents, queries, judgements } = Collection::read(path)?;
    let mut counts = Counts::default();
    let documents = cut(documents, tokenizer, limit, &mut counts)?;
    let search = Search { documents, queries: cut(queries, tokenizer, limit, &mut counts)?, judgements };
    Ok((Judge::Search(search), counts))
}

/// A judge of the rows of `table` and others, read for `objective`.
fn of_groups(table: &Table, objective: Objective, groups: Vec<Group>, columns: &ColumnsConfig) -> Result<Judge> {
    if objective == Objective::Cosent {
        if groups.iter().all(|pair| pair.score == groups[0].score) {
            return Err(Error::data(&table.path, None, format!("every {:?} is {}: nothing to rank", columns.score, groups[0].score)));
        }
        return Ok(Judge::Scores(groups));
    }
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
    Ok(Judge::Search(Search { documents: documents.texts, queries: queries.texts, judgements }))
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
