//! The training loop of supervised fine-tuning.

use crate::config::{RegularizationConfig, SftConfig, Task};
use crate::data::{labels_of_model, preferences, source};
use crate::learner::{Classification, Learner, NextToken, Preference, Regression, TokenClassification};
use crate::mitigation::{Mitigation, MitigationSummary};
use crate::objective::r_drop::Regularization;
use crate::plan;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Counts;
use kiln_data::pack::{by_rows, by_tokens, parts};
use kiln_data::source::{self, Rows};
use kiln_data::split::shuffled;
use kiln_data::{grouped, prior, sequences, text, words};
use kiln_eval::evaluation::Evaluation;
use kiln_eval::figure::Difference;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::effort::Effort;
use kiln_train::manifest::resumable;
use kiln_train::mixout::Mixout;
use kiln_train::preflight::plan::{Goal, Outcome};
use kiln_train::run::{Run, Start};
use kiln_train::updater::{Updater, by_path};
use kiln_train::validation::{Criterion, Found, ValidationSummary, Validator, best_and_others, epoch_ends};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model as it came, on the held-out rows.
    pub before: Evaluation,
    /// The trained model, on the same rows.
    pub after: Evaluation,
    /// By how much each figure is larger after than before, with its paired interval.
    pub difference: Vec<Difference>,
    /// What mitigation did, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mitigation: Option<MitigationSummary>,
    /// What became of the training rows.
    pub train_rows: Counts,
    /// What became of the held-out rows.
    pub held_out_rows: Counts,
    /// Time in which the training loop waited for rows.
    pub data_seconds: f64,
    /// What came of validating it, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSummary>,
    /// What training took.
    #[serde(flatten)]
    pub effort: Effort,
}

/// Streams of randomness that one seed feeds.
const NEW_WEIGHTS: u64 = 0;
const ADAPTER: u64 = 1;
const DROPOUT: u64 = 2;
const MIXOUT: u64 = 3;

/// Fine-tunes as `config` says and leaves the run in the folder `out`: `model/` in Hugging Face layout (an adapter merged in), `adapter/` in
/// PEFT's if there is one, and what every run leaves (see [`kiln_train::run`]).
///
/// # Errors
/// If the configuration, a file or a row is bad, training diverges, or the user interrupts it.
pub fn train(config: &SftConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    Ok(start(config, device, Goal::Run(&Start::new(out)))?.achieved())
}

