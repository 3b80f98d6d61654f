//! Groups of parameters that train otherwise than the rest, or not at all.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_core::parameters::{Change, change_parameters, parameters};
use kiln_core::{Error, Result};
use kiln_data::source::in_range;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Parameters whose path a pattern finds, and what is special about them. Of several groups that find a parameter the first counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// A regular expression that is found in the paths of the parameters, such as `^trunk\.embeddings` or `layers\.[0-3]\.`.
    pub pattern: String,
    /// The peak learning rate; without it that of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The factor of the learning rate of all; 1 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate_factor: Option<f64>,
    /// The weight decay; without it that of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Whether they stay as they are; no gradient is computed for them. Default false.
    pub frozen: bool,
}

impl GroupConfig {
    /// Checks that the settings make sense; `section` is where they stand in the configuration.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        self.regex(section)?;
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("learning_rate_factor", self.learning_rate_factor),
            ("weight_decay", self.weight_decay),
        ] {
            let value = value.unwrap_or(0.0);
            in_range(&format!("{section}.{key}"), value, value >= 0.0 && value.is_finite(), "0 or more")?;
        }
        if self.learning_rate.is_some() && self.learning_rate_factor.is_some() {
            return Err(Error::config(format!("{section}.learning_rate_factor"), "found beside learning_rate, expected one of them"));
        }
        Ok(())
    }

    fn regex(&self, section: &str) -> Result<Regex> {
        let fail = |message: String| Error::config(format!("{section}.pattern"), message);
        if self.pattern.is_empty() {
            return Err(fail("missing: a regular expression that finds paths of parameters".into()));
        }
        Regex::new(&self.pattern).map_err(|error| {
            let reason = error.to_string();
            fail(format!("{:?} is no regular expression: {}", self.pattern, reason.lines().last().unwrap_or_default()))
        })
    }
}

/// The groups in force, with their patterns.
#[derive(Clone, Debug)]
pub(crate) struct Groups(Vec<(Regex, GroupConfig)>);

impl Groups {
    pub(crate) fn new(groups: &[GroupConfig], section: &str) -> Result<Self> {
        let compiled = |(index, group): (usize, &GroupConfig)| Ok((group.regex(&at(section, index))?, group.clone()));
        Ok(Self(groups.iter().enumerate().map(compiled).collect::<Result<_>>()?))
    }

    /// The group of a parameter.
    pub(crate) fn of(&self, path: &str) -> Option<&GroupConfig> {
        self.0.iter().find(|(regex, _)| regex.is_match(path)).map(|(_, group)| group)
    }

    /// Freezes what is to be frozen, and says which parameters that are.
    ///
    /// # Errors
    /// [`Error::Config`] if a pattern finds no parameter that trains.
    pub(crate) fn freeze<M: Module>(&self, model: M, section: &str) -> Result<(M, BTreeSet<String>)> {
        let trainable: Vec<String> =
            parameters(&model).into_iter().filter(|parameter| parameter.trainable).map(|parameter| parameter.path).collect();
        if let Some(index) = self.0.iter().position(|(regex, _)| !trainable.iter().any(|path| regex.is_match(path))) {
            let examples: Vec<&str> = examples(&trainable);
            let message = format!("{:?} finds none of the parameters that train, such as {}", self.0[index].1.pattern, examples.join(", "));
            return Err(Error::config(format!("{}.pattern", at(section, index)), message));
        }
        let frozen: BTreeSet<String> = trainable.into_iter().filter(|path| self.of(path).is_some_and(|group| group.frozen)).collect();
        Ok((requiring(model, &frozen, false), frozen))
    }
}

/// Where the group with this index stands.
pub(crate) fn at(section: &str, index: usize) -> String {
    format!("{section}.groups[{index}]")
}

/// The first, the middle and the last of all paths.
fn examples(paths: &[String]) -> Vec<&str> {
    let mut indices = vec![0, paths.len() / 2, paths.len().saturating_sub(1)];
    indices.dedup();
    indices.into_iter().filter_map(|index| paths.get(index)).map(String::as_str).collect()
}

/// The model with the parameters at `paths` training, or not.
pub(crate) fn requiring<M: Module>(model: M, paths: &BTreeSet<String>, trains: bool) -> M {
    struct Set<'a>(&'a BTreeSet<String>, bool);

    impl Change for Set<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.contains(path) { param.set_require_grad(self.1) } else { param }
        }
    }

    if paths.is_empty() { model } else { change_parameters(model, &mut Set(paths, trains)) }
}
