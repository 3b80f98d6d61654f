//! Which rows of a file train, which ones a run is validated on, and which are held out.

use super::Read;
use super::alike::{TextColumns, keys};
use crate::examples::{Counts, Limit};
use crate::rows::Table;
use crate::split::{split, split_alike};
use kiln_core::{Error, Result};
use serde::Serialize;
use std::path::Path;

/// How rows are drawn that do not train.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// What draws them.
    pub seed: u64,
    /// The share that validates of each file's rows that are not held out; of running text the share of its blocks. 0 is none, as where a file
    /// of them is named.
    pub validation_share: f64,
    /// What makes the text of a row: rows with the same text are on one side.
    pub texts: TextColumns<'a>,
}

impl<'a> Draw<'a> {
    /// By `seed`, with nothing to validate on.
    pub fn new(seed: u64, texts: TextColumns<'a>) -> Self {
        Self { seed, validation_share: 0.0, texts }
    }
}

/// Makes rows of a table, and says what became of its own.
pub(super) type ReadTable<'a, R> = dyn FnMut(&Table) -> Read<R> + 'a;

/// What `read` makes of a table, of which something has to be left.
pub(super) fn checked<R>(table: &Table, limit: Limit, read: &mut ReadTable<'_, R>) -> Read<R> {
    let (rows, counts) = read(table)?;
    limit.check_left(&table.path, &counts)?;
    Ok((rows, counts))
}

/// What `read` makes of a table: what trains, and the share that validates. What became of all rows.
pub(super) fn divided<R>(table: &Table, draw: Draw<'_>, limit: Limit, read: &mut ReadTable<'_, R>) -> Result<([Vec<R>; 2], Counts)> {
    let Draw { seed, validation_share, .. } = draw;
    if validation_share == 0.0 {
        return checked(table, limit, read).map(|(rows, counts)| ([rows, Vec::new()], counts));
    }
    let check = |n_rows: usize| match n_rows {
        0 | 1 => Err(Error::data(&table.path, None, format!("validation.share needs at least 2 training rows, found {n_rows}"))),
        _ => Ok(()),
    };
    // Blocks stay whole: lines taken out here and there would leave another kind of text on both sides.
    if table.is_running_text() {
        let (rows, counts) = checked(table, limit, read)?;
        check(rows.len())?;
        return Ok((blocks(rows, validation_share, seed), counts));
    }
    check(table.rows.len())?;
    let [train, validation] = drawn(table, validation_share, draw);
    let (rows, mut counts) = checked(&train, limit, read)?;
    let (validation, counts_of_validation) = checked(&validation, limit, read)?;
    counts.add(&counts_of_validation);
    Ok(([rows, validation], counts))
}

/// Blocks of running text that train, and those that validate.
pub(super) fn blocks<R>(rows: Vec<R>, validation_share: f64, seed: u64) -> [Vec<R>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    let (_, validation) = split(rows.len(), validation_share, seed);
    let mut is_validation = vec![false; rows.len()];
    validation.into_iter().for_each(|row| is_validation[row] = true);
    rows.into_iter().zip(is_validation).for_each(|(row, is_validation)| sides[usize::from(is_validation)].push(row));
    sides
}

/// What is left of a table, and the `share` that is drawn of it.
pub(super) fn drawn(table: &Table, share: f64, draw: Draw<'_>) -> [Table; 2] {
    let mut sides = [false, true].map(|_| Table { path: table.path.clone(), columns: table.columns.clone(), rows: Vec::new() });
    let is_drawn = split_alike(&keys(table, draw.texts, 0), share, draw.seed);
    table.rows.iter().zip(is_drawn).for_each(|(row, is_drawn)| sides[usize::from(is_drawn)].rows.push(row.clone()));
    sides
}

/// What is not held out of a table, and the share that is.
pub(super) fn separate(table: &Table, held_out_share: f64, draw: Draw<'_>) -> Result<[Table; 2]> {
    check_divisible(&table.path, table.rows.len())?;
    Ok(drawn(table, held_out_share, draw))
}

/// What trains of a table that is only looked at, and what validates, if that is rows.
pub(super) fn sampled(table: Table, draw: Draw<'_>) -> (Table, Option<Table>) {
    if draw.validation_share == 0.0 || table.is_running_text() {
        return (table, None);
    }
    let [train, validation] = drawn(&table, draw.validation_share, draw);
    (train, Some(validation))
}

pub(super) fn check_divisible(path: &Path, n_rows: usize) -> Result<()> {
    if n_rows > 1 {
        return Ok(());
    }
    Err(Error::data(path, None, "1 row, at least 2 are needed to hold one out; or name a file under data.held_out"))
}

/// Where a row of a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    Train,
    Validation,
    HeldOut,
}

/// Where each row of a large file goes, whose keys these are and of which `held_out_share` is held out, if anything is: as [`separate`] and
/// [`divided`] put those of a small one. Of running text it is blocks that validate, which are known only later.
pub(super) fn sides(held_out_share: Option<f64>, keys: &[u64], is_running_text: bool, draw: Draw<'_>) -> Vec<Side> {
    let mut sides = vec![Side::Train; keys.len()];
    if let Some(share) = held_out_share {
        let is_held_out = split_alike(keys, share, draw.seed);
        sides.iter_mut().zip(is_held_out).filter(|(_, is_held_out)| *is_held_out).for_each(|(side, _)| *side = Side::HeldOut);
    }
    if draw.validation_share > 0.0 && !is_running_text {
        let of_train: Vec<u64> = keys.iter().zip(&sides).filter(|(_, side)| **side == Side::Train).map(|(key, _)| *key).collect();
        let is_validation = split_alike(&of_train, draw.validation_share, draw.seed);
        let left = sides.iter_mut().filter(|side| **side == Side::Train);
        left.zip(is_validation).filter(|(_, is_validation)| *is_validation).for_each(|(side, _)| *side = Side::Validation);
    }
    sides
}
