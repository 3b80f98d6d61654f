//! What a run of several tasks is validated by.
//!
//! ```text
//! validation loss = 1/K · Σ_i L_i / L_i(0)
//! ```
//!
//! K: the tasks; L_i: the mean loss of task i on its rows that validate; L_i(0): the same before the first step, with a new head that knows how
//! often each class is right and no more. A mean of losses as they are would follow the tasks with many classes or words. Every task counts
//! alike, however many rows it has.
//!
//! Source: Chen et al., GradNorm, arXiv:1711.02257, Section 3.1: the loss ratio, there of training batches and to weigh the tasks by.
//! Differs from the source: the mean of the ratios, on rows that do not train, says which weights are best.

use crate::config::MultitaskConfig;
use crate::data::{Task, TaskRows};
use crate::evaluate::evaluate;
use crate::model::MultitaskModel;
use kiln_core::Result;
use kiln_data::split::order;

/// The mean loss of each task on the rows of `side`.
pub(crate) fn losses(config: &MultitaskConfig, model: &MultitaskModel, sides: &[TaskRows]) -> Vec<f64> {
    sides.iter().enumerate().map(|(task, rows)| evaluate(model, task, rows, config.seed).loss).collect()
}

/// The mean of `losses`, each in units of what it was at `first`.
pub(crate) fn mean_share(losses: &[f64], first: &[f64]) -> f64 {
    let share = |(loss, first): (&f64, &f64)| loss / first.max(f64::MIN_POSITIVE);
    losses.iter().zip(first).map(share).sum::<f64>() / losses.len() as f64
}

/// As many training rows of each task as validate.
///
/// # Errors
/// If one on disk cannot be read.
pub(crate) fn trained(config: &MultitaskConfig, tasks: &[Task]) -> Result<Vec<TaskRows>> {
    let some = |task: &Task| {
        let chosen: Vec<usize> = order(task.train.len(), config.seed).into_iter().take(task.validation.len()).collect();
        task.train.pick(&chosen)
    };
    tasks.iter().map(some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_count_alike_whatever_their_unit() {
        assert_eq!(mean_share(&[0.5, 3.0], &[1.0, 4.0]), 0.625);
        assert_eq!(mean_share(&[0.5, 300.0], &[1.0, 400.0]), 0.625);
        assert_eq!(mean_share(&[0.7, 5.0], &[0.7, 5.0]), 1.0);
    }
}
