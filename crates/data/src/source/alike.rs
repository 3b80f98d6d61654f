//! Rows with the same text, which go to one side of a file that is split: else what judges a run would be known by heart.

use crate::columns::ColumnsConfig;
use crate::duplicates::{hash, is_compared_line};
use crate::layout::Layout;
use crate::rows::{Table, text_of};
use rayon::prelude::*;

/// Which columns of a table make the text of a row.
#[derive(Clone, Copy, Debug)]
pub enum TextColumns<'a> {
    /// These, those left out that the table lacks.
    Named([&'a str; 3]),
    /// Those of the table's layout.
    Layout(&'a ColumnsConfig),
}

impl<'a> TextColumns<'a> {
    /// One column.
    pub fn one(column: &'a str) -> Self {
        Self::Named([column, "", ""])
    }

    /// Those of `table`.
    pub fn of(self, table: &Table) -> Vec<&'a str> {
        let columns = match self {
            Self::Named(columns) => columns.to_vec(),
            Self::Layout(columns) => {
                Layout::of(table, columns).map_or_else(|_| vec![columns.text.as_str()], |(layout, _)| layout.columns())
            }
        };
        columns.into_iter().filter(|column| table.has(column)).collect()
    }
}

/// Rows per unit of parallel work.
const CHUNK: usize = 256;

/// A number for each row: the same where the text is, which is compared as [`crate::duplicates`] does. Rows without a text, and short lines of
/// running text, are like no other: theirs is their place, counted from `first`.
pub(super) fn keys(table: &Table, texts: TextColumns<'_>, first: usize) -> Vec<u64> {
    let (columns, is_running) = (texts.of(table), table.is_running_text());
    let key = |(index, row)| {
        let text = text_of(row, &columns);
        let is_compared = !is_running || is_compared_line(&text);
        hash(&text).filter(|_| is_compared).unwrap_or((first + index) as u64)
    };
    table.rows.par_iter().with_min_len(CHUNK).enumerate().map(key).collect()
}
