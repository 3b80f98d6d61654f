//! Rotary positions: the frequencies that `config.json` asks for, and the tables of a batch.
//!
//! ```text
//! θᵢ = base^(−2i / d)          a pair of components i turns by p·θᵢ at position p
//! linear:   θᵢ / factor        llama3, yarn: long waves as linear, short ones as they are, a blend between
//! dynamic:  base·(factor·n / m − factor + 1)^(d / (d − 2)) as the base of a sequence of n tokens, more than the m trained on
//! ```
//!
//! Sources: Su et al., arXiv:2104.09864, Section 3.2.2; linear: Chen et al., arXiv:2306.15595, Section 3.2; llama3: Grattafiori et al.,
//! arXiv:2407.21783, as published with Llama 3.1; yarn and dynamic: Peng et al., arXiv:2309.00071, Sections 3.1 to 3.4.
//! Differs from the source: transformers takes the length of `dynamic` from the longest sequence of a batch, we take each sequence's own.

use crate::config::Keys;
use crate::{Error, Result};
use kiln_kernels::rotary::Rotary;
use kiln_kernels::segments::Segments;
use serde_json::{Map, Value};
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

/// The frequencies of rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryConfig {
    /// The base of the frequencies.
    pub theta: f64,
    /// How they are changed to reach further than the model was trained for.
    pub scaling: Scaling,
}

/// A change of the frequencies; lengths are in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// None.
    Plain,
    /// All are divided.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// The base grows with a sequence that is longer than those trained on.
    Dynamic {
        /// How fast.
        factor: f64,
        /// The length trained on.
        trained_positions: f64,
    },
    /// Low frequencies are divided, high ones kept, those between blended by wavelength.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `trained_positions / low_frequency_factor` are scaled in full.
        low_frequency_factor: f64,
        /// Wavelengths below `trained_positions / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// The length the model was first trained for.
        trained_positions: f64,
    },
    /// The same, blended by the number of the pair, and attention is sharpened.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Factor of the turned queries and keys.
        attention_factor: f64,
        /// Pairs up to this number, perhaps broken, are kept.
        first: f64,
        /// Pairs from this number on are scaled in full.
        last: f64,
    },
}

/// Where a reader finds the parameters of a kind of blocks: under `rope_scaling` of transformers 4 or `rope_parameters` of transformers 5.
pub(crate) struct Source<'a> {
    keys: &'a Keys<'a>,
    key: &'static str,
    parameters: Map<String, Value>,
}

impl<'a> Source<'a> {
    /// The parameters for all blocks.
    pub(crate) fn of(keys: &'a Keys<'a>) -> Result<Self> {
        let is_filled = |key: &&str| keys.get(key).is_some_and(|value| value.as_object().is_none_or(|object| !object.is_empty()));
        let key = ["rope_scaling", "rope_parameters"].into_iter().find(is_filled).unwrap_or("rope_parameters");
        let parameters = match keys.get(key) {
            Some(Value::Object(parameters)) => parameters.clone(),
            Some(other) => return Err(keys.error(key, format!("expected an object, found {other}"))),
            None => Map::new(),
        };
        Ok(Self { keys, key, parameters })
    }

    /// Those of one kind of blocks, such as `full_attention`, where there is a set for each; none where there are not.
    pub(crate) fn of_kind(keys: &'a Keys<'a>, kind: &str) -> Result<Self> {
        let Self { key, parameters, .. } = Self::of(keys)?;
        match parameters.get(kind) {
            Some(Value::Object(own)) => Ok(Self { keys, key, parameters: own.clone() }),
            Some(Value::Null) | None => Ok(Self { keys, key, parameters: Map::new() }),
            Some(other) => Err(keys.error(key, format!("expected an object under {kind:?}, found {other}"))),
        }
    }

    fn fail(&self, message: String) -> Error {
        self.keys.error(self.key, message)
    }

