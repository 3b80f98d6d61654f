//! The comparison of a language model with its reference values, quantity by quantity.

use crate::gradients::{by_path, by_tensor_name};
use crate::reference::{REFERENCE_FILE, Reference};
use crate::rows::{Row, packed, rows, supervised};
use burn::tensor::{Device, Tensor};
use kiln_core::Result;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest error of a value that one pass through the model went into, relative to `max(1, |value|)`.
pub const OF_VALUES: f64 = 1e-4;
/// The same of the loss.
pub const OF_LOSS: f64 = 1e-5;
/// Largest error of a gradient, relative to its parameter's largest and [`SMALLEST_GRADIENT`] together.
pub const OF_GRADIENTS: f64 = 1e-4;
/// Where the true gradient is 0, as for BERT's key biases, what is left is rounding.
pub const SMALLEST_GRADIENT: f64 = 1e-3;
/// Tokens of the greedy continuation.
const N_GREEDY: usize = 12;

/// One quantity compared.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub quantity: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a comparison.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// There is nothing to compare with.
    Absent(&'static str),
    /// The largest error, and how large it may be.
    Error {
        /// The largest.
        largest: f64,
        /// The limit.
        limit: f64,
    },
    /// How many are equal, of how many.
    Equal {
        /// Those equal.
        n_equal: usize,
        /// All.
        n: usize,
    },
    /// They cannot be compared at all.
    Differs(String),
}

impl Check {
    /// Whether the model does what the reference did, or there is none.
    pub fn passes(&self) -> bool {
        match &self.outcome {
            Outcome::Absent(_) => true,
            // An error that is no number fails.
            Outcome::Error { largest, limit } => largest <= limit,
            Outcome::Equal { n_equal, n } => n_equal == n,
            Outcome::Differs(_) => false,
        }
    }
}

/// Compares the model in `folder` with the reference values beside it, on a device without autodiff.
///
/// # Errors
/// If the model or the reference values are missing, damaged or do not fit together.
pub fn verify(folder: &Path, device: &Device) -> Result<Vec<Check>> {
    let reference = Reference::open(&folder.join(REFERENCE_FILE))?;
    let rows = rows(&reference, "")?;
    let (model, _) = LanguageModel::load(folder, &device.clone().autodiff())?;
    check_rows(&reference, &rows, &model)?;
    let mut checks = vec![token_ids(folder, &reference, &rows, &model)?];
    checks.extend(states(&reference, &rows, &model)?);
    checks.extend(loss_and_gradients(&reference, &rows, &model)?);
    // The memory is needed.
    drop(model);
    if reference.arrays.contains_key("greedy_ids") {
        checks.push(greedy(folder, &reference, device)?);
    }
    if reference.arrays.contains_key("adamw_losses") {
        checks.push(updates(folder, &reference, &rows, rows.len(), device)?);
    }
    Ok(checks)
}

/// What would panic later on is an error here.
fn check_rows(reference: &Reference, rows: &[Row], model: &LanguageModel) -> Result<()> {
    let config = model.config();
    for (index, row) in rows.iter().enumerate() {
        let ids = row.ids.iter().chain(row.labels.iter().flatten());
        if let Some(id) = ids.max().filter(|&&id| id as usize >= config.vocab_size) {
            return Err(reference.error(format!("row {index} has token {id}, the model has {} tokens", config.vocab_size)));
        }
        if let Some(kind) = row.token_types.iter().max().filter(|&&kind| kind as usize >= config.n_token_types.max(1)) {
            return Err(reference.error(format!("row {index} has token type {kind}, the model has {}", config.n_token_types)));
        }
        if row.ids.len() > config.max_positions {
            let message = format!("row {index} has {} tokens, the model has {} positions", row.ids.len(), config.max_positions);
            return Err(reference.error(message));
        }
    }
    Ok(())
}

