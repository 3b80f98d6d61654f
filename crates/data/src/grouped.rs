//! Texts and pairs of texts with their class, the group of people that each is about, and what they are with words exchanged.

use crate::columns::ColumnsConfig;
use crate::examples::{Counts, Limit};
use crate::labels::Labels;
use crate::rows::{Row, Table};
use crate::sequences::{Labelled, labelled, opened};
use crate::source::{DataConfig, Draw, Files, Rows};
use crate::store::Store;
use crate::swaps::Swaps;
use crate::text::TextSource;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// A row with its class and its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouped {
    /// The row.
    pub row: Labelled<u32>,
    /// The index of its group; 0 where there are none.
    pub group: u32,
    /// The row with its words exchanged, if that is asked for and it has such words.
    pub twin: Option<Box<Labelled<u32>>>,
}

/// The groups that columns make: of several, rows that agree in all of them are a group.
#[derive(Clone, Debug)]
pub struct Groups {
    columns: Vec<String>,
    names: Labels,
}

impl Groups {
    /// One group of all rows.
    pub fn none() -> Self {
        Self { columns: Vec::new(), names: Labels::in_order(vec!["all".into()]) }
    }

    /// The groups in a table.
    ///
    /// # Errors
    /// If a column is missing or empty in a row.
    pub fn of_table(table: &Table, columns: &[String]) -> Result<Self> {
        let mut names = BTreeSet::new();
        gather(&mut names, table, columns)?;
        Ok(Self { columns: columns.to_vec(), names: Labels::distinct(names) })
    }

    /// The groups in the files of a run. Without `columns` there is one group.
    ///
    /// # Errors
    /// If a column is missing or empty in a row, or there is only one group.
    pub fn of_files(files: &Files<'_>, columns: &[String]) -> Result<Self> {
        if columns.is_empty() {
            return Ok(Self::none());
        }
        let tables: Vec<&Table> = files.train().chain(files.aside()).collect();
        tables.iter().try_for_each(|table| require(table, columns))?;
        let gathered = |names: &mut BTreeSet<String>, table: &Table| gather(names, table, columns);
        let mut names: BTreeSet<String> = files.gathered(&("groups", columns), gathered)?;
        if names.len() < 2 {
            let (of, group) = (columns.join(" × "), names.first().map_or("", String::as_str));
            return Err(Error::data(&tables[0].path, None, format!("{of:?} holds only the group {group:?}: nothing to compare")));
        }
        files.aside().try_for_each(|table| gather(&mut names, table, columns))?;
        Ok(Self { columns: columns.to_vec(), names: Labels::distinct(names) })
    }

    /// Their names, by index.
    pub fn names(&self) -> &[String] {
        self.names.names()
    }

    fn index_of_row(&self, table: &Table, row: &Row) -> Result<u32> {
        match self.columns.as_slice() {
            [] => Ok(0),
            columns => Ok(self.names.index_of(table, row, &columns.join(" × "), &name(table, row, columns)?)? as u32),
        }
    }
}

/// The name of a row's group: what it has in the columns, joined by `×`.
///
/// # Errors
/// If a column is missing or empty.
pub fn name(table: &Table, row: &Row, columns: &[String]) -> Result<String> {
    Ok(columns.iter().map(|column| table.label(row, column)).collect::<Result<Vec<_>>>()?.join(" × "))
}

fn require(table: &Table, columns: &[String]) -> Result<()> {
    table.require_named(&columns.iter().map(|column| ("mitigation.groups", column.as_str())).collect::<Vec<_>>())
}

fn gather(names: &mut BTreeSet<String>, table: &Table, columns: &[String]) -> Result<()> {
    for row in &table.rows {
        names.insert(name(table, row, columns)?);
    }
    Ok(())
}

