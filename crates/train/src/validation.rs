//! Validation while a run goes: on rows that are neither trained on nor those the run is judged by in the end, so that what is chosen by them
//! does not flatter the final figure.
//!
//! Stopping early and keeping the best weights: Prechelt, "Early Stopping - But When?" (1998), Section 2, the criterion UP.

use crate::updater::{anchor, put};
use burn::module::Module;
use burn::tensor::Tensor;
use kiln_core::{Error, Result};
use kiln_data::source::in_range;
use kiln_data::split::split;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When a run is validated, and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationConfig {
    /// The share of the training rows that is validated on instead of trained on; 0 validates nothing. Default 0.
    pub share: f64,
    /// Steps from one validation to the next; 0 validates after each epoch. Default 0.
    pub every_steps: usize,
    /// Validations in a row without a lower loss after which the run stops; 0 never stops it. Default 0.
    pub patience: usize,
    /// By how much a loss has to be lower to count as lower. Default 0.
    pub min_gain: f64,
    /// Whether the weights of the lowest loss are what is kept, and not the last ones. Default true.
    pub keep_best: bool,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        Self { share: 0.0, every_steps: 0, patience: 0, min_gain: 0.0, keep_best: true }
    }
}

impl ValidationConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        in_range("validation.share", self.share, (0.0..1.0).contains(&self.share), "at least 0 and below 1")?;
        in_range("validation.min_gain", self.min_gain, self.min_gain >= 0.0 && self.min_gain.is_finite(), "0 or more")?;
        for (key, value) in [("every_steps", self.every_steps), ("patience", self.patience)] {
            if value > 0 && self.share == 0.0 {
                let message = format!("found {value}, but nothing is validated: set validation.share, such as to 0.1");
                return Err(Error::config(format!("validation.{key}"), message));
            }
        }
        Ok(())
    }

    /// The indices of `n_rows` training rows that train, and those that validate, which `seed` draws.
    ///
    /// # Errors
    /// [`Error::Config`] if none would be left on a side.
    pub fn divide(&self, n_rows: usize, seed: u64) -> Result<[Vec<usize>; 2]> {
        if self.share == 0.0 {
            return Ok([(0..n_rows).collect(), Vec::new()]);
        }
        if n_rows < 2 {
            return Err(Error::config("validation.share", format!("needs at least 2 training rows, found {n_rows}")));
        }
        let (train, validation) = split(n_rows, self.share, seed);
        Ok([train, validation])
    }
}

/// What was found so far: part of what a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The step of the lowest loss, and that loss.
    pub best: Option<(usize, f64)>,
    /// The last validation's step and loss.
    pub last: Option<(usize, f64)>,
    /// Validations since the lowest loss.
    pub n_worse: usize,
    /// Whether the run is to stop.
    pub is_over: bool,
}

/// Validates a run.
#[derive(Debug)]
pub struct Validator {
    config: ValidationConfig,
    /// The steps that end an epoch.
    epoch_ends: Vec<usize>,
    found: Found,
    /// The weights of the lowest loss, if they are kept.
    best: BTreeMap<String, Tensor<1>>,
}

impl Validator {
    /// Of a run whose epochs end with the steps `epoch_ends`; with what a checkpoint has of it, if there is one.
    pub fn new(config: &ValidationConfig, epoch_ends: Vec<usize>, found: Found, best: BTreeMap<String, Tensor<1>>) -> Self {
        Self { config: config.clone(), epoch_ends, found, best }
    }

    /// Whether the run is validated after `step` steps; always after the last.
    pub fn is_due(&self, step: usize) -> bool {
        let every = self.config.every_steps;
        let regular = if every > 0 { step.is_multiple_of(every) } else { self.epoch_ends.contains(&step) };
        self.config.share > 0.0 && (regular || self.epoch_ends.last() == Some(&step))
    }

    /// Takes down the validation loss of `model` after `step` steps. A loss that is no number is worse than any.
    pub fn validated(&mut self, step: usize, loss: f64, model: &impl Module) {
        self.found.last = Some((step, loss));
        if self.found.best.is_none_or(|(_, best)| loss < best - self.config.min_gain) {
            self.found.best = Some((step, loss));
            self.found.n_worse = 0;
            if self.config.keep_best {
                self.best = anchor(model);
            }
        } else {
            self.found.n_worse += 1;
        }
        self.found.is_over = self.config.patience > 0 && self.found.n_worse >= self.config.patience;
    }

    /// What was found so far.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The weights of the lowest loss, by path, if they are kept.
    pub fn best(&self) -> &BTreeMap<String, Tensor<1>> {
        &self.best
    }