    fn optional(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.parameters.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > 0.0 => Ok(Some(number)),
            _ => Err(self.fail(format!("expected a number above 0 under {name:?}, found {value}"))),
        }
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.optional(name)?.ok_or_else(|| self.fail(format!("expected a number above 0 under {name:?}, found none")))
    }

    /// Reads them for heads of `head_dim` components. `theta` is the base where they name none, `max_positions` the length of
    /// `max_position_embeddings`.
    pub(crate) fn config(&self, theta: f64, head_dim: usize, max_positions: usize) -> Result<RotaryConfig> {
        let theta = self.optional("rope_theta")?.unwrap_or(theta);
        let share = match self.optional("partial_rotary_factor")? {
            Some(share) => share,
            None => self.keys.number_or("partial_rotary_factor", 1.0)?,
        };
        if share != 1.0 {
            return Err(self.fail(format!("a partial_rotary_factor of {share} is not supported, only 1")));
        }
        let original = || match self.keys.optional_positive("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => Ok(self.optional("original_max_position_embeddings")?.unwrap_or(max_positions as f64)),
        };
        let kind = self.parameters.get("rope_type").or_else(|| self.parameters.get("type")).and_then(Value::as_str).unwrap_or("default");
        let scaling = match kind {
            "default" => Scaling::Plain,
            "linear" => Scaling::Linear { factor: self.number("factor")? },
            "dynamic" => Scaling::Dynamic { factor: self.number("factor")?, trained_positions: max_positions as f64 },
            "llama3" => Scaling::Llama3 {
                factor: self.number("factor")?,
                low_frequency_factor: self.number("low_freq_factor")?,
                high_frequency_factor: self.number("high_freq_factor")?,
                trained_positions: original()?,
            },
            "yarn" => self.yarn(theta, head_dim, max_positions, original()?)?,
            other => return Err(self.fail(format!("rotary scaling {other:?} is not one of default, linear, dynamic, llama3, yarn"))),
        };
        Ok(RotaryConfig { theta, scaling })
    }

    fn yarn(&self, theta: f64, head_dim: usize, max_positions: usize, trained_positions: f64) -> Result<Scaling> {
        let factor = self.optional("factor")?.unwrap_or(max_positions as f64 / trained_positions);
        // Equation 22, and what DeepSeek made of it.
        let sharpening = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let attention_factor = match (self.optional("attention_factor")?, self.optional("mscale")?, self.optional("mscale_all_dim")?) {
            (Some(given), ..) => given,
            (None, Some(scale), Some(of_all)) => sharpening(scale) / sharpening(of_all),
            (None, ..) => sharpening(1.0),
        };
        // The number of the pair that makes so many turns within the trained length, Equation 17 turned around.
        let pair = |turns: f64| head_dim as f64 * (trained_positions / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (first, last) = (pair(self.optional("beta_fast")?.unwrap_or(32.0)), pair(self.optional("beta_slow")?.unwrap_or(1.0)));
        let truncates = self.parameters.get("truncate").and_then(Value::as_bool).unwrap_or(true);
        let (first, last) = if truncates { (first.floor(), last.ceil()) } else { (first, last) };
        Ok(Scaling::Yarn { factor, attention_factor, first: first.max(0.0), last: last.min(head_dim as f64 - 1.0) })
    }
}

impl RotaryConfig {
    /// The length of the longest sequence it is for, if it reaches further than `max_position_embeddings` says.
    pub fn reach(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Dynamic { factor, trained_positions } => Some((factor.max(1.0) * trained_positions) as usize),
            _ => None,
        }
    }

    /// Radians per token of each pair of components, `[head_dim / 2]`, in a sequence of `length` tokens.
    pub fn inverse_frequencies(&self, head_dim: usize, length: usize) -> Vec<f32> {
        let d = head_dim as f64;
        let base = match self.scaling {
            Scaling::Dynamic { factor, trained_positions } if length as f64 > trained_positions => {
                self.theta * (factor * length as f64 / trained_positions - (factor - 1.0)).powf(d / (d - 2.0))
            }
            _ => self.theta,
        };
        let frequency = |pair: usize| {
            let frequency = base.powf(-2.0 * pair as f64 / d);
            // How much of the frequency is kept, the rest being divided by the factor.
            let blended = |kept: f64, factor: f64| frequency * (kept + (1.0 - kept) / factor);
            match self.scaling {
                Scaling::Plain | Scaling::Dynamic { .. } => frequency,
                Scaling::Linear { factor } => frequency / factor,
                Scaling::Llama3 { factor, low_frequency_factor: low, high_frequency_factor: high, trained_positions } => {
                    let turns = trained_positions * frequency / (2.0 * PI);
                    blended(((turns - low) / (high - low)).clamp(0.0, 1.0), factor)
                }
                Scaling::Yarn { factor, first, last, .. } => {
                    let width = if first == last { 0.001 } else { last - first };
                    blended(1.0 - ((pair as f64 - first) / width).clamp(0.0, 1.0), factor)
                }
            }
        };
        (0..head_dim / 2).map(|pair| frequency(pair) as f32).collect()
    }

    fn attention_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        }
    }
}

