//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::{SftConfig, Task};
use crate::learner::Learner;
use crate::train::start;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::pack::parts;
use kiln_data::source::Rows;
use kiln_data::store::Sequence;
use kiln_kernels::random::Key;
use kiln_train::preflight::look::Look;
use kiln_train::preflight::plan::{Course, Goal, Plan, Work};
use kiln_train::preflight::{Finding, settings};

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &SftConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, device, Goal::Plan)?.plan())
}

/// What a run computes.
fn course<'a, L: Learner>(
    learner: &L,
    config: &'a SftConfig,
    model: &L::Model,
    shape: &'a ModelConfig,
    rows: &Rows<L::Row>,
    batches: &[Vec<usize>],
) -> Result<Course<'a>> {
    let (lengths, n_read) = (rows.train.lengths(), rows.train.each(L::n_read)?);
    // R-Drop passes every row twice.
    let n_passes = if config.regularization.r_drop > 0.0 { 2 } else { 1 };
    let work = |rows: &mut dyn Iterator<Item = (usize, usize)>| {
        let (lengths, n_read): (Vec<usize>, Vec<usize>) = rows.unzip();
        Work { lengths: lengths.repeat(n_passes), n_rows: n_passes * n_read.iter().sum::<usize>() }
    };
    let part = |indices: Vec<usize>| work(&mut indices.iter().map(|&index| (lengths[index], n_read[index])));
    let updates = batches.iter().map(|batch| parts(batch, &lengths, config.micro_batch_tokens).into_iter().map(part).collect()).collect();
    Ok(Course {
        shape,
        n_outputs: learner.n_outputs(model),
        update: &config.update,
        adapter: config.adapter.as_ref(),
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: Some("micro_batch_tokens"),
        updates,
        evaluation: work(&mut rows.held_out.iter().map(|row| (row.n_tokens(), L::n_read(row)))),
        is_partial: false,
        // Mixout keeps the pretrained weights, and those of a step.
        n_copies: if config.regularization.mixout > 0.0 { 2 } else { 0 },
        n_evaluations: 2,
    })
}

/// What is wrong with the rows and the settings.
fn findings<L: Learner>(
    learner: &L,
    config: &SftConfig,
    model: &L::Model,
    tokenizer: &Tokenizer,
    rows: &Rows<L::Row>,
) -> Result<Vec<Finding>> {
    let class = (config.task == Task::Classification).then_some(config.columns.label.as_str());
    let SftConfig { data, columns, .. } = config;
    let look = Look { data, names: &columns.names, draw: config.draw(), class, tokenizer, files: &rows.files };
    let mut findings = look.findings()?;
    findings.extend(look.without_end(&rows.train, &model.config().end_ids, L::example)?);
    findings.extend(settings::learning_rate("update.learning_rate", config.update.learning_rate, config.adapter.as_ref()));
    findings.extend(learner.findings());
    Ok(findings)
}

/// Looks at a run before its first step. Returns what the user is to be told.
///
/// # Errors
/// If a finding stops the run.
pub(crate) fn check<L: Learner>(
    learner: &L,
    config: &SftConfig,
    model: &L::Model,
    tokenizer: &Tokenizer,
    rows: &Rows<L::Row>,
    batches: &[Vec<usize>],
) -> Result<Vec<String>> {
    let findings = findings(learner, config, model, tokenizer, rows)?;
    course(learner, config, model, model.config(), rows, batches)?.check(model, findings, config.force)
}

/// The plan of a run.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried<L: Learner>(
    learner: &mut L,
    config: &SftConfig,
    model: L::Model,
    tokenizer: &Tokenizer,
    rows: &Rows<L::Row>,
    batches: &[Vec<usize>],
) -> Result<Plan> {
    let findings = findings(learner, config, &model, tokenizer, rows)?;
    let shape = model.config().clone();
    let lengths = rows.train.lengths();
    let n_rows = [rows.train.n_seen(), rows.held_out.len()];
    course(learner, config, &model, &shape, rows, batches)?.plan(model, findings, n_rows, |model, index, updater| {
        for (part, indices) in parts(&batches[index], &lengths, config.micro_batch_tokens).iter().enumerate() {
            let part_rows = rows.train.pick(indices).expect("rows that were read before");
            let part_rows: Vec<&L::Row> = part_rows.iter().map(|row| &**row).collect();
            let dropout = config.dropout.then(|| Key::new(config.seed).fold(part as u64));
            let (loss, weight) = learner.loss(model, &part_rows, dropout);
            updater.add(model, loss.backward(), weight);
        }
    })
}
