//! Texts and pairs of texts, each with its class or its number.

use crate::columns::ColumnsConfig;
use crate::examples::{Counts, Limit};
use crate::labels::Labels;
use crate::layout;
use crate::rows::{Row, Table};
use crate::source::{DataConfig, Draw, Files, Rows};
use crate::text::TextSource;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};

/// A text, or a pair of texts, and what is right for it: the index of its class, or a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled<L> {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The type of each token: 1 in a second text.
    pub token_types: Vec<u32>,
    /// What is right.
    pub label: L,
}

/// Rows laid end to end.
pub fn packed<L>(rows: &[&Labelled<L>]) -> Packed {
    Packed::typed(rows.iter().map(|row| (row.ids.as_slice(), row.token_types.as_slice())))
}

/// Rows with a class, and the classes: those `known`, or those of the training file. `draw` says which train.
///
/// # Errors
/// If a file, column or label is missing or bad, or a row is too long.
pub fn classes(data: &DataConfig, source: &TextSource<'_>, known: Option<Labels>, draw: Draw<'_>) -> Result<(Rows<Labelled<u32>>, Labels)> {
    let TextSource { columns, tokenizer, limit, .. } = *source;
    let (files, labels, notes) = opened(data, source, known, draw)?;
    let rows = files
        .rows(limit, &|| source.settings("classes", labels.names()), |table| class_table(table, columns, &labels, tokenizer, limit))?;
    Ok((Rows { notes, ..rows }, labels))
}

/// The files of rows with a class, the classes, and what the files were taken for.
pub(crate) fn opened<'a>(
    data: &'a DataConfig,
    source: &TextSource<'a>,
    known: Option<Labels>,
    draw: Draw<'a>,
) -> Result<(Files<'a>, Labels, Vec<String>)> {
    let columns = source.columns;
    let files = data.open(&columns.names, draw)?;
    let labels = match known {
        Some(labels) => labels,
        None => Labels::of_files(&files, &columns.label)?,
    };
    if labels.len() < 2 {
        let message = format!("column {:?} holds only the label {:?}: nothing to tell apart", columns.label, labels.names()[0]);
        return Err(Error::data(data.train.first(), None, message));
    }
    check_pairs(&files, columns)?;
    let notes = files.train().map(|table| layout::note(table, "classification", &columns.sequence(), &[])).collect();
    Ok((files, labels, notes))
}

/// Rows of one table with their classes.
///
/// # Errors
/// If a column is missing, a label is unknown, or a row is too long for `limit`.
pub fn class_table(
    table: &Table,
    columns: &ColumnsConfig,
    labels: &Labels,
    tokenizer: &Tokenizer,
    limit: Limit,
) -> Result<(Vec<Labelled<u32>>, Counts)> {
    labelled(table, columns, tokenizer, limit, |row| Ok(labels.index_of_row(table, row, &columns.label)? as u32))
}

/// Rows with a number; `draw` says which train.
///
/// # Errors
/// If a file, column or number is missing or bad, or a row is too long.
pub fn numbers(data: &DataConfig, source: &TextSource<'_>, draw: Draw<'_>) -> Result<Rows<Labelled<f32>>> {
    let TextSource { columns, tokenizer, limit, .. } = *source;
    let files = data.open(&columns.names, draw)?;
    check_pairs(&files, columns)?;
    let notes = files.train().map(|table| layout::note(table, "regression", &columns.sequence(), &[])).collect();
    let rows = files.rows(limit, &|| source.settings("numbers", &[]), |table| number_table(table, columns, tokenizer, limit))?;
    let first = rows.train.get(0)?.label;
    if rows.train.each(|row| row.label == first)?.iter().all(|is_first| *is_first) {
        let message = format!("column {:?} holds only the number {first}: nothing to learn", columns.label);
        return Err(Error::data(data.train.first(), None, message));
    }
    Ok(Rows { notes, ..rows })
}

/// Rows of one table with their numbers.
///
/// # Errors
/// If a column or number is missing or bad, or a row is too long for `limit`.
pub fn number_table(table: &Table, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<(Vec<Labelled<f32>>, Counts)> {
    labelled(table, columns, tokenizer, limit, |row| Ok(table.number(row, &columns.label)? as f32))
}

fn has_pairs(table: &Table, columns: &ColumnsConfig) -> bool {
    table.columns.contains(&columns.text_b)
}

/// Pairs are learnt beside pairs and judged by pairs, single texts by single texts.
fn check_pairs(files: &Files<'_>, columns: &ColumnsConfig) -> Result<()> {
    let tables: Vec<&Table> = files.train().chain(files.aside()).collect();
    let single = tables.iter().find(|table| !has_pairs(table, columns));
    match single {
        Some(single) if tables.iter().any(|table| has_pairs(table, columns)) => {
            single.require_named(&[("columns.text", &columns.text), ("columns.label", &columns.label), ("columns.text_b", &columns.text_b)])
        }
        _ => Ok(()),
    }
}

/// Rows of one table, and what `label` says of each.
pub(crate) fn labelled<'a, L>(
    table: &'a Table,
    columns: &ColumnsConfig,
    tokenizer: &Tokenizer,
    limit: Limit,
    label: impl Fn(&'a Row) -> Result<L>,
) -> Result<(Vec<Labelled<L>>, Counts)> {
    table.require_named(&[("columns.text", &columns.text), ("columns.label", &columns.label)])?;
    let text = |row, column: &str| table.text(row, column).map(str::to_owned);
    let second = has_pairs(table, columns).then_some(&columns.text_b);
    let pair = |row| Ok((text(row, &columns.text)?, second.map(|column| text(row, column)).transpose()?));
    let texts = table.rows.iter().map(pair).collect::<Result<_>>()?;
    let mut counts = Counts::default();
    let mut rows = Vec::with_capacity(table.rows.len());
    for (row, encoded) in table.rows.iter().zip(tokenizer.encode_pairs(texts)?) {
        let label = label(row)?;
        if encoded.ids.is_empty() {
            return Err(table.error(row, format!("column {:?} is empty: no token to judge", columns.text)));
        }
        if let Some(encoded) = limit.apply_pair(encoded, table, row, &mut counts)? {
            rows.push(Labelled { ids: encoded.ids, token_types: encoded.token_types, label });
        }
    }
    Ok((rows, counts))
}
