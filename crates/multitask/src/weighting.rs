//! The factor of each task's loss in an update.

use crate::config::Kind;
use crate::config::{MultitaskConfig, Weighting};
use crate::data::Task;
use crate::objective::adam::{Adam, AdamState};
use crate::objective::famo::Famo;
use crate::objective::uncertainty::Uncertainty;
use burn::tensor::Device;

/// The weights of the tasks, and what they learn from.
#[derive(Clone, Debug)]
pub enum Weights {
    /// The factors that the settings give.
    Fixed(Vec<f64>),
    /// Learnt variances.
    Uncertainty(Uncertainty),
    /// Learnt shares.
    Famo(Famo),
}

impl Weights {
    /// As a run begins.
    pub fn new(config: &MultitaskConfig, tasks: &[Task], device: &Device) -> Self {
        let rate = config.weighting_learning_rate;
        match config.weighting {
            Weighting::Fixed => Self::Fixed(tasks.iter().map(|task| config.tasks[&task.head.name].weight).collect()),
            Weighting::Uncertainty => {
                let is_regression: Vec<bool> = tasks.iter().map(|task| task.head.kind == Kind::Regression).collect();
                Self::Uncertainty(Uncertainty::new(&is_regression, rate, device))
            }
            Weighting::Famo => Self::Famo(Famo::new(tasks.len(), rate, device)),
        }
    }

    /// The factor of each task's mean loss. `losses`: those means; `shares`: the share of each task in the rows of the batch.
    pub fn factors(&self, losses: &[Option<f64>], shares: &[f64]) -> Vec<f64> {
        match self {
            Self::Fixed(weights) => weights.iter().zip(shares).map(|(weight, share)| weight * share).collect(),
            Self::Uncertainty(uncertainty) => uncertainty.weights(),
            Self::Famo(famo) => famo.weights(losses),
        }
    }

    /// Learns from the losses of a batch; `after` computes those after the update.
    pub fn learn(&mut self, losses: &[Option<f64>], after: impl FnOnce() -> Vec<Option<f64>>) {
        match self {
            Self::Fixed(_) => {}
            Self::Uncertainty(uncertainty) => uncertainty.learn(losses),
            Self::Famo(famo) => famo.learn(losses, &after()),
        }
    }

    /// What it takes to go on learning them, if they are learnt.
    pub fn state(&mut self) -> Option<AdamState> {
        self.learner().map(|adam| adam.state())
    }

    /// Goes on from where the weights of another run of the same settings were.
    pub fn restore(&mut self, state: Option<AdamState>) {
        if let (Some(adam), Some(state)) = (self.learner(), state) {
            adam.restore(state);
        }
    }

    fn learner(&mut self) -> Option<&mut Adam> {
        match self {
            Self::Fixed(_) => None,
            Self::Uncertainty(uncertainty) => Some(&mut uncertainty.log_variances),
            Self::Famo(famo) => Some(&mut famo.logits),
        }
    }

    /// The weights that are learnt, as they stand: none if they are fixed.
    pub fn learnt(&self) -> Option<Vec<f64>> {
        match self {
            Self::Fixed(_) => None,
            Self::Uncertainty(uncertainty) => Some(uncertainty.weights()),
            Self::Famo(famo) => Some(famo.shares()),
        }
    }
}
