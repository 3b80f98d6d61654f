//! Other rows to train a run's configuration on: a part of its own, for a learning curve, and its own with labels that mean nothing, as a control.

use kiln_core::{Error, Result};
use kiln_data::rows::{Row, Table};
use kiln_data::split::order;
use kiln_kernels::random::Key;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The stream of randomness that shuffles labels.
const SHUFFLE: u64 = 1;

/// How the labels of rows are made to mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle<'a> {
    /// A column is dealt out among the rows at random.
    Deal(&'a str),
    /// Two columns change places in a random half of the rows.
    Swap([&'a str; 2]),
}

/// A `share` of the rows, which `seed` draws so that a smaller share is a part of a larger one; of running text the first lines. A row of each class in
/// the column `class` is always there, and so are two rows.
///
/// # Errors
/// If a row has no class.
pub fn subset(table: &Table, share: f64, class: Option<&str>, seed: u64) -> Result<Table> {
    let n = table.rows.len();
    let mut places = if table.is_running_text() { (0..n).collect() } else { order(n, seed) };
    let mut n_kept = ((n as f64 * share).round() as usize).max(2);
    if let Some(class) = class {
        let mut known = BTreeSet::new();
        let mut is_first = vec![false; n];
        for &place in &places {
            is_first[place] = known.insert(table.label(&table.rows[place], class)?);
        }
        places.sort_by_key(|&place| !is_first[place]);
        n_kept = n_kept.max(known.len());
    }
    places.truncate(n_kept);
    places.sort_unstable();
    Ok(Table { rows: places.into_iter().map(|place| table.rows[place].clone()).collect(), ..table.clone() })
}

/// The same rows with labels that mean nothing, by `seed`.
///
/// # Errors
/// If there is no such column.
pub fn shuffled(table: &Table, shuffle: Shuffle<'_>, seed: u64) -> Result<Table> {
    let key = Key::new(seed).fold(SHUFFLE);
    let mut dealt = table.clone();
    match shuffle {
        Shuffle::Deal(column) => {
            table.require(&[column])?;
            for (row, other) in dealt.rows.iter_mut().zip(key.permutation(table.rows.len())) {
                match table.rows[other].fields.get(column) {
                    Some(value) => row.fields.insert(column.to_owned(), value.clone()),
                    None => row.fields.remove(column),
                };
            }
        }
        Shuffle::Swap([one, other]) => {
            table.require(&[one, other])?;
            for (index, row) in dealt.rows.iter_mut().enumerate().filter(|(index, _)| key.below(*index as u64, 2) == 1) {
                let was: &Row = &table.rows[index];
                for (column, from) in [(one, other), (other, one)] {
                    row.fields.insert(column.to_owned(), table.field(was, from)?.clone());
                }
            }
        }
    }
    Ok(dealt)
}

/// Writes the rows of `tables`, one after the other, as a file of `folder` called `name`: running text as lines, others as JSON lines.
///
/// # Errors
/// If it cannot be written.
///
/// # Panics
/// Without a table.
pub fn write(tables: &[Table], folder: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let mut all = tables[0].clone();
    for table in &tables[1..] {
        all.rows.extend_from_slice(&table.rows);
        let new = table.columns.iter().filter(|column| !all.columns.contains(column)).cloned().collect::<Vec<_>>();
        all.columns.extend(new);
    }
    let extension = if tables.iter().all(Table::is_running_text) { "txt" } else { "jsonl" };
    let path = folder.join(format!("{name}.{extension}"));
    all.write(&path, false)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, content: &str) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let table = Table::read(&path, &[]).unwrap();
        (folder, table)
    }

    fn numbered() -> (tempfile::TempDir, Table) {
        let line = |row: usize| format!("{{\"text\":\"t{row}\",\"label\":{}}}\n", if row < 2 { 9 } else { row % 3 });
        table("rows.jsonl", &(0..60).map(line).collect::<String>())
    }

    #[test]
    fn a_part_is_within_a_larger_part_and_has_all_classes() {
        let (_folder, table) = numbered();
        let texts = |share| -> BTreeSet<String> {
            let part = subset(&table, share, Some("label"), 4).unwrap();
            part.rows.iter().map(|row| part.text(row, "text").unwrap().to_owned()).collect()
        };
        let [eighth, half] = [0.125, 0.5].map(texts);
        assert_eq!((eighth.len(), half.len()), (8, 30));
        assert!(eighth.is_subset(&half));
        let part = subset(&table, 0.01, Some("label"), 4).unwrap();
        assert_eq!(part.rows.iter().map(|row| part.label(row, "label").unwrap()).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(subset(&table, 0.01, None, 4).unwrap().rows.len(), 2);
    }

    #[test]
    fn labels_are_dealt_out_and_nothing_else_changes() {
        let (folder, table) = numbered();
        let dealt = shuffled(&table, Shuffle::Deal("label"), 4).unwrap();
        let column = |table: &Table, name: &str| table.rows.iter().map(|row| table.label(row, name).unwrap()).collect::<Vec<_>>();
        assert_eq!(column(&table, "text"), column(&dealt, "text"));
        let (mut before, mut after) = (column(&table, "label"), column(&dealt, "label"));
        assert_ne!(before, after);
        before.sort();
        after.sort();
        assert_eq!(before, after);
        assert!(shuffled(&table, Shuffle::Deal("class"), 4).is_err());
        // As a file they are the same rows.
        let path = write(std::slice::from_ref(&dealt), &folder.path().join("inside"), "dealt").unwrap();
        let again = Table::read(&path, &[]).unwrap();
        assert_eq!(
            again.rows.iter().map(|row| &row.fields).collect::<Vec<_>>(),
            dealt.rows.iter().map(|row| &row.fields).collect::<Vec<_>>()
        );
    }

    #[test]
    fn half_of_the_pairs_are_the_wrong_way_round() {
        let line = |row: usize| format!("{{\"prompt\":\"p\",\"chosen\":\"good {row}\",\"rejected\":\"bad {row}\"}}\n");
        let (_folder, table) = table("pairs.jsonl", &(0..200).map(line).collect::<String>());
        let swapped = shuffled(&table, Shuffle::Swap(["chosen", "rejected"]), 4).unwrap();
        let is_wrong = |row: &Row| swapped.text(row, "chosen").unwrap().starts_with("bad");
        let n_wrong = swapped.rows.iter().filter(|row| is_wrong(row)).count();
        assert!((70..130).contains(&n_wrong), "{n_wrong}");
        assert!(swapped.rows.iter().all(|row| is_wrong(row) == swapped.text(row, "rejected").unwrap().starts_with("good")));
    }

    #[test]
    fn of_running_text_the_first_lines_are_taken() {
        let (folder, table) = table("lines.txt", "one\ntwo\nthree\nfour\n");
        let part = subset(&table, 0.5, None, 4).unwrap();
        let path = write(&[part], folder.path(), "part").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }
}
