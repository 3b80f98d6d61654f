//! The settings of an audit of a run's fit.

use kiln_core::Result;
use kiln_data::source::at_least_one;
use serde::{Deserialize, Serialize};

/// The settings of an audit of a run's fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FitAuditConfig {
    /// The most rows of each side, trained on and held out, that the models are asked about. Default 1000.
    pub rows: usize,
    /// Tokens of a row that a decoder is given. Default 32.
    pub prefix_tokens: usize,
    /// Tokens of the row that it should not know to go on with. Default 16.
    pub suffix_tokens: usize,
    /// Other numbers that a canary's is compared with. Default 1000.
    pub alternatives: usize,
    /// Draws the alternatives, and the resamples of the intervals.
    pub seed: u64,
}

impl Default for FitAuditConfig {
    fn default() -> Self {
        Self { rows: 1000, prefix_tokens: 32, suffix_tokens: 16, alternatives: 1000, seed: 0 }
    }
}

impl FitAuditConfig {
    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`kiln_core::Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let Self { rows, prefix_tokens, suffix_tokens, alternatives, .. } = *self;
        for (key, value) in
            [("rows", rows), ("prefix_tokens", prefix_tokens), ("suffix_tokens", suffix_tokens), ("alternatives", alternatives)]
        {
            at_least_one(key, value)?;
        }
        Ok(())
    }
}
