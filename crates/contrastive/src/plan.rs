//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::{ContrastiveConfig, Objective};
use crate::train::{Task, start};
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::Counts;
use kiln_data::rows::Table;
use kiln_data::source::Sample;
use kiln_kernels::random::Key;
use kiln_train::preflight::plan::{Course, Goal, Plan, of_rows};
use kiln_train::preflight::rows::Fields;
use kiln_train::preflight::{Finding, settings, tokens};

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
    rows: &[T::Row],
    batches: &[Vec<usize>],
) -> Course<'a> {
    let parts = |batch: &Vec<usize>| task.works(&batch.iter().map(|&row| &rows[row]).collect::<Vec<_>>());
    let is_cut = matches!(config.objective, Objective::Mlm | Objective::CachedMnrl);
    Course {
        shape,
        n_outputs: if config.objective == Objective::Mlm { shape.vocab_size } else { 0 },
        update: &config.update,
        adapter: config.adapter.as_ref(),
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: is_cut.then_some("micro_batch_tokens"),
        updates: batches.iter().map(parts).collect(),
        is_partial: false,
        n_copies: 0,
        evaluation: task.evaluated(),
        n_evaluations: 2,
    }
}

/// What is wrong with the rows and the settings.
fn findings(config: &ContrastiveConfig, tokenizer: &Tokenizer, counts: &[Counts; 3]) -> Result<Vec<Finding>> {
    let columns = &config.columns;
    let of = |train: &Table, aside: [Option<&Table>; 2]| {
        of_rows(train, aside, &Fields { texts: config.draw().texts.of(train), class: None }, tokenizer)
    };
    let mut findings = if config.data.held_out.as_ref().is_some_and(|path| path.is_dir()) {
        of(&Table::read(config.data.train.first(), &columns.names)?, [None, None])?
    } else {
        let Sample { train, held_out, validation } = config.data.sample(&columns.names, config.draw())?;
        of(&train, [Some(&held_out), validation.as_ref()])?
    };
    findings.extend(tokens::cut(config.data.train.first(), &counts[0], None));
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
    (rows, counts): (&[T::Row], &[Counts; 3]),
    batches: &[Vec<usize>],
) -> Result<Vec<String>> {
    let findings = findings(config, task.tokenizer(), counts)?;
    course(config, task, model.config(), rows, batches).check(model, findings, config.force)
}

/// The plan of a run.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    model: T::Model,
    (rows, counts): (&[T::Row], &[Counts; 3]),
    batches: &[Vec<usize>],
) -> Result<Plan> {
    let findings = findings(config, task.tokenizer(), counts)?;
    let shape = model.config().clone();
    course(config, task, &shape, rows, batches).plan(model, findings, [rows.len(), counts[1].n_rows], |model, index, updater| {
        let rows: Vec<&T::Row> = batches[index].iter().map(|&row| &rows[row]).collect();
        task.add_gradients(model, &rows, Key::new(config.seed), updater);
    })
}