/// The tables of one kind of blocks, made as far as sequences have reached; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tables {
    config: RotaryConfig,
    head_dim: usize,
    made: Arc<Mutex<Rotary>>,
}

/// How the tokens of a batch turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The tables.
    pub rotary: Rotary,
    /// The row of the tables for each token, `[tokens]`.
    pub rows: Arc<[u32]>,
}

impl Tables {
    /// The fewest positions that a table is made for.
    const FEWEST: usize = 64;

    /// Tables for heads of `head_dim` components.
    pub fn new(config: RotaryConfig, head_dim: usize) -> Self {
        let empty = Rotary::new(&config.inverse_frequencies(head_dim, 0), config.attention_factor(), 0);
        Self { config, head_dim, made: Arc::new(Mutex::new(empty)) }
    }

    /// How the tokens of `segments` turn at their `positions`, in sequences that have `lengths` tokens by now, each one's earlier ones
    /// included.
    pub fn turn(&self, segments: &Segments, positions: &Arc<[u32]>, lengths: &[usize]) -> Turn {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let scale = self.config.attention_factor();
        if let Scaling::Dynamic { trained_positions, .. } = self.config.scaling
            && longest as f64 > trained_positions
        {
            // Every sequence has frequencies, and so a table, of its own.
            let frequencies: Vec<Vec<f32>> = lengths.iter().map(|&length| self.config.inverse_frequencies(self.head_dim, length)).collect();
            let rows: Vec<(u32, &[f32])> = segments
                .ranges()
                .zip(&frequencies)
                .flat_map(|(tokens, frequencies)| positions[tokens].iter().map(|&position| (position, frequencies.as_slice())))
                .collect();
            return Turn { rotary: Rotary::of_rows(&rows, self.head_dim / 2, scale), rows: (0..positions.len() as u32).collect() };
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.max_positions() < longest {
            let n_positions = longest.next_power_of_two().max(Self::FEWEST);
            *made = Rotary::new(&self.config.inverse_frequencies(self.head_dim, 0), scale, n_positions);
        }
        Turn { rotary: made.clone(), rows: positions.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: Scaling, length: usize) -> Vec<f32> {
        RotaryConfig { theta: 10_000.0, scaling }.inverse_frequencies(32, length)
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let plain = frequencies(Scaling::Plain, 1000);
        let yarn = Scaling::Yarn { factor: 1.0, attention_factor: 1.0, first: 2.0, last: 9.0 };
        for scaling in [Scaling::Linear { factor: 1.0 }, Scaling::Dynamic { factor: 1.0, trained_positions: 1e6 }, yarn] {
            assert_eq!(frequencies(scaling, 1000), plain, "{scaling:?}");
        }
    }

    /// At the length trained on the frequencies are the plain ones, and the lowest falls with the length as linear scaling would have it.
    #[test]
    fn dynamic_grows_out_of_the_plain_frequencies() {
        let dynamic = Scaling::Dynamic { factor: 2.0, trained_positions: 64.0 };
        let plain = frequencies(Scaling::Plain, 0);
        assert_eq!(frequencies(dynamic, 64), plain);
        let far = frequencies(dynamic, 128);
        assert_eq!(far[0], 1.0, "the fastest pair keeps its pace");
        // base·3^(d / (d − 2)), to the power of −(d − 2) / d.
        assert!((far[15] * 3.0 / plain[15] - 1.0).abs() < 1e-5, "{far:?}");
    }

    #[test]
    fn tables_grow_with_the_sequences() {
        let tables = Tables::new(RotaryConfig { theta: 10_000.0, scaling: Scaling::Plain }, 8);
        let positions: Arc<[u32]> = Arc::from([0, 1, 99]);
        let turn = |lengths: &[usize]| tables.turn(&Segments::from_lengths([2, 1]), &positions, lengths).rotary.max_positions();
        assert_eq!([turn(&[2, 1]), turn(&[2, 100]), turn(&[2, 1])], [64, 128, 128]);
    }
}
