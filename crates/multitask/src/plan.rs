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
use kiln_data::source::{Draw, Sample};
use kiln_kernels::random::Key;
use kiln_train::preflight::plan::{Course, Goal, Plan, Work, of_rows};
use kiln_train::preflight::rows::Fields;
use kiln_train::preflight::{Finding, settings, tokens};

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &MultitaskConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, device, Goal::Plan)?.plan())
}

/// What a run computes.
fn course<'a>(config: &'a MultitaskConfig, shape: &'a ModelConfig, tasks: &[Task], batches: &[Vec<Pick>]) -> Course<'a> {
    let over_tokens = tasks.iter().any(|task| matches!(task.head.kind, Kind::NextToken | Kind::MaskedToken));
    let n_labels = tasks.iter().map(|task| task.head.labels.len().max(1)).max().unwrap_or(1);
    let update = |picks: &Vec<Pick>| {
        let (lengths, n_read): (Vec<usize>, Vec<usize>) =
            picks.iter().map(|&(task, row)| (tasks[task].train.n_tokens(row), tasks[task].train.n_items(row))).unzip();
        vec![Work { lengths, n_rows: n_read.iter().sum() }]
    };
    let held_out = || tasks.iter().flat_map(|task| (0..task.held_out.len()).map(|row| (&task.held_out, row)));
    Course {
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
            lengths: held_out().map(|(rows, row)| rows.n_tokens(row)).collect(),
            n_rows: held_out().map(|(rows, row)| rows.n_items(row)).sum(),
        },
        n_evaluations: 2,
    }
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
    let Sample { train, held_out, validation } = config.data.sample(&config.columns.names, draw)?;
    let class = (config.kind == Kind::Classification).then_some(config.columns.label.as_str());
    let fields = Fields { texts: draw.texts.of(&train), class };
    let mut findings = of_rows(&train, [Some(&held_out), validation.as_ref()], &fields, tokenizer)?;
    let n_targets = (0..task.train.len()).map(|row| task.train.n_items(row)).sum();
    let of_tokens = matches!(config.kind, Kind::NextToken | Kind::TokenClassification);
    findings.extend(tokens::cut(&train.path, &task.counts[0], of_tokens.then_some(n_targets)));
    if let TaskRows::Examples(examples) = &task.train
        && !train.is_running_text()
    {
        findings.extend(tokens::stop(&train.path, examples, &shape.end_ids));
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
    course(config, model.config(), tasks, batches).check(model, findings, config.force)
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
    course(config, &shape, tasks, batches).plan(model, findings, n_rows, |model, index, updater| {
        let passes = passes(&rows, &batches[index], shape.causal, key, config.dropout.then_some(key), config.pcgrad);
        let found = gradients(model, &passes, &weights, tasks.len(), pcgrad);
        updater.add_by_path(found.by_path, found.n_items as f64);
    })
}
