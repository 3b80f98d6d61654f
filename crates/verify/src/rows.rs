//! The sequences of a reference batch, their padding gone.

use crate::reference::Reference;
use kiln_core::Result;
use kiln_core::packed::{Packed, Supervised};

/// One sequence of a reference batch.
#[derive(Clone, Debug)]
pub struct Row {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Token types.
    pub token_types: Vec<u32>,
    /// What to predict at each token, in transformers' convention; `None` where there is no loss. Empty without labels of tokens.
    pub labels: Vec<Option<u32>>,
}

/// The sequences of the batch whose arrays' names start with `prefix`.
///
/// # Errors
/// If an array is missing or has another shape, a token is negative, or a sequence is not padded on the right.
pub fn rows(reference: &Reference, prefix: &str) -> Result<Vec<Row>> {
    let name = |name: &str| format!("{prefix}{name}");
    let matrix = |array: &str| reference.int_rows(&name(array));
    let is_matrix = |array: &str| reference.arrays.get(&name(array)).is_some_and(|array| array.shape.len() == 2);
    let (ids, masks) = (matrix("input_ids")?, matrix("attention_mask")?);
    let types = is_matrix("token_type_ids").then(|| matrix("token_type_ids")).transpose()?;
    let labels = is_matrix("labels").then(|| matrix("labels")).transpose()?;
    for (array, rows) in [("attention_mask", Some(&masks)), ("token_type_ids", types.as_ref()), ("labels", labels.as_ref())] {
        let fits = |rows: &Vec<Vec<i64>>| rows.len() == ids.len() && rows.iter().zip(&ids).all(|(row, ids)| row.len() == ids.len());
        if !rows.is_none_or(fits) {
            return Err(reference.error(format!("tensor {:?} has another shape than {:?}", name(array), name("input_ids"))));
        }
    }
    let row = |index: usize| {
        let length = masks[index].iter().filter(|&&keep| keep == 1).count();
        if length == 0 || masks[index][..length].iter().any(|&keep| keep != 1) {
            return Err(reference.error(format!("row {index} of {:?} is not padded on the right", name("attention_mask"))));
        }
        let whole = |array: &str, of: &Vec<Vec<i64>>| {
            let number = |&value: &i64| {
                u32::try_from(value).map_err(|_| reference.error(format!("{:?} holds {value}, which is no token", name(array))))
            };
            of[index][..length].iter().map(number).collect::<Result<Vec<u32>>>()
        };
        Ok(Row {
            ids: whole("input_ids", &ids)?,
            token_types: types.as_ref().map_or_else(|| Ok(vec![0; length]), |types| whole("token_type_ids", types))?,
            labels: labels.iter().flat_map(|labels| &labels[index][..length]).map(|&label| u32::try_from(label).ok()).collect(),
        })
    };
    (0..ids.len()).map(row).collect()
}

/// Rows laid end to end.
pub fn packed(rows: &[Row]) -> Packed {
    Packed::typed(rows.iter().map(|row| (row.ids.as_slice(), row.token_types.as_slice())))
}

/// The labelled tokens of packed rows; in causal models each is predicted from the token before it.
pub fn supervised(rows: &[Row], causal: bool) -> Supervised {
    let (mut at, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        for (position, label) in row.labels.iter().enumerate().skip(usize::from(causal)) {
            if let Some(label) = label {
                at.push((start + position - usize::from(causal)) as u32);
                targets.push(*label);
            }
        }
        start += row.ids.len();
    }
    Supervised { weights: vec![1.0; targets.len()].into(), rows: at.into(), targets: targets.into() }
}
