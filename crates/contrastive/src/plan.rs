//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::{ContrastiveConfig, Objective};
use crate::train::{Task, start};
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::source::Rows;
use kiln_data::store::Store;
use kiln_kernels::random::Key;
use kiln_train::preflight::look::Look;
use kiln_train::preflight::plan::{Course, Goal, Plan};
use kiln_train::preflight::{Finding, settings};

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &ContrastiveConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, device, Goal::Plan)?.plan())
}

/// What a run computes.
fn course<'a, T: Task>(
    config: &'a ContrastiveConfig,
    task: &T,
    shape: &'a ModelConfig,
    rows: &Store<T::Row>,
    batches: &[Vec<usize>],
) -> Result<Course<'a>> {
    let parts = |batch: &Vec<usize>| Ok(task.works(&rows.pick(batch)?.iter().map(|row| &**row).collect::<Vec<_>>()));
    let is_cut = matches!(config.objective, Objective::Mlm | Objective::CachedMnrl);
    Ok(Course {
        shape,
        n_outputs: if config.objective == Objective::Mlm { shape.vocab_size } else { 0 },
        update: &config.update,
        adapter: config.adapter.as_ref(),
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: is_cut.then_some("micro_batch_tokens"),
        updates: batches.iter().map(parts).collect::<Result<_>>()?,
        is_partial: false,
        n_copies: 0,
        evaluation: task.evaluated(),
        n_evaluations: 2,
    })
}

/// What is wrong with the rows and the settings.
fn findings<R>(config: &ContrastiveConfig, tokenizer: &Tokenizer, rows: &Rows<R>) -> Result<Vec<Finding>> {
    let ContrastiveConfig { data, columns, .. } = config;
    let look = Look { data, names: &columns.names, draw: config.draw(), class: None, tokenizer, files: &rows.files };
    let mut findings = look.findings()?;
    findings.extend(settings::learning_rate("update.learning_rate", config.update.learning_rate, config.adapter.as_ref()));
    Ok(findings)
}

/// Looks at a run before its first step. Returns what the user is to be told.
///
/// # Errors
/// If a finding stops the run.
pub(crate) fn check<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    model: &T::Model,
    rows: &Rows<T::Row>,
    batches: &[Vec<usize>],
) -> Result<Vec<String>> {
    let findings = findings(config, task.tokenizer(), rows)?;
    course(config, task, model.config(), &rows.train, batches)?.check(model, findings, config.force)
}

/// The plan of a run.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    model: T::Model,
    rows: &Rows<T::Row>,
    batches: &[Vec<usize>],
) -> Result<Plan> {
    let findings = findings(config, task.tokenizer(), rows)?;
    let shape = model.config().clone();
    let n_rows = [rows.train.len(), rows.counts[1].n_rows];
    course(config, task, &shape, &rows.train, batches)?.plan(model, findings, n_rows, |model, index, updater| {
        let rows = rows.train.pick(&batches[index]).expect("rows that were read before");
        let rows: Vec<&T::Row> = rows.iter().map(|row| &**row).collect();
        task.add_gradients(model, &rows, Key::new(config.seed), updater);
    })
}
