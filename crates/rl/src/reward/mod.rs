//! Rewards: what completions are worth. A reward is any number of weighted parts; each is a [`Reward`] of its own.

mod classifier;
mod command;
mod matching;

use crate::data::Prompt;
use burn::tensor::Device;
use kiln_core::{Error, Result};
use kiln_data::source::required;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A completion to be rewarded.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// What it completes, with the fields of its row.
    pub prompt: &'a Prompt,
    /// Its text, without the prompt's and without the end token.
    pub text: &'a str,
    /// Its tokens, with the end token.
    pub n_tokens: usize,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// A part of the reward.
pub trait Reward {
    /// What it is called in metrics.
    fn name(&self) -> String;

    /// One finite number for each completion.
    ///
    /// # Errors
    /// If a completion cannot be judged. The run then ends; its model is saved.
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>>;
}

/// What a part of the reward looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// 1 if the completion is the text in `column`, white space around both aside.
    Exact,
    /// 1 if what `pattern` finds last in the completion, its first group if it has one, is the text in `column`; without a column, if it finds
    /// anything.
    Regex,
    /// 1 if the last number of the completion is that in `column`, to within `tolerance`.
    Numeric,
    /// The probability of `label` under the classifier in the folder `model`.
    Classifier,
    /// The number that `command` writes.
    Command,
}

/// A part of the reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// What it looks at.
    pub kind: RewardKind,
    /// Its factor in the sum. Default 1.
    pub weight: f64,
    /// The column of what is right: exact, regex, numeric.
    pub column: String,
    /// A regular expression: regex.
    pub pattern: String,
    /// How far a number may be off: numeric. Default 1e-6.
    pub tolerance: f64,
    /// The folder of a classifier: classifier.
    pub model: PathBuf,
    /// One of its labels: classifier.
    pub label: String,
    /// Whether it reads the prompt before the completion: classifier. Default false.
    pub with_prompt: bool,
    /// A program and its arguments: command. It stays alive through the run; for each completion it reads a line of JSON with `prompt`,
    /// `completion` and `row`, and writes a line with a number.
    pub command: Vec<String>,
    /// How long a step's completions may take, in seconds: command. Default 60.
    pub timeout_seconds: f64,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            kind: RewardKind::Exact,
            weight: 1.0,
            column: String::new(),
            pattern: String::new(),
            tolerance: 1e-6,
            model: PathBuf::new(),
            label: String::new(),
            with_prompt: false,
            command: Vec::new(),
            timeout_seconds: 60.0,
        }
    }
}

impl RewardConfig {
    /// Whether it compares with a column of the row.
    pub fn reads_column(&self) -> bool {
        match self.kind {
            RewardKind::Exact | RewardKind::Numeric => true,
            RewardKind::Regex => !self.column.is_empty(),
            RewardKind::Classifier | RewardKind::Command => false,
        }
    }

