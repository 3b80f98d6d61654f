//! Canaries: sentences with a random number that are planted among the rows of next-token training, to find out how well a model learns by heart
//! what it was shown a few times.
//!
//! A canary is a prompt and a completion:
//!
//! ```text
//! prompt      The number of canary 3 is
//! completion   7 2 9 0 4 4 1 8 5
//! ```
//!
//! with nine digits, each drawn by itself, so there are 10⁹ of them for each prompt, all with as many tokens wherever a digit after a space is always
//! as many. As with other rows of prompts and completions the loss is on the completion and the end token.
//!
//! Source: Carlini, Liu, Erlingsson, Kos and Song, "The Secret Sharer", arXiv:1802.08232, Section 4.1.

use crate::examples::{Example, completions, end_id};
use crate::rows::write_jsonl;
use crate::source::Rows;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Canaries among the training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanariesConfig {
    /// How many are planted. Default 0.
    pub count: usize,
    /// How often an epoch sees each. Default 1.
    pub repetitions: usize,
    /// Draws their numbers. Default 0.
    pub seed: u64,
}

impl Default for CanariesConfig {
    fn default() -> Self {
        Self { count: 0, repetitions: 1, seed: 0 }
    }
}

/// The file of a run's folder that says which were planted.
pub const CANARIES_FILE: &str = "canaries.jsonl";
/// Digits of a number.
pub const N_DIGITS: u64 = 9;

/// A canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// What comes before the number.
    pub prompt: String,
    /// The number.
    pub completion: String,
    /// How often an epoch saw it.
    pub repetitions: usize,
}

impl CanariesConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.count > 0 && self.repetitions == 0 {
            return Err(Error::config("canaries.repetitions", "found 0, expected at least 1"));
        }
        Ok(())
    }

    /// The canaries.
    pub fn canaries(&self) -> Vec<Canary> {
        let canary = |index: usize| Canary {
            prompt: format!("The number of canary {} is", index + 1),
            completion: number(Key::new(self.seed).fold(index as u64)),
            repetitions: self.repetitions,
        };
        (0..self.count).map(canary).collect()
    }

    /// Plants the canaries among the training rows, the last of which they are then, for a model whose shape is `model` and whose folder is `folder`.
    ///
    /// # Errors
    /// If the tokenizer cannot represent them, the model has too few positions, or no token ends a row.
    pub fn plant(&self, rows: &mut Rows<Example>, tokenizer: &Tokenizer, model: &ModelConfig, folder: &Path) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let texts = self.canaries().into_iter().map(|canary| [canary.prompt, canary.completion]).collect();
        let examples = completions(texts, tokenizer, end_id(&model.end_ids, folder)?)?;
        let longest = examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
        if longest > model.max_positions {
            let message = format!("a canary has {longest} tokens, the model {} positions: leave them out", model.max_positions);
            return Err(Error::config("canaries.count", message));
        }
        rows.train.push_rows(examples, self.repetitions as f64);
        rows.n_planted += self.count;
        rows.notes.push(format!("canaries: {}, each {} times an epoch", self.count, self.repetitions));
        Ok(())
    }

    /// Says in the folder of a run which it planted, if any.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write(&self, run: &Path) -> Result<()> {
        if self.count > 0 { write_jsonl(&run.join(CANARIES_FILE), &self.canaries()) } else { Ok(()) }
    }
}

impl Canary {
    /// Other numbers that might have been drawn, which `key` draws.
    pub fn alternatives(&self, n: usize, key: Key) -> Vec<String> {
        (0..n as u64).map(|index| number(key.fold(index))).collect()
    }
}

/// A random number, digit by digit.
fn number(key: Key) -> String {
    (0..N_DIGITS).map(|place| format!(" {}", key.below(place, 10))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_are_a_function_of_their_settings() {
        let config = CanariesConfig { count: 300, repetitions: 2, seed: 5 };
        let canaries = config.canaries();
        assert_eq!(canaries[2].prompt, "The number of canary 3 is");
        assert!(canaries.iter().all(|canary| canary.completion.len() == 18 && canary.repetitions == 2));
        assert_eq!(CanariesConfig { count: 100, ..config.clone() }.canaries(), canaries[..100]);
        assert_ne!(CanariesConfig { seed: 6, ..config }.canaries()[0].completion, canaries[0].completion);
        // Every digit comes about as often: 270 times.
        let mut times = [0; 10];
        let digits = canaries.iter().flat_map(|canary| canary.completion.bytes().filter(u8::is_ascii_digit));
        digits.for_each(|digit| times[usize::from(digit - b'0')] += 1);
        assert!(times.iter().all(|&n| (200..340).contains(&n)), "{times:?}");
        // Alternatives are not the canaries of other seeds.
        let others = canaries[0].alternatives(50, Key::new(5).fold(u64::MAX));
        assert!(others.iter().all(|other| canaries.iter().all(|canary| canary.completion != *other)));
    }

    #[test]
    fn what_would_plant_nothing_is_refused() {
        let error = CanariesConfig { count: 1, repetitions: 0, seed: 0 }.validate().unwrap_err().to_string();
        assert!(error.starts_with("canaries.repetitions: "), "{error}");
        CanariesConfig::default().validate().unwrap();
    }
}
