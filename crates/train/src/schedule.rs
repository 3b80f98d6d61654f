//! The learning rate of each step.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// In a straight line to 0 after the last step, as transformers' `linear`.
    Linear,
    /// Along half a cosine to 0 after the last step, as transformers' `cosine` (arXiv:1608.03983, Eq. 5 without restarts).
    Cosine,
}

impl Schedule {
    /// The share of the peak learning rate at `step` (from 0) of `n_steps`, of which the first `n_warmup_steps` rise in a straight line.
    ///
    /// Differs from transformers: the first step of a warm-up already has a rate, `1 / n_warmup_steps`, instead of doing nothing.
    pub fn share(self, step: usize, n_steps: usize, n_warmup_steps: usize) -> f64 {
        if step < n_warmup_steps {
            return (step + 1) as f64 / n_warmup_steps as f64;
        }
        let progress = (step - n_warmup_steps) as f64 / (n_steps.saturating_sub(n_warmup_steps)).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
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
        let cosine = shares(Schedule::Cosine);
        assert!(cosine[2] == 1.0 && (cosine[3] - 0.5).abs() < 1e-12 && cosine[4].abs() < 1e-12);
    }

    /// transformers without warm-up: full rate at the first step, one n-th of it at the last.
    #[test]
    fn linear_without_warm_up_starts_full() {
        assert_eq!(Schedule::Linear.share(0, 4, 0), 1.0);
        assert_eq!(Schedule::Linear.share(3, 4, 0), 0.25);
    }
}