/// Whether the tokenizer makes the reference's tokens of the reference's texts.
fn token_ids(folder: &Path, reference: &Reference, rows: &[Row], model: &LanguageModel) -> Result<Check> {
    let outcome = match &reference.texts {
        None => Outcome::Absent("no texts to compare"),
        Some(texts) if texts.len() != rows.len() => {
            return Err(reference.error(format!("metadata \"texts\" has {} texts for {} rows", texts.len(), rows.len())));
        }
        Some(texts) => {
            let ids = Tokenizer::for_model(folder, model.config())?.encode_all(texts.clone())?;
            Outcome::Equal { n_equal: ids.iter().zip(rows).filter(|(ids, row)| **ids == row.ids).count(), n: rows.len() }
        }
    };
    Ok(Check { quantity: "token ids".into(), outcome })
}

fn states(reference: &Reference, rows: &[Row], model: &LanguageModel) -> Result<Vec<Check>> {
    let hidden = model.trunk.forward(&packed(rows), None);
    let mut checks = Vec::new();
    let mut check = |quantity: &str, name: &str, found: &dyn Fn() -> Tensor<2>| -> Result<()> {
        if reference.arrays.contains_key(name) {
            let outcome = largest_error(&values(found()), &reference.at_tokens(name)?, OF_VALUES);
            checks.push(Check { quantity: quantity.into(), outcome });
        }
        Ok(())
    };
    check("logits", "logits", &|| model.logits(hidden.clone()))?;
    check("last hidden state", "last_hidden_state", &|| hidden.clone())?;
    Ok(checks)
}

fn loss_and_gradients(reference: &Reference, rows: &[Row], model: &LanguageModel) -> Result<Vec<Check>> {
    if !reference.arrays.contains_key("loss") {
        return Ok(Vec::new());
    }
    let (loss, n_tokens) = loss_sum(model, rows);
    if n_tokens == 0 {
        return Err(reference.error("\"labels\" score no token, but there is a \"loss\""));
    }
    let loss = loss / n_tokens as f32;
    let outcome = largest_error(&values(loss.clone()), &reference.get("loss")?.values, OF_LOSS);
    let mut checks = vec![Check { quantity: "loss".into(), outcome }];
    let expected = reference.with_prefix("grad.");
    if !expected.is_empty() {
        let expected = expected.into_iter().map(|(name, array)| (name, array.values)).collect();
        checks.extend(compare_gradients(&by_tensor_name(model, by_path(model, loss.backward())), &expected));
    }
    Ok(checks)
}

/// One check for all gradients that pass, named after the worst, and one for each that fails.
pub fn compare_gradients(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f64>>) -> Vec<Check> {
    let outcome = |name: &String| match (found.get(name), expected.get(name)) {
        (Some(found), Some(expected)) if found.len() == expected.len() => {
            let largest = expected.iter().fold(SMALLEST_GRADIENT, |sum: f64, value| sum.max(SMALLEST_GRADIENT + value.abs()));
            let differences = found.iter().zip(expected).map(|(&found, &expected)| (f64::from(found) - expected).abs() / largest);
            Outcome::Error { largest: worst(differences), limit: OF_GRADIENTS }
        }
        (Some(found), Some(expected)) => Outcome::Differs(format!("{} values, expected {}", found.len(), expected.len())),
        (None, _) => Outcome::Differs("the model gives it none".into()),
        (_, None) => Outcome::Differs("the reference gives it none".into()),
    };
    let mut names: Vec<&String> = found.keys().chain(expected.keys()).collect();
    names.sort();
    names.dedup();
    let checks: Vec<Check> =
        names.into_iter().map(|name| Check { quantity: format!("gradient of {name}"), outcome: outcome(name) }).collect();
    let (passing, failing): (Vec<Check>, Vec<Check>) = checks.into_iter().partition(Check::passes);
    let errors = passing.iter().map(|check| if let Outcome::Error { largest, .. } = check.outcome { largest } else { 0.0 });
    let all = Check {
        quantity: format!("gradients ({})", passing.len()),
        outcome: Outcome::Error { largest: worst(errors), limit: OF_GRADIENTS },
    };
    (!passing.is_empty()).then_some(all).into_iter().chain(failing).collect()
}

