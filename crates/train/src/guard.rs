//! What is done about a loss or a gradient that is not finite, or far above what they were: such a step is never taken.
//!
//! ```text
//! spike:  loss > f·median(last w losses)   or   norm > mean + z·deviation of the last w norms
//! ```
//!
//! Going back to a checkpoint and leaving out the batches that led to the spike is what Chowdhery et al. do, arXiv:2204.02311, Section 5.1.

use kiln_core::Result;
use kiln_data::source::in_range;
use serde::{Deserialize, Serialize};

/// When a step is not taken, and what happens then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// What happens. Default stop.
    pub action: Action,
    /// A loss above this many times the median of the last ones is a spike; 0 finds none, and where the median is not above 0 there is none.
    /// Default 0.
    pub loss_factor: f64,
    /// A gradient norm more than this many standard deviations above the mean of the last ones is a spike; 0 finds none. Default 0.
    pub norm_deviations: f64,
    /// How many of the last steps are compared with; before there are as many nothing is a spike. Default 32.
    pub window_steps: usize,
}

/// What happens when a step cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The run ends with an error.
    Stop,
    /// The step is left out.
    Skip,
    /// The weights go back to the last checkpoint, and the run goes on with the next batch.
    RollBack,
}

/// Steps in a row that may not be taken; after that the run ends: what goes wrong every time is no bad batch.
pub const MOST_IN_A_ROW: usize = 10;

/// The fewest steps that say what is usual.
const LEAST_WINDOW: usize = 4;

impl Default for GuardConfig {
    fn default() -> Self {
        Self { action: Action::Stop, loss_factor: 0.0, norm_deviations: 0.0, window_steps: 32 }
    }
}

impl GuardConfig {
    /// Checks that the settings make sense; `section` is where they stand in the configuration.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let in_range = |key: &str, value: f64, fits: bool, expected: &str| in_range(&format!("{section}.{key}"), value, fits, expected);
        let factor = self.loss_factor;
        in_range("loss_factor", factor, factor == 0.0 || factor > 1.0 && factor.is_finite(), "0, or more than 1")?;
        let deviations = self.norm_deviations;
        in_range("norm_deviations", deviations, deviations >= 0.0 && deviations.is_finite(), "0 or more")?;
        let window = self.window_steps;
        in_range("window_steps", window as f64, window >= LEAST_WINDOW, &format!("{LEAST_WINDOW} or more"))
    }
}

/// The last losses and gradient norms, of steps that were taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    losses: Vec<f64>,
    norms: Vec<f64>,
    /// Steps not taken, since the last that was.
    n_in_a_row: usize,
    /// Steps not taken.
    pub n_skipped: usize,
}

impl Recent {
    /// Why a step with this loss and this gradient norm is not to be taken, if so; else remembers them.
    pub(crate) fn trouble(&mut self, loss: f64, norm: f64, config: &GuardConfig) -> Option<String> {
        let trouble = self.found(loss, norm, config);
        if trouble.is_some() {
            self.n_in_a_row += 1;
            self.n_skipped += 1;
            return trouble;
        }
        self.n_in_a_row = 0;
        if config.loss_factor > 0.0 || config.norm_deviations > 0.0 {
            for (values, value) in [(&mut self.losses, loss), (&mut self.norms, norm)] {
                values.push(value);
                values.drain(..values.len().saturating_sub(config.window_steps));
            }
        }
        None
    }

    /// Whether the run has to end.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.n_in_a_row > MOST_IN_A_ROW
    }

    fn found(&self, loss: f64, norm: f64, config: &GuardConfig) -> Option<String> {
        for (what, value) in [("the loss", loss), ("the gradient norm", norm)] {
            if !value.is_finite() {
                return Some(format!("{what} is not a finite number"));
            }
        }
        if self.losses.len() < config.window_steps {
            return None;
        }
        let usual = median(&self.losses);
        if config.loss_factor > 0.0 && usual > 0.0 && loss > config.loss_factor * usual {
            return Some(format!("the loss is {loss:.4}, the median of the last steps {usual:.4}"));
        }
        let (mean, deviation) = moments(&self.norms);
        if config.norm_deviations > 0.0 && norm > mean + config.norm_deviations * deviation {
            return Some(format!("the gradient norm is {norm:.4}, in the last steps {mean:.4} with a deviation of {deviation:.4}"));
        }
        None
    }
}

/// The middle value, or the mean of the two in the middle.
///
/// # Panics
/// If there is no value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { 0.5 * (sorted[middle - 1] + sorted[middle]) } else { sorted[middle] }
}

/// The mean, and the standard deviation of a sample.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: GuardConfig = GuardConfig { action: Action::Skip, loss_factor: 3.0, norm_deviations: 4.0, window_steps: 5 };

    /// After five ordinary steps: losses with the median 1, norms with the mean 2 and the deviation 0.1.
    fn usual() -> Recent {
        let mut recent = Recent::default();
        for (loss, norm) in [(0.5, 2.0), (1.0, 2.1), (9.0, 1.9), (1.0, 2.1), (1.2, 1.9)] {
            assert_eq!(recent.trouble(loss, norm, &CONFIG), None, "nothing is a spike before the window is full");
        }
        recent
    }

    #[test]
    fn spikes_are_found_and_what_is_near_is_not() {
        for (loss, norm, word) in [
            (2.99, 2.39, None),
            (3.01, 2.0, Some("the loss is 3.0100, the median of the last steps 1.0000")),
            (1.0, 2.41, Some("the gradient norm is 2.4100, in the last steps 2.0000 with a deviation of 0.1000")),
            (f64::NAN, 2.0, Some("the loss is not a finite number")),
            (1.0, f64::INFINITY, Some("the gradient norm is not a finite number")),
        ] {
            assert_eq!(usual().trouble(loss, norm, &CONFIG).as_deref(), word);
        }
    }

    #[test]
    fn what_was_not_taken_does_not_become_usual() {
        let mut recent = usual();
        let before = recent.clone();
        for n in 1..=MOST_IN_A_ROW {
            assert!(recent.trouble(100.0, 2.0, &CONFIG).is_some() && !recent.is_hopeless());
            assert_eq!((recent.n_skipped, &recent.losses), (n, &before.losses));
        }
        let mut rescued = recent.clone();
        assert!(rescued.trouble(1.0, 2.0, &CONFIG).is_none() && rescued.trouble(100.0, 2.0, &CONFIG).is_some() && !rescued.is_hopeless());
        assert!(recent.trouble(100.0, 2.0, &CONFIG).is_some() && recent.is_hopeless());
    }

    #[test]
    fn without_thresholds_only_what_is_not_finite_is_trouble() {
        let mut recent = Recent::default();
        for step in 0..100 {
            assert_eq!(recent.trouble(10f64.powi(step), 10f64.powi(step), &GuardConfig::default()), None);
        }
        assert_eq!(recent, Recent::default(), "nothing is remembered");
        assert!(recent.trouble(f64::NAN, 1.0, &GuardConfig::default()).is_some());
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}