    /// The model that is kept: the best one, or as it is.
    pub fn kept<M: Module>(&self, model: M) -> M {
        put(model, &self.best)
    }

    /// What came of it; `train_loss` is the loss of the model that is kept on as many of the rows it was trained on, evaluated alike.
    pub fn summary(&self, train_loss: f64) -> Option<ValidationSummary> {
        let ((best_step, best_loss), (last_step, last_loss)) = (self.found.best?, self.found.last?);
        let loss = if self.config.keep_best { best_loss } else { last_loss };
        let stopped_early = self.found.is_over && self.epoch_ends.last() != Some(&last_step);
        Some(ValidationSummary { best_step, best_loss, last_step, last_loss, stopped_early, train_loss, gap: loss - train_loss })
    }
}

/// What came of validating a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ValidationSummary {
    /// The step of the lowest validation loss.
    pub best_step: usize,
    /// That loss.
    pub best_loss: f64,
    /// The step of the last validation.
    pub last_step: usize,
    /// Its loss.
    pub last_loss: f64,
    /// Whether the run stopped before its last step.
    pub stopped_early: bool,
    /// The loss of the model that was kept on as many of the rows that it was trained on.
    pub train_loss: f64,
    /// By how much its validation loss is higher: what it knows of its rows and not of others.
    pub gap: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }

    fn one(value: f32) -> One {
        One { weight: Param::from_tensor(Tensor::from_floats([value], &Device::flex().autodiff())).set_require_grad(true) }
    }

    fn value(model: &One) -> f32 {
        model.weight.val().into_scalar::<f32>()
    }

    /// After each epoch of two steps; the weight is the step.
    fn run(config: &ValidationConfig, losses: &[f64]) -> Validator {
        let mut validator = Validator::new(config, (1..=losses.len()).map(|epoch| 2 * epoch).collect(), Found::default(), BTreeMap::new());
        for step in 1..=2 * losses.len() {
            assert_eq!(validator.is_due(step), step.is_multiple_of(2));
            if validator.is_due(step) && !validator.found().is_over {
                validator.validated(step, losses[step / 2 - 1], &one(step as f32));
            }
        }
        validator
    }

    const CONFIG: ValidationConfig = ValidationConfig { share: 0.1, every_steps: 0, patience: 2, min_gain: 0.0, keep_best: true };

    #[test]
    fn a_run_stops_when_patience_ends_and_the_best_weights_are_kept() {
        let stopped = run(&CONFIG, &[0.9, 0.5, f64::NAN, 0.6, 0.1]);
        assert!(stopped.found().is_over);
        assert_eq!((stopped.found().best, stopped.found().last), (Some((4, 0.5)), Some((8, 0.6))));
        assert_eq!(value(&stopped.kept(one(8.0))), 4.0);
        let summary = stopped.summary(0.2).unwrap();
        assert!(summary.stopped_early && (summary.gap - 0.3).abs() < 1e-12, "{summary:?}");

        let patient = run(&ValidationConfig { patience: 3, ..CONFIG }, &[0.9, 0.5, f64::NAN, 0.6, 0.1]);
        assert_eq!((value(&patient.kept(one(10.0))), patient.summary(0.1).unwrap().stopped_early), (10.0, false));
        let last = run(&ValidationConfig { patience: 0, keep_best: false, ..CONFIG }, &[0.5, 0.6]);
        assert_eq!(value(&last.kept(one(4.0))), 4.0);
        assert!((last.summary(0.1).unwrap().gap - 0.5).abs() < 1e-12);
        let demanding = run(&ValidationConfig { min_gain: 0.2, ..CONFIG }, &[0.9, 0.8, 0.75]);
        assert!(demanding.found().is_over && demanding.found().best == Some((2, 0.9)));
    }

    #[test]
    fn rows_are_on_one_side_each() {
        let [mut train, validation] = CONFIG.divide(50, 3).unwrap();
        assert_eq!((train.len(), validation.len()), (45, 5));
        train.extend(validation);
        train.sort_unstable();
        assert_eq!(train, (0..50).collect::<Vec<_>>());
        assert_eq!(ValidationConfig::default().divide(3, 0).unwrap(), [vec![0, 1, 2], vec![]]);
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        for (config, key) in [
            (ValidationConfig { patience: 2, ..ValidationConfig::default() }, "validation.patience"),
            (ValidationConfig { every_steps: 2, ..ValidationConfig::default() }, "validation.every_steps"),
            (ValidationConfig { share: f64::NAN, ..ValidationConfig::default() }, "validation.share"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
        CONFIG.validate().unwrap();
    }
}