/// Goes on with the run in `folder` from its newest checkpoint, and stops as if interrupted after the step `until`. What the run leaves is
/// what it would have been without the break, but for the times.
///
/// # Errors
/// As [`train`]; if there is no run to go on with, or a file it reads was changed.
pub fn resume(folder: &Path, device: &Device, until: Option<usize>) -> Result<Summary> {
    Ok(start(&resumable::<SftConfig>(folder)?, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// What to do with a model and its rows, whatever the task.
pub(crate) trait Purpose {
    /// What comes of it.
    type Outcome;

    /// Does it.
    fn pursue<L: Learner>(
        self,
        learner: &mut L,
        config: &SftConfig,
        model: L::Model,
        tokenizer: &Tokenizer,
        rows: &Rows<L::Row>,
        device: &Device,
    ) -> Result<Self::Outcome>;
}

/// A run, or the plan of one.
impl Purpose for Goal<&Start> {
    type Outcome = Outcome<Summary>;

    fn pursue<L: Learner>(
        self,
        learner: &mut L,
        config: &SftConfig,
        model: L::Model,
        tokenizer: &Tokenizer,
        rows: &Rows<L::Row>,
        device: &Device,
    ) -> Result<Self::Outcome> {
        fit(learner, config, model, tokenizer, rows, device, self)
    }
}

/// Reads the model and the rows of `config`, for `purpose`.
pub(crate) fn start<P: Purpose>(config: &SftConfig, device: &Device, purpose: P) -> Result<P::Outcome> {
    let device = device.clone().autodiff();
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let new_weights = Key::new(config.seed).fold(NEW_WEIGHTS);
    let source = source(config, &shape, &tokenizer)?;
    let draw = config.draw();
    let RegularizationConfig { label_smoothing, r_drop, .. } = config.regularization;
    let regularization = Regularization { label_smoothing, r_drop };
    match config.task {
        Task::Classification => {
            let known = labels_of_model(&shape, &shape.family.classifier_class());
            let swaps = Mitigation::swaps(&config.mitigation)?;
            let of_groups = &config.mitigation.groups;
            let (mut rows, labels, groups) = grouped::classes(&config.data, &source, known, of_groups, swaps.as_ref(), draw)?;
            let prior = prior::of_classes(rows.train.each(|row| row.row.label)?, labels.len());
            let twins = grouped::add_twins(&mut rows.train)?;
            let members = rows.train.each(|row| (row.group, row.row.label))?;
            let mitigation = Mitigation::new(config, groups, &labels, members, twins)?;
            rows.notes.extend(mitigation.note());
            let (model, _) = SequenceClassifier::from_pretrained(&config.model, labels.names(), &prior, &device, new_weights)?;
            purpose.pursue(&mut Classification { regularization, mitigation }, config, model, &tokenizer, &rows, &device)
        }
        Task::Regression => {
            let rows = sequences::numbers(&config.data, &source, draw)?;
            let prior = prior::of_numbers(rows.train.each(|row| row.label)?);
            let (model, _) = SequenceClassifier::from_pretrained(&config.model, &[], &prior, &device, new_weights)?;
            purpose.pursue(&mut Regression, config, model, &tokenizer, &rows, &device)
        }
        Task::TokenClassification => {
            let known = labels_of_model(&shape, &shape.family.token_classifier_class());
            let (rows, labels) = words::sentences(&config.data, &source, known, draw)?;
            let tags = rows.train.each(|row| row.supervised().map(|(_, tag)| tag).collect::<Vec<_>>())?.concat();
            let (model, _) = TokenClassifier::from_pretrained(
                &config.model,
                labels.names(),
                &prior::of_classes(tags, labels.len()),
                &device,
                new_weights,
            )?;
            purpose.pursue(&mut TokenClassification(regularization), config, model, &tokenizer, &rows, &device)
        }
        Task::NextToken => {
            check_decoder(&shape)?;
            let mut rows = text::examples(&config.data, &source, draw)?;
            config.canaries.plant(&mut rows, &tokenizer, &shape, &config.model)?;
            let (model, _) = LanguageModel::load(&config.model, &device)?;
            purpose.pursue(&mut NextToken(config.regularization.label_smoothing), config, model, &tokenizer, &rows, &device)
        }
        Task::Preference => {
            check_decoder(&shape)?;
            let (model, _) = LanguageModel::load(&config.model, &device)?;
            // The model as it came is the reference: all that is kept of it are the pairs' log-probabilities.
            let rows = preferences::pairs(config, &source, &model)?;
            purpose.pursue(&mut Preference(&config.preference), config, model, &tokenizer, &rows, &device)
        }
    }
}

fn check_decoder(shape: &ModelConfig) -> Result<()> {
    if shape.causal {
        return Ok(());
    }
    let message = "an encoder cannot predict the next token; set task to \"classification\", \"regression\" or \"token-classification\", or take a decoder";
    Err(Error::config("task", message))
}

fn fit<L: Learner>(
    learner: &mut L,
    config: &SftConfig,
    model: L::Model,
    tokenizer: &Tokenizer,
    rows: &Rows<L::Row>,
    device: &Device,
    goal: Goal<&Start>,
) -> Result<Outcome<Summary>> {
    let key = Key::new(config.seed);
    let mut model = match &config.adapter {
        Some(lora) => adapter::attach(model, lora, device, key.fold(ADAPTER))?,
        None => model,
    };
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    let lengths = rows.train.lengths();
    learner.begin(&rows.train.epoch(config.seed, 0));
    let of_epoch = |epoch| batches(config, learner.drawn(rows.train.epoch(config.seed, epoch), epoch), &lengths, epoch);
    let epochs: Vec<Vec<Vec<usize>>> = (0..config.epochs as u64).map(of_epoch).collect();
    let epoch_ends = epoch_ends(0, epochs.iter().map(Vec::len));
    let batches = epochs.concat();
    let n_steps = batches.len();
    let start = match goal {
        Goal::Plan => return plan::tried(learner, config, model, tokenizer, rows, &batches).map(Outcome::planned),
        Goal::Run(start) => start,
    };
    let mut updater = Updater::new(config.update.clone(), n_steps);
    let model = updater.prepare(model, "update")?;
    let told = if start.is_resumed() { Vec::new() } else { plan::check(learner, config, &model, tokenizer, rows, &batches)? };
    let mut run = Run::open(start, config, &config.about(device, n_steps))?;
    config.canaries.write(run.folder())?;
    rows.notes.iter().for_each(|note| run.note(note));
    told.iter().for_each(|line| run.note(line));
    let [train_rows, held_out_rows, _] = rows.counts;
    run.note(&source::counted(&rows.counts, rows.validation.len()));
    let before = learner.evaluate(&model, &rows.held_out, config.seed);
    let mixout = (config.regularization.mixout > 0.0).then(|| Mixout::new(&model, config.regularization.mixout));
    let mut model = run.restore(model, &mut updater)?;
    let Progress { train_seconds, mut data_seconds, validation, learner: carried } = run.progress()?;
    learner.carry(carried);
    let validator = Validator::new(&config.validation, Criterion::Loss, rows.validation.len(), epoch_ends);
    let [best, _] = best_and_others(run.carried(&device.clone().inner())?);
    let mut validator = validator.restored(validation, best);
    let mut loop_start = run.elapsed_seconds() - train_seconds;
    let mut n_done = run.step();
    for (index, batch) in batches.iter().enumerate().skip(run.step()) {
        if validator.is_over() {
            break;
        }
        let (step, key) = (index + 1, key.fold(DROPOUT).fold(index as u64));
        let (mut loss_sum, mut n_items) = (0.0, 0.0);
        let mixing = Key::new(config.seed).fold(MIXOUT).fold(index as u64);
        let mixed = mixout.as_ref().map(|mixout| mixout.mixed(&model, mixing));
        for (part, indices) in parts(batch, &lengths, config.micro_batch_tokens).iter().enumerate() {
            let fetching = Instant::now();
            let part_rows = rows.train.pick(indices)?;
            data_seconds += fetching.elapsed().as_secs_f64();
            let part_rows: Vec<&L::Row> = part_rows.iter().map(|row| &**row).collect();
            let model = mixed.as_ref().unwrap_or(&model);
            let (loss, weight) = learner.loss(model, &part_rows, config.dropout.then(|| key.fold(part as u64)));
            let gradients = by_path(model, loss.backward());
            let gradients = match &mixout {
                Some(mixout) => mixout.gradients(gradients, mixing),
                None => gradients,
            };
            updater.add_by_path(gradients, weight);
            loss_sum += f64::from(loss.into_scalar::<f32>());
            n_items += weight;
        }
        drop(mixed);
        let loss = loss_sum / n_items;
        let stats;
        (model, stats) = run.update(step, model, &mut updater, loss)?;
        run.log(step, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
        n_done = step;
        let loss = |model: &L::Model| Ok(learner.validation_loss(model, &rows.validation, config.seed));
        loop_start += validator.validate(step, &model, &mut updater, &mut run, loss)?;
        if run.is_due(step) {
            let (train_seconds, validation) = (run.elapsed_seconds() - loop_start, validator.found().clone());
            let progress = Progress { train_seconds, data_seconds, validation, learner: learner.carried().to_vec() };
            run.save(step, &model, &updater, &progress, &validator.carried(&ByName::new()))?;
        }
    }
    let train_seconds = run.elapsed_seconds() - loop_start;
    let model = validator.kept(updater.averaged(&model));
    let validation = validator.summary(rows.n_own(), config.seed, |some| {
        let some: Vec<L::Row> = rows.train.pick(some)?.into_iter().map(Cow::into_owned).collect();
        Ok(learner.validation_loss(&model, &some, config.seed))
    })?;
    let inner = device.clone().inner();
    let (after, mitigation) = learner.finish(&model, [&rows.validation, &rows.held_out], &inner, config.seed)?;
    let n_tokens = batches[..n_done].iter().flatten().map(|&index| lengths[index]).sum();
    let summary = Summary {
        difference: after.minus(&before),
        before,
        after,
        mitigation,
        train_rows,
        held_out_rows,
        data_seconds,
        validation,
        effort: Effort::new(&model, [n_done, updater.n_skipped()], n_tokens, train_seconds),
    };
    if let Some(lora) = &config.adapter {
        adapter::save(&model, lora, &config.model.to_string_lossy(), &run.folder().join("adapter"))?;
    }
    let folder = run.folder().join("model");
    model::save(&model, tokenizer, &folder)?;
    learner.save(&folder)?;
    run.finish(&summary)?;
    Ok(Outcome::Run(summary))
}

/// What the loop carries from step to step, beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// In the training loop, evaluation left out.
    train_seconds: f64,
    /// Of these, waiting for rows.
    data_seconds: f64,
    /// What validations found.
    validation: Found,
    /// What the task carries.
    learner: Vec<f64>,
}

/// The rows of each update of one epoch, which sees `rows`.
fn batches(config: &SftConfig, rows: Vec<usize>, lengths: &[usize], epoch: u64) -> Vec<Vec<usize>> {
    if config.batch_tokens > 0 {
        let max_rows = (config.batch_rows > 0).then_some(config.batch_rows);
        by_tokens(rows, lengths, config.batch_tokens, max_rows, config.seed, epoch)
    } else {
        by_rows(&shuffled(rows, config.seed.wrapping_add(epoch)), config.batch_rows)
    }
}
