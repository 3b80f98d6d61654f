//! Rows of the user's files as token sequences of one task, split into what trains and what is held out.

use crate::config::{ColumnsConfig, SftConfig};
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Example, Limit, blocks, documents, end_id, prompt_completion};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use std::path::Path;

/// A text and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The class.
    pub label: u32,
}

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// What trains.
    pub train: Vec<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the rows read, training rows first.
    pub counts: [Counts; 2],
}

/// Blocks of running text are at most this long unless asked for: longer ones cost quadratic attention for little gain.
const DEFAULT_BLOCK_TOKENS: usize = 512;

/// Labelled rows, and the labels of the training file.
///
/// # Errors
/// If a file, column or label is missing or bad, or a row is too long.
pub fn labelled(config: &SftConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<(Rows<Labelled>, Labels)> {
    let (train, held_out) = config.data.read(&config.columns.names)?;
    let labels = match model.label_names() {
        // A classifier keeps the order of its classes; placeholders such as LABEL_0 are not classes of anything.
        names if !names.is_empty() && !names.iter().any(|name| name.starts_with("LABEL_")) => Labels::in_order(names),
        _ => Labels::of_column(&train, &config.columns.label)?,
    };
    if labels.len() < 2 {
        let message = format!("column {:?} holds only the label {:?}: nothing to tell apart", config.columns.label, labels.names()[0]);
        return Err(Error::data(&config.data.train, None, message));
    }
    let limit = Limit::new(model.max_positions, config.overlong, tokenizer)?;
    let [train, held_out] = config.data.separate(train, held_out, config.seed)?;
    let (train, train_counts) = labelled_table(&train, &config.columns, &labels, tokenizer, limit)?;
    let (held_out, held_out_counts) = labelled_table(&held_out, &config.columns, &labels, tokenizer, limit)?;
    Ok((Rows { train, held_out, counts: [train_counts, held_out_counts] }, labels))
}

/// Labelled rows of one table.
///
/// # Errors
/// If a column is missing, a label is unknown, or a row or all rows are too long for `limit`.
pub fn labelled_table(
    table: &Table,
    columns: &ColumnsConfig,
    labels: &Labels,
    tokenizer: &Tokenizer,
    limit: Limit,
) -> Result<(Vec<Labelled>, Counts)> {
    table.require(&[&columns.text, &columns.label])?;
    let texts = table.rows.iter().map(|row| table.text(row, &columns.text).map(str::to_owned)).collect::<Result<_>>()?;
    let mut counts = Counts::default();
    let mut rows = Vec::with_capacity(table.rows.len());
    for (row, ids) in table.rows.iter().zip(tokenizer.encode_all(texts)?) {
        let label = labels.index_of_row(table, row, &columns.label)? as u32;
        if ids.is_empty() {
            return Err(table.error(row, format!("column {:?} is empty: no token to classify", columns.text)));
        }
        if let Some(ids) = limit.apply(ids, table, row, &mut counts)? {
            rows.push(Labelled { ids, label });
        }
    }
    limit.check_left(table, &counts)?;
    Ok((rows, counts))
}

/// Rows for next-token training.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long.
pub fn next_token(config: &SftConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Rows<Example>> {
    let (train, held_out) = config.data.read(&config.columns.names)?;
    let [train, held_out] = config.data.separate(train, held_out, config.seed)?;
    let source = TextSource {
        columns: &config.columns,
        block_tokens: config.block_tokens,
        folder: &config.model,
        model,
        tokenizer,
        limit: Limit::new(model.max_positions, config.overlong, tokenizer)?,
    };
    let (train, train_counts) = source.examples(&train)?;
    let (held_out, held_out_counts) = source.examples(&held_out)?;
    Ok(Rows { train, held_out, counts: [train_counts, held_out_counts] })
}

/// How the rows of a table become examples for a language model.
#[derive(Debug)]
pub struct TextSource<'a> {
    /// What the columns mean.
    pub columns: &'a ColumnsConfig,
    /// Tokens per block of running text, 0 for the default.
    pub block_tokens: usize,
    /// The model's folder, to be named in errors.
    pub folder: &'a Path,
    /// The model's shape.
    pub model: &'a ModelConfig,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How long a sequence may be.
    pub limit: Limit,
}

impl TextSource<'_> {
    /// Prompts and completions if the table has both columns, blocks of running text if it is a text file, else one document per row.
    ///
    /// # Errors
    /// If a column is missing or a row is too long.
    pub fn examples(&self, table: &Table) -> Result<(Vec<Example>, Counts)> {
        let Self { columns, tokenizer, limit, .. } = self;
        let has = |column: &String| table.columns.contains(column);
        if has(&columns.prompt) && has(&columns.completion) {
            let end_id = end_id(&self.model.end_ids, self.folder)?;
            return prompt_completion(table, [&columns.prompt, &columns.completion], tokenizer, end_id, *limit);
        }
        if table.path.extension().is_some_and(|extension| extension == "txt") {
            let most = limit.max_tokens;
            let block_tokens = if self.block_tokens == 0 { most.min(DEFAULT_BLOCK_TOKENS) } else { self.block_tokens };
            if block_tokens > most {
                return Err(Error::config("block_tokens", format!("found {block_tokens}, the model has {most} positions")));
            }
            return blocks(table, &columns.text, tokenizer, block_tokens);
        }
        documents(table, &columns.text, tokenizer, end_id(&self.model.end_ids, self.folder)?, *limit)
    }
}
