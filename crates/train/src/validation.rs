//! Validation while a run goes: on rows that are neither trained on nor those the run is judged by in the end, so that what is chosen by them
//! does not flatter the final figure.
//!
//! Stopping early and keeping the best weights: Prechelt, "Early Stopping - But When?" (1998), Section 2, the criterion UP.

use crate::checkpoint::ByName;
use crate::run::Run;
use crate::updater::{Updater, anchor, put};
use burn::module::Module;
use kiln_core::{Error, Result};
use kiln_data::source::{DataConfig, Draw, TextColumns, in_range};
use kiln_data::split::order;
use serde::{Deserialize, Serialize};

/// When a run is validated, and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationConfig {
    /// The share of the training rows that is validated on instead of trained on; 0 validates nothing, but for a file of rows for that
    /// (`data.validation`). Default 0.
    pub share: f64,
    /// Steps from one validation to the next; 0 validates after each epoch. Default 0.
    pub every_steps: usize,
    /// Validations in a row without a lower loss (of rewards: a higher reward) after which the run stops; 0 never stops it. Default 0.
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
    /// Checks that the settings make sense, also with those of the `data` of each section: its name, such as `data`, and where its rows are.
    /// Returns whether the run is validated.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self, data: &[(String, &DataConfig)]) -> Result<bool> {
        in_range("validation.share", self.share, (0.0..1.0).contains(&self.share), "at least 0 and below 1")?;
        in_range("validation.min_gain", self.min_gain, self.min_gain >= 0.0 && self.min_gain.is_finite(), "0 or more")?;
        let file = data.iter().find_map(|(section, data)| Some((section, data.validation.as_ref()?)));
        if let Some((section, path)) = file {
            let refused = |section: &str, message: String| Err(Error::config(format!("{section}.validation"), message));
            if self.share > 0.0 {
                let message = format!("found {}, and validation.share = {} too: leave one of them out", path.display(), self.share);
                return refused(section, message);
            }
            if let Some((other, _)) = data.iter().find(|(_, data)| data.validation.is_none()) {
                return refused(other, format!("missing: {section}.validation is {}, so name a file here too", path.display()));
            }
        }
        let is_validated = self.share > 0.0 || file.is_some();
        for (key, value) in [("every_steps", self.every_steps), ("patience", self.patience)] {
            if value > 0 && !is_validated {
                let advice = "set validation.share, such as to 0.1, or name a file under data.validation";
                return Err(Error::config(format!("validation.{key}"), format!("found {value}, but nothing is validated: {advice}")));
            }
        }
        Ok(is_validated)
    }

    /// How rows are drawn that do not train, in a run of `seed`; `texts` make the text of a row.
    pub fn draw<'a>(&self, seed: u64, texts: TextColumns<'a>) -> Draw<'a> {
        Draw { seed, validation_share: self.share, texts }
    }
}

/// What a validation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// A loss: less is better.
    Loss,
    /// A reward: more is better.
    Reward,
}

impl Criterion {
    /// What the metrics call it.
    fn name(self) -> &'static str {
        match self {
            Self::Loss => "validation_loss",
            Self::Reward => "validation_reward",
        }
    }

    /// The value as something of which less is better.
    fn cost(self, value: f64) -> f64 {
        match self {
            Self::Loss => value,
            Self::Reward => -value,
        }
    }
}

/// What was found so far: part of what a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The step of the best validation, and what it measured.
    pub best: Option<(usize, f64)>,
    /// The same of the last one.
    pub last: Option<(usize, f64)>,
    /// Validations since the best one.
    pub n_worse: usize,
    /// Whether the run is to stop.
    pub is_over: bool,
}

/// Validates a run.
#[derive(Debug)]
pub struct Validator {
    config: ValidationConfig,
    criterion: Criterion,
    /// How many rows it is validated on.
    n_rows: usize,
    /// The steps that end an epoch.
    epoch_ends: Vec<usize>,
    found: Found,
    /// The weights of the best validation, if they are kept.
    best: ByName,
}

/// What the best weights are called among the tensors that a loop carries.
const BEST: &str = "best.";

/// The best weights, by path, among the tensors that a checkpoint carries, and the other ones.
pub fn best_and_others(carried: ByName) -> [ByName; 2] {
    let mut sides = [ByName::new(), ByName::new()];
    for (name, tensor) in carried {
        match name.strip_prefix(BEST) {
            Some(path) => sides[0].insert(path.to_owned(), tensor),
            None => sides[1].insert(name, tensor),
        };
    }
    sides
}

/// The steps that end an epoch, of epochs of so many steps, which begin after the step `first`.
pub fn epoch_ends(first: usize, n_steps: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let end = |end: &mut usize, n: usize| {
        *end += n;
        Some(*end)
    };
    n_steps.into_iter().scan(first, end).collect()
}

