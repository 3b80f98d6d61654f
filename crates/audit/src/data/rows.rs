//! What a file's rows are, for an audit: a text, and perhaps a class and a source.

use super::DataAuditConfig;
use kiln_core::Result;
use kiln_data::columns::ColumnsConfig;
use kiln_data::labels::Labels;
use kiln_data::layout::Layout;
use kiln_data::rows::{Table, text_of};

/// The rows of a file.
pub(super) struct Rows<'a> {
    pub table: &'a Table,
    /// The text of each row: all its texts, one after the other.
    pub texts: Vec<String>,
    pub labels: Option<Classes>,
    /// The number of each row's source.
    pub sources: Option<Vec<usize>>,
}

/// The classes of a file.
pub(super) struct Classes {
    pub names: Vec<String>,
    /// The class of each row.
    pub of_row: Vec<usize>,
}

impl<'a> Rows<'a> {
    pub fn new(table: &'a Table, config: &DataAuditConfig) -> Result<Self> {
        let columns = &config.columns;
        let sources = config.source.as_ref().map(|source| {
            table.require_named(&[("source", source)])?;
            classes(table, source).map(|classes| classes.of_row)
        });
        let labels = if table.has(&columns.label) { Some(classes(table, &columns.label)?).filter(Classes::are_classes) } else { None };
        Ok(Self { table, texts: texts(table, columns)?, labels, sources: sources.transpose()? })
    }
}

impl Classes {
    /// Whether these are classes of a classification, and not numbers, names or keys of rows.
    fn are_classes(&self) -> bool {
        let is_fraction = |name: &String| name.parse::<f64>().is_ok_and(|number| number.fract() != 0.0);
        self.names.len() > 1 && 2 * self.names.len() <= self.of_row.len() && !self.names.iter().any(is_fraction)
    }
}

fn classes(table: &Table, column: &str) -> Result<Classes> {
    let names = table.rows.iter().map(|row| table.label(row, column)).collect::<Result<Vec<_>>>()?;
    let labels = Labels::distinct(names.iter().cloned());
    let of_row = names.iter().map(|name| labels.index(name).expect("one of them")).collect();
    Ok(Classes { names: labels.names().to_vec(), of_row })
}

/// The columns of texts that a file has.
///
/// # Errors
/// If it has none.
pub(super) fn text_columns<'a>(table: &Table, columns: &'a ColumnsConfig) -> Result<Vec<&'a str>> {
    let ColumnsConfig { text, text_b, prompt, completion, messages, chosen, rejected, tokens, .. } = columns;
    let known = [text, text_b, prompt, completion, messages, chosen, rejected, tokens];
    let found: Vec<&str> = known.into_iter().filter(|column| table.has(column)).map(String::as_str).collect();
    match (found.is_empty(), Layout::of(table, columns)) {
        (false, _) => Ok(found),
        // Those of a layout whose columns have names of their own.
        (true, Ok((layout, _))) => Ok(layout.columns().into_iter().filter(|column| table.has(column)).collect()),
        (true, Err(_)) => table.require_named(&[("columns.text", text)]).map(|()| found),
    }
}

/// The text of each row.
///
/// # Errors
/// If there is no column of texts.
pub(super) fn texts(table: &Table, columns: &ColumnsConfig) -> Result<Vec<String>> {
    let columns = text_columns(table, columns)?;
    Ok(table.rows.iter().map(|row| text_of(row, &columns)).collect())
}