/// Rows with a class and a group: the classes `known`, or those of the training file, and the groups that `columns` make. With `swaps`, what
/// rows are with words exchanged. `draw` says which rows do not train.
///
/// # Errors
/// If a file, column, label or group is missing or bad, there is only one group, or a row is too long.
pub fn classes(
    data: &DataConfig,
    source: &TextSource<'_>,
    known: Option<Labels>,
    columns: &[String],
    swaps: Option<&Swaps>,
    draw: Draw<'_>,
) -> Result<(Rows<Grouped>, Labels, Groups)> {
    let (files, labels, notes) = opened(data, source, known, draw)?;
    let groups = Groups::of_files(&files, columns)?;
    let settings = || {
        let swaps = swaps.map(|swaps| format!("{swaps:?}"));
        source.settings("grouped classes", &[labels.names(), columns, groups.names(), swaps.as_slice()].concat())
    };
    let rows = files
        .rows(source.limit, &settings, |table| table_of(table, source.columns, &labels, &groups, swaps, source.tokenizer, source.limit))?;
    Ok((Rows { notes, ..rows }, labels, groups))
}

/// Rows of one table with their classes and groups.
///
/// # Errors
/// If a column is missing, a label or group is unknown, or a row is too long for `limit`.
pub fn table_of(
    table: &Table,
    columns: &ColumnsConfig,
    labels: &Labels,
    groups: &Groups,
    swaps: Option<&Swaps>,
    tokenizer: &Tokenizer,
    limit: Limit,
) -> Result<(Vec<Grouped>, Counts)> {
    let of_row = |row| Ok((labels.index_of_row(table, row, &columns.label)? as u32, groups.index_of_row(table, row)?, row));
    let (found, counts) = labelled(table, columns, tokenizer, limit, of_row)?;
    let mut twins = swaps.map_or_else(|| Ok(BTreeMap::new()), |swaps| self::twins(table, columns, swaps, tokenizer, limit))?;
    let grouped = |Labelled { ids, token_types, label: (label, group, row) }: Labelled<(u32, u32, &Row)>| {
        let twin = twins.remove(&row.line).map(|(ids, token_types)| Box::new(Labelled { ids, token_types, label }));
        Grouped { row: Labelled { ids, token_types, label }, group, twin }
    };
    Ok((found.into_iter().map(grouped).collect(), counts))
}

/// Ids and types of tokens.
type Tokens = (Vec<u32>, Vec<u32>);

/// The rows that have words to be exchanged, with these exchanged, by their lines.
fn twins(table: &Table, columns: &ColumnsConfig, swaps: &Swaps, tokenizer: &Tokenizer, limit: Limit) -> Result<BTreeMap<usize, Tokens>> {
    let second = table.has(&columns.text_b).then_some(&columns.text_b);
    let (mut rows, mut texts) = (Vec::new(), Vec::new());
    for row in &table.rows {
        let text = table.text(row, &columns.text)?;
        let text_b = second.map(|column| table.text(row, column)).transpose()?;
        let (one, two) = (swaps.swapped(text), text_b.and_then(|text| swaps.swapped(text)));
        if one.is_some() || two.is_some() {
            rows.push(row);
            let or = |swapped: Option<crate::swaps::Swapped>, text: &str| swapped.map_or_else(|| text.to_owned(), |swapped| swapped.text);
            texts.push((or(one, text), text_b.map(|text| or(two, text))));
        }
    }
    let mut twins = BTreeMap::new();
    for (row, encoded) in rows.into_iter().zip(tokenizer.encode_pairs(texts)?) {
        // The row itself is what is counted.
        if let Some(encoded) = limit.apply_pair(encoded, table, row, &mut Counts::default())? {
            twins.insert(row.line, (encoded.ids, encoded.token_types));
        }
    }
    Ok(twins)
}