impl Validator {
    /// Of a run whose epochs end with the steps `epoch_ends`, and which is validated on `n_rows` rows, perhaps none.
    pub fn new(config: &ValidationConfig, criterion: Criterion, n_rows: usize, epoch_ends: Vec<usize>) -> Self {
        Self { config: config.clone(), criterion, n_rows, epoch_ends, found: Found::default(), best: ByName::new() }
    }

    /// The same with what a checkpoint has of it, if there is one: what was found, and the best weights (see [`best_and_others`]).
    pub fn restored(self, found: Found, best: ByName) -> Self {
        Self { found, best, ..self }
    }

    /// Whether the run is validated after `step` steps; always after the last.
    pub fn is_due(&self, step: usize) -> bool {
        let every = self.config.every_steps;
        let regular = if every > 0 { step.is_multiple_of(every) } else { self.epoch_ends.contains(&step) };
        self.n_rows > 0 && (regular || self.epoch_ends.last() == Some(&step))
    }

    /// Validates the run after `step` steps, if that is due: what `measure` finds of the model as it would be kept goes to the metrics and to the
    /// schedule. Returns the seconds that it took.
    ///
    /// # Errors
    /// Those of `measure`; [`Error::Io`] if the metrics cannot be written.
    pub fn validate<M: Module>(
        &mut self,
        step: usize,
        model: &M,
        updater: &mut Updater,
        run: &mut Run,
        measure: impl FnOnce(&M) -> Result<f64>,
    ) -> Result<f64> {
        if !self.is_due(step) {
            return Ok(0.0);
        }
        let began = run.elapsed_seconds();
        let judged = updater.averaged(model);
        let value = measure(&judged)?;
        run.log(step, &[(self.criterion.name(), value)])?;
        updater.validated(self.criterion.cost(value));
        self.take(step, value, &judged);
        Ok(run.elapsed_seconds() - began)
    }

    /// Takes down what was measured of `model` after `step` steps. What is no number is worse than any.
    fn take(&mut self, step: usize, value: f64, model: &impl Module) {
        let cost = |value| self.criterion.cost(value);
        let is_better = |best: f64| cost(value) < cost(best) - self.config.min_gain || best.is_nan() && !value.is_nan();
        self.found.last = Some((step, value));
        if self.found.best.is_none_or(|(_, best)| is_better(best)) {
            self.found.best = Some((step, value));
            self.found.n_worse = 0;
            if self.config.keep_best {
                self.best = anchor(model);
            }
        } else {
            self.found.n_worse += 1;
        }
        self.found.is_over = self.config.patience > 0 && self.found.n_worse >= self.config.patience;
    }

    /// Whether the run is to stop.
    pub fn is_over(&self) -> bool {
        self.found.is_over
    }

    /// What was found so far.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The tensors that a checkpoint carries on: the best weights, if they are kept, beside `others`.
    pub fn carried(&self, others: &ByName) -> ByName {
        let best = self.best.iter().map(|(path, tensor)| (format!("{BEST}{path}"), tensor.clone()));
        others.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).chain(best).collect()
    }

    /// The model that is kept: the best one, or as it is.
    pub fn kept<M: Module>(&self, model: M) -> M {
        put(model, &self.best)
    }

    /// What came of it, if the run was validated. `measure` finds, in the model that is kept, what was measured, on the training rows with these
    /// indices: as many of the `n_train` as validate, which `seed` draws.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn summary(&self, n_train: usize, seed: u64, measure: impl FnOnce(&[usize]) -> Result<f64>) -> Result<Option<ValidationSummary>> {
        let (Some((best_step, best)), Some((last_step, last))) = (self.found.best, self.found.last) else { return Ok(None) };
        let some: Vec<usize> = order(n_train, seed).into_iter().take(self.n_rows).collect();
        let train = measure(&some)?;
        let kept = if self.config.keep_best { best } else { last };
        Ok(Some(ValidationSummary {
            criterion: self.criterion,
            n_rows: self.n_rows,
            best_step,
            best,
            last_step,
            last,
            stopped_early: self.found.is_over && self.epoch_ends.last() != Some(&last_step),
            train,
            gap: self.criterion.cost(kept) - self.criterion.cost(train),
        }))
    }
}