    /// Checks what can be checked without reading a file; `place` is where it stands in the configuration.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self, place: &str) -> Result<()> {
        let key = |key: &str| format!("{place}.{key}");
        if !self.weight.is_finite() {
            return Err(Error::config(key("weight"), format!("found {}, expected a finite number", self.weight)));
        }
        match self.kind {
            RewardKind::Exact | RewardKind::Numeric if self.column.is_empty() => {
                return Err(Error::config(key("column"), "missing: the column of what is right"));
            }
            RewardKind::Numeric if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) => {
                return Err(Error::config(key("tolerance"), format!("found {}, expected 0 or more", self.tolerance)));
            }
            RewardKind::Regex if self.pattern.is_empty() => return Err(Error::config(key("pattern"), "missing: a regular expression")),
            RewardKind::Classifier => {
                required(&key("model"), &self.model, "the folder of a classifier")?;
                if self.label.is_empty() {
                    return Err(Error::config(key("label"), "missing: the label whose probability is the reward"));
                }
            }
            RewardKind::Command => {
                if self.command.is_empty() {
                    return Err(Error::config(key("command"), "missing: a program and its arguments"));
                }
                if !(self.timeout_seconds > 0.0 && self.timeout_seconds.is_finite()) {
                    return Err(Error::config(key("timeout_seconds"), format!("found {}, expected more than 0", self.timeout_seconds)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&self, place: &str, device: &Device) -> Result<Box<dyn Reward>> {
        Ok(match self.kind {
            RewardKind::Exact => Box::new(matching::Exact { place: place.to_owned(), column: self.column.clone() }),
            RewardKind::Regex => Box::new(matching::Pattern::new(place, &self.pattern, &self.column)?),
            RewardKind::Numeric => Box::new(matching::Numeric::new(place, &self.column, self.tolerance)),
            RewardKind::Classifier => Box::new(classifier::Classifier::open(place, &self.model, &self.label, self.with_prompt, device)?),
            RewardKind::Command => Box::new(command::Command::start(place, &self.command, self.timeout_seconds)?),
        })
    }
}

/// All parts of the reward.
pub struct Rewards {
    parts: Vec<(f64, Box<dyn Reward>)>,
}

impl fmt::Debug for Rewards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Rewards {
    /// Weighted parts.
    pub fn new(parts: Vec<(f64, Box<dyn Reward>)>) -> Self {
        Self { parts }
    }

    /// The parts that a configuration names: classifiers are loaded and commands started.
    ///
    /// # Errors
    /// If there is none, or a pattern, a classifier or a command is bad.
    pub fn open(configs: &[RewardConfig], device: &Device) -> Result<Self> {
        if configs.is_empty() {
            let message = "missing: at least one part, such as --set 'rewards=[{kind=\"exact\", column=\"answer\"}]'";
            return Err(Error::config("rewards", message));
        }
        let open = |(index, config): (usize, &RewardConfig)| Ok((config.weight, config.open(&format!("rewards[{index}]"), device)?));
        Ok(Self { parts: configs.iter().enumerate().map(open).collect::<Result<_>>()? })
    }

    /// What the parts are called, numbered where two are called the same.
    pub fn names(&self) -> Vec<String> {
        let names: Vec<String> = self.parts.iter().map(|(_, part)| part.name()).collect();
        let is_unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
        names.iter().enumerate().map(|(index, name)| if is_unique(name) { name.clone() } else { format!("{name}_{index}") }).collect()
    }

    /// What each part gives each completion: by completion, then by part.
    ///
    /// # Errors
    /// If a part fails, or gives something else than one finite number for each completion.
    pub fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Vec<f64>>> {
        let mut scores = vec![Vec::with_capacity(self.parts.len()); completions.len()];
        for (index, (_, part)) in self.parts.iter_mut().enumerate() {
            let place = format!("rewards[{index}] ({})", part.name());
            let found = part.score(completions)?;
            if found.len() != completions.len() {
                let message = format!("gave {} numbers for {} completions, expected one for each", found.len(), completions.len());
                return Err(Error::config(place, message));
            }
            if let Some((at, score)) = found.iter().enumerate().find(|(_, score)| !score.is_finite()) {
                let message = format!(
                    "gave {score} for the completion {:?} of line {}, expected a finite number",
                    completions[at].text, completions[at].prompt.line
                );
                return Err(Error::config(place, message));
            }
            scores.iter_mut().zip(found).for_each(|(scores, score)| scores.push(score));
        }
        Ok(scores)
    }

    /// The weighted sum of one completion's parts.
    pub fn total(&self, scores: &[f64]) -> f64 {
        self.parts.iter().zip(scores).map(|((weight, _), score)| weight * score).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A prompt whose row has these fields.
    pub(crate) fn prompt(fields: Value) -> Prompt {
        let Value::Object(fields) = fields else { panic!("an object") };
        Prompt { ids: vec![1], text: "2+2=".into(), line: 3, fields: fields.into_iter().collect() }
    }

    /// A completion of it.
    pub(crate) fn completion<'a>(prompt: &'a Prompt, text: &'a str) -> Completion<'a> {
        Completion { prompt, text, n_tokens: 2, ended: true }
    }

    struct Fixed(Vec<f64>);

    impl Reward for Fixed {
        fn name(&self) -> String {
            "fixed".into()
        }

        fn score(&mut self, _: &[Completion<'_>]) -> Result<Vec<f64>> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn parts_are_weighted_and_numbered() {
        let prompt = prompt(json!({}));
        let both = [completion(&prompt, "a"), completion(&prompt, "b")];
        let mut rewards = Rewards::new(vec![(2.0, Box::new(Fixed(vec![1.0, 0.5]))), (-1.0, Box::new(Fixed(vec![0.0, 3.0])))]);
        assert_eq!(rewards.names(), ["fixed_0", "fixed_1"]);
        let scores = rewards.score(&both).unwrap();
        assert_eq!(scores, [vec![1.0, 0.0], vec![0.5, 3.0]]);
        assert_eq!([rewards.total(&scores[0]), rewards.total(&scores[1])], [2.0, -2.0]);
    }

    #[test]
    fn what_is_no_number_for_each_completion_is_refused() {
        let prompt = prompt(json!({}));
        for (scores, words) in
            [(vec![1.0], "1 numbers for 2 completions"), (vec![1.0, f64::NAN], "gave NaN for the completion \"b\" of line 3")]
        {
            let both = [completion(&prompt, "a"), completion(&prompt, "b")];
            let error = Rewards::new(vec![(1.0, Box::new(Fixed(scores)))]).score(&both).unwrap_err().to_string();
            assert!(error.starts_with("rewards[0] (fixed): ") && error.contains(words), "{error}");
        }
    }
}
