//! Several tasks on one trunk in the demo.

use super::{Demo, Line, with_control};
use kiln_core::Result;
use kiln_multitask::config::{Kind, MultitaskConfig, TaskConfig};
use kiln_multitask::train::train;
use std::path::Path;

/// The tasks, their lines, and the rows of other methods they learn from.
const TASKS: [(&str, &str, Kind); 2] =
    [("names", "multitask, names", Kind::TokenClassification), ("topics", "multitask, topics", Kind::Classification)];

impl Demo {
    /// Topics of texts and names in sentences, by one encoder with two heads.
    pub(super) fn multitask(&self, encoder: &Path) -> Result<Vec<Line>> {
        let [summary, control] = with_control("", "multitask", |suffix, out| {
            let task = |(name, _, kind): &(&str, &str, Kind)| {
                let mut task = TaskConfig { kind: *kind, ..TaskConfig::default() };
                task.data.train = self.rows(&format!("{name}{suffix}")).into();
                task.data.held_out = Some(self.rows(&format!("{name}-held-out")));
                ((*name).to_owned(), task)
            };
            // The rows of a small grammar repeat, which the pre-flight would stop at.
            let mut config = MultitaskConfig { model: encoder.to_owned(), seed: self.seed, force: true, ..MultitaskConfig::default() };
            config.tasks = TASKS.iter().map(task).collect();
            config.epochs = 4;
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            train(&config, &self.device, &self.path(out))
        })?;
        let line = |(task, name, _): &(&str, &'static str, Kind)| {
            let [of_run, of_control] = [&summary, &control].map(|summary| &summary.tasks[*task]);
            let figures = [&of_run.before, &of_run.after, &of_control.after].map(|evaluation| &evaluation.figure);
            Line::new(name, "multitask", summary.train_seconds, figures)
        };
        Ok(TASKS.iter().map(line).collect())
    }
}