/// What came of validating a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationSummary {
    /// What was measured.
    pub criterion: Criterion,
    /// How many rows it was measured on.
    pub n_rows: usize,
    /// The step of the best validation.
    pub best_step: usize,
    /// What it measured.
    pub best: f64,
    /// The step of the last validation.
    pub last_step: usize,
    /// What it measured.
    pub last: f64,
    /// Whether the run stopped before its last step.
    pub stopped_early: bool,
    /// The same measure of the model that was kept, on as many of the rows that it was trained on.
    pub train: f64,
    /// By how much it is better on these: what the model knows of its rows and not of others.
    pub gap: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn::tensor::{Device, Tensor};

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
    fn run(config: &ValidationConfig, criterion: Criterion, values: &[f64]) -> Validator {
        let mut validator = Validator::new(config, criterion, 9, epoch_ends(0, values.iter().map(|_| 2)));
        for step in 1..=2 * values.len() {
            assert_eq!(validator.is_due(step), step.is_multiple_of(2));
            if validator.is_due(step) && !validator.is_over() {
                validator.take(step, values[step / 2 - 1], &one(step as f32));
            }
        }
        validator
    }

    fn summary(validator: &Validator, train: f64) -> ValidationSummary {
        let measure = |rows: &[usize]| {
            assert!(rows.len() == 9 && rows.iter().all(|&row| row < 20), "as many training rows as validate");
            Ok(train)
        };
        validator.summary(20, 1, measure).unwrap().unwrap()
    }

    const CONFIG: ValidationConfig = ValidationConfig { share: 0.1, every_steps: 0, patience: 2, min_gain: 0.0, keep_best: true };

    #[test]
    fn a_run_stops_when_patience_ends_and_the_best_weights_are_kept() {
        let losses = |config: &ValidationConfig, losses: &[f64]| run(config, Criterion::Loss, losses);
        let stopped = losses(&CONFIG, &[0.9, 0.5, f64::NAN, 0.6, 0.1]);
        assert!(stopped.is_over());
        assert_eq!((stopped.found().best, stopped.found().last), (Some((4, 0.5)), Some((8, 0.6))));
        assert_eq!(value(&stopped.kept(one(8.0))), 4.0);
        let told = summary(&stopped, 0.2);
        assert!(told.stopped_early && (told.gap - 0.3).abs() < 1e-12, "{told:?}");

        let patient = losses(&ValidationConfig { patience: 3, ..CONFIG }, &[0.9, 0.5, f64::NAN, 0.6, 0.1]);
        assert_eq!((value(&patient.kept(one(10.0))), summary(&patient, 0.1).stopped_early), (10.0, false));
        let last = losses(&ValidationConfig { patience: 0, keep_best: false, ..CONFIG }, &[0.5, 0.6]);
        assert_eq!(value(&last.kept(one(4.0))), 4.0);
        assert!((summary(&last, 0.1).gap - 0.5).abs() < 1e-12);
        let demanding = losses(&ValidationConfig { min_gain: 0.2, ..CONFIG }, &[0.9, 0.8, 0.75]);
        assert!(demanding.is_over() && demanding.found().best == Some((2, 0.9)));
        let late = losses(&CONFIG, &[f64::NAN, 0.7]);
        assert_eq!(late.found().best, Some((4, 0.7)), "any number is better than none");
    }

    #[test]
    fn of_rewards_more_is_better() {
        let stopped = run(&CONFIG, Criterion::Reward, &[-0.5, 0.25, 0.2, 0.25]);
        assert_eq!((stopped.is_over(), stopped.found().best, value(&stopped.kept(one(8.0)))), (true, Some((4, 0.25)), 4.0));
        assert!((summary(&stopped, 0.75).gap - 0.5).abs() < 1e-12, "better on the rows it was trained on");
    }

    #[test]
    fn what_a_checkpoint_carries_is_put_back() {
        let before = run(&ValidationConfig { patience: 9, ..CONFIG }, Criterion::Loss, &[0.9, 0.5, 0.6]);
        let others: ByName = [("weight".to_owned(), one(7.0).weight.val().inner())].into();
        let carried = before.carried(&others);
        assert_eq!(carried.len(), 2);
        let [best, others] = best_and_others(carried);
        let after = Validator::new(&CONFIG, Criterion::Loss, 9, vec![2, 4, 6]).restored(before.found().clone(), best);
        assert_eq!(others.into_values().map(|weight| weight.into_scalar::<f32>()).collect::<Vec<_>>(), [7.0]);
        assert_eq!((value(&after.kept(one(6.0))), after.found()), (4.0, before.found()));
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let (none, file) = (DataConfig::default(), DataConfig { validation: Some("v.tsv".into()), ..DataConfig::default() });
        let off = ValidationConfig::default();
        for (config, data, key) in [
            (ValidationConfig { patience: 2, ..off.clone() }, vec![&none], "validation.patience"),
            (ValidationConfig { every_steps: 2, ..off.clone() }, vec![&none], "validation.every_steps"),
            (ValidationConfig { share: f64::NAN, ..off.clone() }, vec![&none], "validation.share"),
            (CONFIG, vec![&none, &file], "1.validation"),
            (ValidationConfig { share: 0.0, ..CONFIG }, vec![&file, &none], "1.validation"),
        ] {
            let data: Vec<(String, &DataConfig)> = data.into_iter().enumerate().map(|(index, data)| (index.to_string(), data)).collect();
            let error = config.validate(&data).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
        let validated = |config: &ValidationConfig, data: &DataConfig| config.validate(&[("data".to_owned(), data)]).unwrap();
        assert!(validated(&CONFIG, &none) && validated(&ValidationConfig { share: 0.0, ..CONFIG }, &file) && !validated(&off, &none));
    }
}
