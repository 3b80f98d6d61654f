//! The learning rate of each step.

use kiln_core::Result;
use kiln_data::source::in_range;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate falls after the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It does not.
    Constant,
    /// In a straight line to 0 after the last step, as transformers' `linear`.
    #[default]
    Linear,
    /// Along half a cosine, as transformers' `cosine` and `cosine_with_min_lr` (arXiv:1608.03983, Eq. 5 without restarts).
    Cosine {
        /// The share of the peak that is left at the end. Default 0.
        #[serde(default)]
        floor: f64,
    },
    /// As `1/√step`, as transformers' `inverse_sqrt` (arXiv:1706.03762, Section 5.3): half of the peak after four times the warm-up.
    InverseSqrt {
        /// The steps after which the fall begins to show; 0 takes those of the warm-up, or 10 000 without one. Default 0.
        #[serde(default)]
        timescale_steps: usize,
    },
    /// As a power of what is left, as transformers' `polynomial`.
    Polynomial {
        /// The exponent. Default 1.
        #[serde(default = "one")]
        power: f64,
        /// The share of the peak that is left at the end. Default 0.
        #[serde(default)]
        floor: f64,
    },
    /// At the peak until a last stretch, as transformers' `warmup_stable_decay` (arXiv:2404.06395, Section 4.2).
    Wsd {
        /// The share of the steps in which it falls. Default 0.2.
        #[serde(default = "a_fifth")]
        decay_share: f64,
        /// How it falls. Default linear.
        #[serde(default)]
        shape: DecayShape,
        /// The share of the peak that is left at the end. Default 0.
        #[serde(default)]
        floor: f64,
    },
    /// By a factor whenever the validation loss has stopped falling, as PyTorch's `ReduceLROnPlateau`.
    Plateau {
        /// What the rate is multiplied by. Default 0.5.
        #[serde(default = "half")]
        factor: f64,
        /// Validations without a better loss before it is. Default 2.
        #[serde(default = "two")]
        patience: usize,
        /// By which share a loss must be lower to be better. Default 1e-4.
        #[serde(default = "a_bit")]
        threshold: f64,
        /// The share of the peak below which the rate does not go. Default 0.
        #[serde(default)]
        floor: f64,
    },
}

/// How the last stretch of warm-up-stable-decay falls, over a progress of 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayShape {
    /// `1 − progress`.
    #[default]
    Linear,
    /// `½·(1 + cos(π·progress))`.
    Cosine,
    /// `1 − √progress` (arXiv:2405.18392, Section 3).
    OneMinusSqrt,
}

// Serde takes defaults inside a variant from functions.
fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn a_fifth() -> f64 {
    0.2
}

fn a_bit() -> f64 {
    1e-4
}

fn two() -> usize {
    2
}

impl Schedule {
    /// Checks that the settings make sense; `section` is where they stand in the configuration.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let share = |key: &str, value: f64| in_range(&format!("{section}.{key}"), value, (0.0..=1.0).contains(&value), "0 to 1");
        match *self {
            Self::Constant | Self::Linear | Self::InverseSqrt { .. } => Ok(()),
            Self::Cosine { floor } => share("floor", floor),
            Self::Polynomial { power, floor } => {
                in_range(&format!("{section}.power"), power, power > 0.0 && power.is_finite(), "more than 0")?;
                share("floor", floor)
            }
            Self::Wsd { decay_share, shape: _, floor } => {
                share("decay_share", decay_share)?;
                share("floor", floor)
            }
            Self::Plateau { factor, patience: _, threshold, floor } => {
                in_range(&format!("{section}.factor"), factor, factor > 0.0 && factor < 1.0, "more than 0 and less than 1")?;
                in_range(&format!("{section}.threshold"), threshold, (0.0..1.0).contains(&threshold), "at least 0 and below 1")?;
                share("floor", floor)
            }
        }
    }

    /// The share of the peak learning rate at `step` (from 0) of `n_steps`, of which the first `n_warmup_steps` rise in a straight line.
    /// A plateau's is 1: what validations make of it is [`Plateau`]'s.
    ///
    /// Differs from transformers: the first step of a warm-up already has a rate, `1 / n_warmup_steps`, instead of doing nothing.
    pub fn share(&self, step: usize, n_steps: usize, n_warmup_steps: usize) -> f64 {
        if step < n_warmup_steps {
            return (step + 1) as f64 / n_warmup_steps as f64;
        }
        let progress = ((step - n_warmup_steps) as f64 / n_steps.saturating_sub(n_warmup_steps).max(1) as f64).min(1.0);
        let above = |floor: f64, share: f64| floor + (1.0 - floor) * share;
        match *self {
            Self::Constant | Self::Plateau { .. } => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine { floor } => above(floor, half_cosine(progress)),
            Self::InverseSqrt { timescale_steps } => {
                let timescale = [timescale_steps, n_warmup_steps].into_iter().find(|&steps| steps > 0).unwrap_or(10_000);
                (1.0 + (step - n_warmup_steps) as f64 / timescale as f64).sqrt().recip()
            }
            Self::Polynomial { power, floor } => above(floor, (1.0 - progress).powf(power)),
            Self::Wsd { decay_share, shape, floor } => {
                let n_decay_steps = (decay_share * n_steps as f64).round() as usize;
                let start = n_steps.saturating_sub(n_decay_steps).max(n_warmup_steps);
                if step < start {
                    return 1.0;
                }
                let progress = ((step - start) as f64 / n_steps.saturating_sub(start).max(1) as f64).min(1.0);
                above(
                    floor,
                    match shape {
                        DecayShape::Linear => 1.0 - progress,
                        DecayShape::Cosine => half_cosine(progress),
                        DecayShape::OneMinusSqrt => 1.0 - progress.sqrt(),
                    },
                )
            }
        }
    }
}

fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

/// What validations have made of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The share of the peak.
    pub share: f64,
    /// The lowest validation loss.
    pub best: Option<f64>,
    /// Validations since then, or since the rate was lowered.
    pub n_worse: usize,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { share: 1.0, best: None, n_worse: 0 }
    }
}

impl Plateau {
    /// After a validation with `loss`.
    pub fn validated(&mut self, schedule: &Schedule, loss: f64) {
        let Schedule::Plateau { factor, patience, threshold, floor } = *schedule else { return };
        if self.best.is_none_or(|best| loss < best - threshold * best.abs()) {
            (self.best, self.n_worse) = (Some(loss), 0);
            return;
        }
        self.n_worse += 1;
        if self.n_worse > patience {
            (self.share, self.n_worse) = ((self.share * factor).max(floor), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_then_fall() {
        let shares = |schedule: Schedule| [0, 1, 2, 6, 10].map(|step| schedule.share(step, 10, 2));
        assert_eq!(shares(Schedule::Constant), [0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(shares(Schedule::Linear), [0.5, 1.0, 1.0, 0.5, 0.0]);
        let cosine = shares(Schedule::Cosine { floor: 0.0 });
        assert!(cosine[2] == 1.0 && (cosine[3] - 0.5).abs() < 1e-12 && cosine[4].abs() < 1e-12);
    }

    /// transformers without warm-up: full rate at the first step, one n-th of it at the last.
    #[test]
    fn linear_without_warm_up_starts_full() {
        assert_eq!(Schedule::Linear.share(0, 4, 0), 1.0);
        assert_eq!(Schedule::Linear.share(3, 4, 0), 0.25);
    }

    #[test]
    fn inverse_square_roots_halve_after_four_times_the_warm_up() {
        let schedule = Schedule::InverseSqrt { timescale_steps: 0 };
        assert!((schedule.share(40, 1000, 10) - 0.5).abs() < 1e-12);
        assert!(schedule.share(999, 1000, 10) > 0.0, "it never ends at 0");
    }

    /// Each of them is another in a limit.
    #[test]
    fn limits_agree() {
        let wsd = |decay_share, shape, floor| Schedule::Wsd { decay_share, shape, floor };
        for step in 0..=20 {
            let share = |schedule: Schedule| schedule.share(step, 20, 4);
            let linear = share(Schedule::Linear);
            for other in
                [Schedule::Polynomial { power: 1.0, floor: 0.0 }, wsd(1.0, DecayShape::Linear, 0.0), wsd(0.8, DecayShape::Linear, 0.0)]
            {
                assert!((share(other) - linear).abs() < 1e-12);
            }
            assert!((share(wsd(1.0, DecayShape::Cosine, 0.1)) - share(Schedule::Cosine { floor: 0.1 })).abs() < 1e-12);
            for constant in [wsd(0.5, DecayShape::OneMinusSqrt, 1.0), Schedule::Cosine { floor: 1.0 }] {
                assert!((share(constant) - share(Schedule::Constant)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (schedule, key) in [
            (Schedule::Cosine { floor: f64::NAN }, "update.schedule.floor"),
            (Schedule::Polynomial { power: f64::INFINITY, floor: 0.0 }, "update.schedule.power"),
            (Schedule::Wsd { decay_share: 2.0, shape: DecayShape::Linear, floor: 0.0 }, "update.schedule.decay_share"),
            (Schedule::Plateau { factor: 1.0, patience: 1, threshold: 0.0, floor: 0.0 }, "update.schedule.factor"),
        ] {
            let error = schedule.validate("update.schedule").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: found ")), "{error}");
        }
    }
}
