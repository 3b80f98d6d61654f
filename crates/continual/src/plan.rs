//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::ContinualConfig;
use crate::data::{Corpus, Objective, picked};
use crate::replay::RowId;
use crate::train::start;
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, adapter};
use kiln_data::pack::parts;
use kiln_data::source::{DataConfig, Draw};
use kiln_data::store::Sequence as _;
use kiln_kernels::random::Key;
use kiln_train::preflight::look::Look;
use kiln_train::preflight::plan::{Course, Goal, Plan, Work};
use kiln_train::preflight::{Finding, settings};
use kiln_train::updater::Updater;

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &ContinualConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, device, Goal::Plan)?.plan())
}

/// What a run computes, over all domains.
fn course<'a, O: Objective>(
    config: &'a ContinualConfig,
    objective: &O,
    shape: &'a ModelConfig,
    corpora: &[Corpus<O::Row>],
    updates: &[Vec<RowId>],
) -> Result<Course<'a>> {
    let sizes = |row: &O::Row| (row.n_tokens(), objective.n_read(row));
    let work = |rows: &mut dyn Iterator<Item = (usize, usize)>| {
        let (lengths, n_read): (Vec<usize>, Vec<usize>) = rows.unzip();
        Work { lengths, n_rows: n_read.iter().sum() }
    };
    let of_rows = corpora.iter().map(|corpus| corpus.rows.train.each(sizes)).collect::<Result<Vec<_>>>()?;
    let passes = |update: &Vec<RowId>| {
        let rows: Vec<(usize, usize)> = update.iter().map(|&(corpus, row)| of_rows[corpus][row]).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.0).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        parts(&all, &lengths, config.micro_batch_tokens).into_iter().map(|part| work(&mut part.iter().map(|&row| rows[row]))).collect()
    };
    let n_domains = corpora.len() - usize::from(config.general.is_some());
    let is_pulled = config.ewc.strength > 0.0 || config.l2_sp.strength > 0.0;
    // Where parameters were, how important they are, and a teacher.
    let copies = [config.budget.is_some(), is_pulled, config.ewc.strength > 0.0, config.lwf.strength > 0.0];
    Ok(Course {
        shape,
        n_outputs: shape.vocab_size,
        update: &config.update,
        adapter: config.adapter.as_ref(),
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: Some("micro_batch_tokens"),
        is_partial: false,
        n_copies: copies.into_iter().filter(|&is_kept| is_kept).count(),
        evaluation: work(&mut corpora.iter().flat_map(|corpus| &corpus.rows.held_out).map(sizes)),
        n_evaluations: 1 + n_domains + updates.len().checked_div(config.evaluate_every).unwrap_or(0),
        updates: updates.iter().map(passes).collect(),
    })
}

/// What is wrong with the rows of each corpus, and with the settings.
fn findings<R>(config: &ContinualConfig, tokenizer: &Tokenizer, corpora: &[Corpus<R>]) -> Result<Vec<Finding>> {
    let general = config.general.clone().map(|data| (data, Draw::new(config.seed, config.texts())));
    let domains = config.stream()?.into_iter().map(|(_, data)| (data, config.validation.draw(config.seed, config.texts())));
    let domains: Vec<(DataConfig, Draw<'_>)> = general.into_iter().chain(domains).collect();
    let mut findings = Vec::new();
    for ((data, draw), corpus) in domains.iter().zip(corpora) {
        let look = Look { data, names: &config.columns.names, draw: *draw, class: None, tokenizer, files: &corpus.rows.files };
        findings.extend(look.findings()?);
    }
    findings.extend(settings::learning_rate("update.learning_rate", config.update.learning_rate, config.adapter.as_ref()));
    Ok(findings)
}

/// The model as it learns the first domain.
fn prepared(config: &ContinualConfig, model: LanguageModel, device: &Device) -> Result<LanguageModel> {
    let mut model = match &config.adapter {
        Some(lora) => adapter::attach(model, lora, device, Key::new(config.seed))?,
        None => model,
    };
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    Ok(model)
}

/// Looks at a run before its first step. Returns what the user is to be told.
///
/// # Errors
/// If a finding stops the run.
pub(crate) fn check<O: Objective>(
    config: &ContinualConfig,
    objective: &O,
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    corpora: &[Corpus<O::Row>],
    updates: &[Vec<RowId>],
    device: &Device,
) -> Result<Vec<String>> {
    let findings = findings(config, tokenizer, corpora)?;
    // A group without a parameter is told before the run has a folder.
    let model = Updater::new(config.update.clone(), 1).prepare(prepared(config, model.clone(), device)?, "update")?;
    course(config, objective, model.config(), corpora, updates)?.check(&model, findings, config.force)
}

/// The plan of a run, but for what holds the model to what it knew.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried<O: Objective>(
    config: &ContinualConfig,
    objective: &O,
    model: LanguageModel,
    tokenizer: &Tokenizer,
    corpora: &[Corpus<O::Row>],
    updates: &[Vec<RowId>],
    device: &Device,
) -> Result<Plan> {
    let model = prepared(config, model, device)?;
    let findings = findings(config, tokenizer, corpora)?;
    let shape = model.config().clone();
    let sum = |of: fn(&Corpus<O::Row>) -> usize| corpora.iter().map(of).sum();
    let n_rows = [sum(|corpus| corpus.rows.train.len()), sum(|corpus| corpus.rows.held_out.len())];
    course(config, objective, &shape, corpora, updates)?.plan(model, findings, n_rows, |model, index, updater| {
        let rows = picked(corpora, &updates[index]).expect("rows that were read before");
        let rows: Vec<&O::Row> = rows.iter().map(|row| &**row).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.n_tokens()).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        for part in parts(&all, &lengths, config.micro_batch_tokens) {
            let key = Key::new(config.seed);
            let (packed, supervised) = objective.pack(&rows[part[0]..part[0] + part.len()], key, part[0]);
            let loss = model.loss(&packed, &supervised, config.dropout.then_some(key));
            updater.add(model, loss.backward(), supervised.targets.len() as f64);
        }
    })
}