fn greedy(folder: &Path, reference: &Reference, device: &Device) -> Result<Check> {
    let (model, _) = LanguageModel::load(folder, device)?;
    let ids = &reference.get("greedy_ids")?.values;
    let vocab_size = model.config().vocab_size;
    if ids.len() <= N_GREEDY || ids.iter().any(|&id| !(0.0..vocab_size as f64).contains(&id)) {
        return Err(reference.error(format!("\"greedy_ids\" is no prompt and {N_GREEDY} tokens of the model's {vocab_size}")));
    }
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let (prompt, expected) = ids.split_at(ids.len() - N_GREEDY);
    let sampling = Sampling { max_new_tokens: N_GREEDY, ..Sampling::default() };
    let new = generate(&model, &[prompt.to_vec()], &sampling, &[], Key::new(0))?;
    let n_equal = new[0].iter().zip(expected).filter(|(new, expected)| new == expected).count();
    Ok(Check { quantity: "greedy ids".into(), outcome: Outcome::Equal { n_equal, n: N_GREEDY } })
}

/// The losses before each update, with so many rows in each part of the batch, which must not change them.
///
/// # Errors
/// As [`verify`].
pub fn updates(folder: &Path, reference: &Reference, rows: &[Row], rows_per_part: usize, device: &Device) -> Result<Check> {
    let expected = &reference.get("adamw_losses")?.values;
    let config = UpdateConfig {
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        no_decay: Vec::new(),
        max_gradient_norm: 1.0,
        ..UpdateConfig::default()
    };
    let (mut model, _) = LanguageModel::load(folder, &device.clone().autodiff())?;
    let mut updater = Updater::new(config, expected.len());
    let mut losses = Vec::new();
    for _ in expected {
        let (mut sum, mut n_tokens) = (0.0, 0);
        for part in rows.chunks(rows_per_part) {
            let (loss, weight) = loss_sum(&model, part);
            updater.add(&model, loss.backward(), weight as f64);
            sum += values(loss)[0];
            n_tokens += weight;
        }
        losses.push(sum / n_tokens as f32);
        (model, _) = updater.step(model, f64::from(sum) / n_tokens as f64)?;
    }
    let outcome = largest_error(&losses, expected, OF_VALUES);
    Ok(Check { quantity: format!("AdamW losses ({})", expected.len()), outcome })
}

/// The summed loss of rows and the number of tokens it is summed over.
pub fn loss_sum(model: &LanguageModel, rows: &[Row]) -> (Tensor<1>, usize) {
    let supervised = supervised(rows, model.config().causal);
    (model.loss(&packed(rows), &supervised, None), supervised.targets.len())
}

fn largest_error(found: &[f32], expected: &[f64], limit: f64) -> Outcome {
    if found.len() != expected.len() {
        return Outcome::Differs(format!("{} values, expected {}", found.len(), expected.len()));
    }
    let errors = found.iter().zip(expected).map(|(&found, &expected)| (f64::from(found) - expected).abs() / expected.abs().max(1.0));
    Outcome::Error { largest: worst(errors), limit }
}

/// The largest, or what is no number if there is any.
fn worst(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst })
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("the model computes in f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_fails() {
        for position in 0..3 {
            let mut found = [1.0, 2.0, 3.0];
            found[position] = f32::NAN;
            let outcome = largest_error(&found, &[1.0, 2.0, 3.0], OF_VALUES);
            assert!(!Check { quantity: "values".into(), outcome }.passes());
        }
    }

    #[test]
    fn each_wrong_gradient_is_named() {
        let found = |values: &[f32]| values.to_vec();
        let found =
            BTreeMap::from([("a".to_owned(), found(&[1.0, -2.0])), ("b".to_owned(), found(&[1.0, 3.0])), ("c".to_owned(), found(&[1.0]))]);
        let expected = BTreeMap::from([("a".to_owned(), vec![1.0, -2.0]), ("b".to_owned(), vec![1.001, 3.0]), ("d".to_owned(), vec![1.0])]);
        let checks = compare_gradients(&found, &expected);
        let quantities: Vec<&str> = checks.iter().map(|check| check.quantity.as_str()).collect();
        assert_eq!(quantities, ["gradients (1)", "gradient of b", "gradient of c", "gradient of d"]);
        assert_eq!(checks.iter().map(Check::passes).collect::<Vec<_>>(), [true, false, false, false]);
    }
}