/// Puts the twins of the rows behind them, where no epoch sees them by itself. Returns which row has which twin, by index.
///
/// # Errors
/// If a row on disk cannot be read.
pub fn add_twins(rows: &mut Store<Grouped>) -> Result<BTreeMap<usize, usize>> {
    let twin = |row: &Grouped| row.twin.as_deref().map(|twin| Grouped { row: twin.clone(), group: row.group, twin: None });
    let found = rows.each(twin)?;
    let first = rows.len();
    let places = found.iter().enumerate().filter(|(_, twin)| twin.is_some()).zip(first..).map(|((row, _), twin)| (row, twin)).collect();
    rows.push_rows(found.into_iter().flatten().collect(), 0.0);
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Overlong;
    use serde_json::json;

    fn table() -> Table {
        let row = |(index, (text, text_b, who, site)): (usize, &(&str, &str, &str, &str))| {
            let fields = [("text", text), ("text_b", text_b), ("who", who), ("site", site)];
            let mut fields: BTreeMap<String, serde_json::Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            fields.insert("label".into(), json!(index % 2));
            Row { line: 10 + index, fields: fields.into_iter().collect() }
        };
        let rows =
            [("he is here", "she is not", "m", "north"), ("it rains", "it snows", "f", "north"), ("it rains", "on him", "f", "south")];
        let columns = ["text", "text_b", "who", "site", "label"].map(str::to_owned).to_vec();
        Table { path: "people.jsonl".into(), columns, rows: rows.iter().enumerate().map(row).collect() }
    }

    #[test]
    fn rows_know_their_group_and_what_they_are_with_words_exchanged() {
        let tokenizer = Tokenizer::train(["he is here she is not it rains it snows on him on her"].into_iter(), 300).unwrap();
        let limit = Limit { max_tokens: 100, overlong: Overlong::Refuse, n_end_tokens: 0 };
        let (columns, table) = (ColumnsConfig::default(), table());
        let labels = Labels::distinct(["0".to_owned(), "1".into()]);
        let of = |by: &[String], swaps: Option<&Swaps>| {
            let groups = if by.is_empty() { Groups::none() } else { Groups::of_table(&table, by).unwrap() };
            let (rows, counts) = table_of(&table, &columns, &labels, &groups, swaps, &tokenizer, limit).unwrap();
            assert_eq!(counts.n_rows, 3);
            (rows, groups.names().to_vec())
        };
        let by = ["who".to_owned(), "site".into()];
        let (rows, names) = of(&by, None);
        assert_eq!(names, ["f × north", "f × south", "m × north"]);
        assert_eq!(rows.iter().map(|row| (row.group, row.row.label)).collect::<Vec<_>>(), [(2, 0), (0, 1), (1, 0)]);
        assert!(rows.iter().all(|row| row.twin.is_none()));
        let (plain, names) = of(&[], Some(&Swaps::built_in()));
        assert_eq!((names, plain.iter().map(|row| row.group).max()), (vec!["all".to_owned()], Some(0)));

        // The twin is what the exchanged texts are as rows of their own, under the same label.
        let pair = |text: &str, text_b: &str| {
            let found = tokenizer.encode_pairs(vec![(text.to_owned(), Some(text_b.to_owned()))]).unwrap().remove(0);
            (found.ids, found.token_types)
        };
        let twin = |row: usize| plain[row].twin.as_deref().map(|twin| (twin.ids.clone(), twin.token_types.clone()));
        assert_eq!(twin(0), Some(pair("she is here", "he is not")));
        assert_eq!((twin(1), twin(2)), (None, Some(pair("it rains", "on her"))));
        assert_eq!(plain[0].twin.as_deref().map(|twin| twin.label), Some(0));

        let mut store = Store::default();
        store.push_rows(plain.clone(), 1.0);
        let twins = add_twins(&mut store).unwrap();
        assert_eq!(twins, BTreeMap::from([(0, 3), (2, 4)]));
        assert_eq!((store.len(), store.n_seen(), store.epoch(5, 1)), (5, 3, vec![0, 1, 2]), "no epoch sees a twin by itself");
        assert_eq!(store.get(4).unwrap().row, **plain[2].twin.as_ref().unwrap());
    }
}
