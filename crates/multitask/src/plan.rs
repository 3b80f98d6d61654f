//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::{Kind, MultitaskConfig, TaskConfig, in_task};
use crate::data::{Task, TaskRows};
use crate::gradients::{gradients, passes};
use crate::model::MultitaskModel;
use crate::sampling::Pick;
use crate::train::start;
use crate::weighting::Weights;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::source::Draw;
use kiln_kernels::random::Key;
use kiln_train::preflight::look::Look;
use kiln_train::preflight::plan::{Course, Goal, Plan, Work};
use kiln_train::preflight::{Finding, settings};

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &MultitaskConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, device, Goal::Plan)?.plan())
}

/// What a run computes.
fn course<'a>(config: &'a MultitaskConfig, shape: &'a ModelConfig, tasks: &[Task], batches: &[Vec<Pick>]) -> Result<Course<'a>> {
    let over_tokens = tasks.iter().any(|task| matches!(task.head.kind, Kind::NextToken | Kind::MaskedToken));
    let n_labels = tasks.iter().map(|task| task.head.labels.len().max(1)).max().unwrap_or(1);
    let sizes = tasks.iter().map(|task| Ok((task.train.lengths(), task.train.n_items()?))).collect::<Result<Vec<_>>>()?;
    let update = |picks: &Vec<Pick>| {
        let (lengths, n_read): (Vec<usize>, Vec<usize>) = picks.iter().map(|&(task, row)| (sizes[task].0[row], sizes[task].1[row])).unzip();
        vec![Work { lengths, n_rows: n_read.iter().sum() }]
    };
    Ok(Course {
        shape,
        n_outputs: if over_tokens { shape.vocab_size } else { n_labels },
        update: &config.update,
        adapter: None,
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: None,
        updates: batches.iter().map(update).collect(),
        is_partial: true,
        // Gradients of each task apart, where they are compared.
        n_copies: if config.pcgrad || config.cosine_steps > 0 { tasks.len() } else { 0 },
        evaluation: Work {
            lengths: tasks.iter().flat_map(|task| task.held_out.lengths()).collect(),
            n_rows: tasks.iter().map(|task| task.held_out.n_items()).collect::<Result<Vec<_>>>()?.concat().iter().sum(),
        },
        n_evaluations: 2,
    })
}

/// What is wrong with the rows of each task, and with the settings.
fn findings(config: &MultitaskConfig, shape: &ModelConfig, tokenizer: &Tokenizer, tasks: &[Task]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for task in tasks {
        let name = &task.head.name;
        let Some(settings) = config.tasks.get(name) else { continue };
        findings.extend(in_task(name, of_task(settings, config.draw(settings), shape, tokenizer, task))?);
    }
    findings.extend(settings::learning_rate("update.learning_rate", config.update.learning_rate, None));
    Ok(findings)
}

fn of_task(config: &TaskConfig, draw: Draw<'_>, shape: &ModelConfig, tokenizer: &Tokenizer, task: &Task) -> Result<Vec<Finding>> {
    let TaskConfig { data, columns, kind, .. } = config;
    let class = (*kind == Kind::Classification).then_some(columns.label.as_str());
    let look = Look { data, names: &columns.names, draw, class, tokenizer, files: &task.files };
    let mut findings = look.findings()?;
    if let TaskRows::Examples(examples) = &task.train {
        findings.extend(look.without_end(examples, &shape.end_ids, |row| Some(row))?);
    }
    Ok(findings)
}

/// Looks at a run before its first step. Returns what the user is to be told.
///
/// # Errors
/// If a finding stops the run.
pub(crate) fn check(
    config: &MultitaskConfig,
    model: &MultitaskModel,
    tokenizer: &Tokenizer,
    tasks: &[Task],
    batches: &[Vec<Pick>],
) -> Result<Vec<String>> {
    let findings = findings(config, model.config(), tokenizer, tasks)?;
    course(config, model.config(), tasks, batches)?.check(model, findings, config.force)
}

/// The plan of a run.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried(
    config: &MultitaskConfig,
    model: MultitaskModel,
    tokenizer: &Tokenizer,
    tasks: &[Task],
    batches: &[Vec<Pick>],
    plain: &Device,
) -> Result<Plan> {
    let shape = model.config().clone();
    let findings = findings(config, &shape, tokenizer, tasks)?;
    let rows: Vec<&TaskRows> = tasks.iter().map(|task| &task.train).collect();
    let n_rows = [rows.iter().map(|rows| rows.len()).sum(), tasks.iter().map(|task| task.held_out.len()).sum()];
    let (weights, key) = (Weights::new(config, tasks, plain), Key::new(config.seed));
    let pcgrad = config.pcgrad.then_some(key);
    course(config, &shape, tasks, batches)?.plan(model, findings, n_rows, |model, index, updater| {
        let passes = passes(&rows, &batches[index], shape.causal, key, config.dropout.then_some(key), config.pcgrad);
        let passes = passes.expect("rows that were read before");
        let found = gradients(model, &passes, &weights, tasks.len(), pcgrad);
        updater.add_by_path(found.by_path, found.n_items as f64);
    })
}
