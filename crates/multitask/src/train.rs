//! The training loop of several tasks on one trunk.

use crate::config::MultitaskConfig;
use crate::data::{self, Head, Task, TaskRows};
use crate::evaluate::evaluate;
use crate::gradients::{gradients, losses, passes};
use crate::model::MultitaskModel;
use crate::objective::adam::AdamState;
use crate::objective::pcgrad::cosine;
use crate::plan;
use crate::sampling::{Pick, batches};
use crate::validation;
use crate::weighting::Weights;
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::parameters::parameters;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::Counts;
use kiln_data::source::counted;
use kiln_eval::bootstrap::mean;
use kiln_eval::evaluation::Evaluation;
use kiln_eval::figure::{Difference, Figure};
use kiln_kernels::random::Key;
use kiln_train::checkpoint::{self, ByName};
use kiln_train::manifest::resumable;
use kiln_train::preflight::plan::{Goal, Outcome};
use kiln_train::run::{Run, Start};
use kiln_train::updater::Updater;
use kiln_train::validation::{Criterion, Found, ValidationSummary, Validator, best_and_others, epoch_ends};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Each task by name.
    pub tasks: BTreeMap<String, TaskSummary>,
    /// How the gradients of each pair of tasks lay to each other, where that was measured.
    pub conflicts: Vec<Conflict>,
    /// What came of validating the run, if it was: of the mean over tasks of the share that is left of each one's loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSummary>,
    /// Parameters trained.
    pub n_parameters: usize,
    /// Updates.
    pub n_steps: usize,
    /// Of these, updates that were left out because the loss or a gradient was not finite, or a spike.
    pub n_skipped_steps: usize,
    /// Time in the training loop, evaluation left out.
    pub train_seconds: f64,
    /// Training tokens per second of that time.
    pub tokens_per_second: f64,
    /// Time in the training loops of the tasks alone, if they were trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone_seconds: Option<f64>,
}

/// What a run achieved in one task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskSummary {
    /// With a new head, on the held-out rows.
    pub before: Evaluation,
    /// The trained model, on the same rows.
    pub after: Evaluation,
    /// What became of the training rows.
    pub train_rows: Counts,
    /// What became of the held-out rows.
    pub held_out_rows: Counts,
    /// How often a row of it was trained on.
    pub n_rows_trained: usize,
    /// Its weight at the end, if weights are learnt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A model that learnt this task alone, if one was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<Alone>,
}

/// A task by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Alone {
    /// The model trained on this task alone, on the held-out rows.
    pub after: Evaluation,
    /// By how much each figure is larger with the other tasks than alone.
    pub transfer: Vec<Difference>,
    /// Its updates.
    pub n_steps: usize,
    /// Time in its training loop.
    pub train_seconds: f64,
}

/// How the gradients of two tasks lay to each other.
#[derive(Clone, Debug, Serialize)]
pub struct Conflict {
    /// The tasks.
    pub tasks: [String; 2],
    /// The mean cosine between their gradients of all that they share.
    pub cosine: Figure,
    /// The share of measurements in which it was below 0.
    pub opposed: Figure,
    /// Measurements.
    pub n_steps: usize,
}

/// Streams of randomness that one seed feeds.
const NEW_WEIGHTS: u64 = 0;
const DROPOUT: u64 = 2;
const PCGRAD: u64 = 3;
const HIDDEN_TOKENS: u64 = 4;

/// Trains all tasks of `config` on one trunk and leaves the run in the folder `out`: `model/` with the trunk and its heads, and what every
/// run leaves (see [`kiln_train::run`]); and with `baselines` the run of each task alone under `alone/`, without its model.
///
/// # Errors
/// If the configuration, a file or a row is bad, training diverges, or the user interrupts it.
pub fn train(config: &MultitaskConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    Ok(start(config, device, Goal::Run(&Start::new(out)))?.achieved())
}

/// Goes on with the run in `folder` from its newest checkpoint, and stops as if interrupted after the step `until`. What the run leaves is
/// what it would have been without the break, but for the times.
///
/// # Errors
/// As [`train`]; if there is no run to go on with, or a file it reads was changed.
pub fn resume(folder: &Path, device: &Device, until: Option<usize>) -> Result<Summary> {
    Ok(start(&resumable::<MultitaskConfig>(folder)?, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// A run, or the plan of one.
pub(crate) fn start(config: &MultitaskConfig, device: &Device, goal: Goal<&Start>) -> Result<Outcome<Summary>> {
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let tasks = data::read(config, &shape, &tokenizer)?;
    let start = match goal {
        Goal::Plan => {
            let (model, batches) = (prepared(config, &tasks, device)?, updates(config, &tasks));
            return plan::tried(config, model, &tokenizer, &tasks, &batches, device).map(Outcome::planned);
        }
        Goal::Run(start) => start,
    };
    let (model, run, mut summary) = fit(config, &tasks, &tokenizer, device, start)?;
    model.save(&tokenizer, &run.folder().join("model"))?;
    drop(model);
    if config.baselines {
        for task in &tasks {
            let name = &task.head.name;
            run.note(&format!("{name} alone"));
            let part = start.part(&Path::new("alone").join(name));
            let (_, run, alone) = fit(&config.alone(name), std::slice::from_ref(task), &tokenizer, device, &part)?;
            run.finish(&alone)?;
            *summary.alone_seconds.get_or_insert(0.0) += alone.train_seconds;
            let (together, after) = (summary.tasks.get_mut(name).expect("every task has a summary"), &alone.tasks[name].after);
            together.alone = Some(Alone {
                after: after.clone(),
                transfer: together.after.minus(after),
                n_steps: alone.n_steps,
                train_seconds: alone.train_seconds,
            });
        }
    }
    run.finish(&summary)?;
    for task in tasks.iter().filter(|_| config.baselines) {
        // What the runs of the tasks alone learnt was evaluated, and is not kept.
        checkpoint::remove_all(start.part(&Path::new("alone").join(&task.head.name)).folder())?;
    }
    Ok(Outcome::Run(summary))
}

/// What the loop carries from step to step, beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// In the training loop, evaluation left out.
    train_seconds: f64,
    /// What the weights of the tasks are learnt by.
    weights: Option<AdamState>,
    /// Those measured between the gradients of each pair of tasks.
    cosines: Vec<((usize, usize), Vec<f64>)>,
    /// What validations found.
    validation: Found,
}

/// The model as it is trained.
fn prepared(config: &MultitaskConfig, tasks: &[Task], plain: &Device) -> Result<MultitaskModel> {
    let device = plain.clone().autodiff();
    let heads: Vec<Head> = tasks.iter().map(|task| task.head.clone()).collect();
    let priors = tasks.iter().map(|task| task.train.prior(&task.head)).collect::<Result<Vec<_>>>()?;
    let key = Key::new(config.seed).fold(NEW_WEIGHTS);
    let mut model = MultitaskModel::from_pretrained(&config.model, heads, &priors, &device, key)?;
    model.trunk.set_gradient_checkpointing(config.gradient_checkpointing)?;
    Ok(model)
}

/// The rows of each update.
fn updates(config: &MultitaskConfig, tasks: &[Task]) -> Vec<Vec<Pick>> {
    let sizes: Vec<usize> = tasks.iter().map(|task| task.train.epoch_len()).collect();
    batches(config, &sizes, |task, epoch| tasks[task].train.order(config.seed, epoch))
}

fn fit(
    config: &MultitaskConfig,
    tasks: &[Task],
    tokenizer: &Tokenizer,
    plain: &Device,
    start: &Start,
) -> Result<(MultitaskModel, Run, Summary)> {
    let (key, n) = (Key::new(config.seed), tasks.len());
    let mut model = prepared(config, tasks, plain)?;
    let causal = model.config().causal;
    let rows: Vec<&TaskRows> = tasks.iter().map(|task| &task.train).collect();
    let batches = updates(config, tasks);
    let n_steps = batches.len();
    let mut updater = Updater::new(config.update.clone(), n_steps).partial();
    model = updater.prepare(model, "update")?;
    let is_looked_at = start.is_resumed() || start.is_part();
    let told = if is_looked_at { Vec::new() } else { plan::check(config, &model, tokenizer, tasks, &batches)? };
    let mut run = Run::open(start, config, &config.about(plain, n_steps))?;
    told.iter().for_each(|line| run.note(line));
    for Task { head, counts, validation, notes, .. } in tasks {
        notes.iter().for_each(|note| run.note(&format!("{}: {note}", head.name)));
        run.note(&format!("{}: {}", head.name, counted(counts, validation.len())));
    }
    let judge = |model: &MultitaskModel| -> Vec<Evaluation> {
        tasks.iter().enumerate().map(|(index, task)| evaluate(model, index, &task.held_out, config.seed)).collect()
    };
    let before = judge(&model);
    let validated: Vec<TaskRows> = tasks.iter().map(|task| task.validation.clone()).collect();
    let n_validated: usize = validated.iter().map(TaskRows::len).sum();
    let first = if n_validated > 0 { validation::losses(config, &model, &validated) } else { Vec::new() };
    model = run.restore(model, &mut updater)?;
    let Progress { train_seconds, weights: learnt, cosines, validation: found } = run.progress()?;
    let per_epoch = rows.iter().map(|rows| rows.len()).sum::<usize>().div_ceil(config.batch_rows);
    let ends = epoch_ends(0, batches.chunks(per_epoch).map(<[_]>::len));
    let [best, _] = best_and_others(run.carried(&plain.clone())?);
    let mut validator = Validator::new(&config.validation, Criterion::Loss, n_validated, ends).restored(found, best);
    let mut weights = Weights::new(config, tasks, plain);
    weights.restore(learnt);
    let mut cosines: BTreeMap<(usize, usize), Vec<f64>> = cosines.into_iter().collect();
    let mut loop_start = run.elapsed_seconds() - train_seconds;
    let mut n_done = run.step();
    for (index, picks) in batches.iter().enumerate().skip(run.step()) {
        if validator.is_over() {
            break;
        }
        let (step, hide, key) = (index + 1, key.fold(HIDDEN_TOKENS).fold(index as u64), key.fold(DROPOUT).fold(index as u64));
        let separate = config.pcgrad || config.cosine_steps > 0 && index.is_multiple_of(config.cosine_steps);
        let passes = passes(&rows, picks, causal, hide, config.dropout.then_some(key), separate)?;
        let found = gradients(&model, &passes, &weights, n, config.pcgrad.then(|| key.fold(PCGRAD)));
        updater.add_by_path(found.by_path, found.n_items as f64);
        let stats;
        (model, stats) = run.update(step, model, &mut updater, found.loss)?;
        if stats.trouble.is_none() {
            weights.learn(&found.losses, || losses(&model.clone().valid(), &passes, n));
        }
        let mut values = vec![("loss".to_owned(), found.loss), ("learning_rate".to_owned(), stats.learning_rate)];
        values.push(("gradient_norm".to_owned(), stats.gradient_norm));
        let name = |task: usize| &tasks[task].head.name;
        let of_tasks = found.losses.iter().enumerate().filter(|_| n > 1);
        values.extend(of_tasks.filter_map(|(task, loss)| Some((format!("{}.loss", name(task)), (*loss)?))));
        let learnt = weights.learnt().into_iter().flatten().enumerate();
        values.extend(learnt.map(|(task, weight)| (format!("{}.weight", name(task)), weight)));
        if let Some((present, products)) = found.products {
            for (a, b) in (0..present.len()).flat_map(|a| (a + 1..present.len()).map(move |b| (a, b))) {
                let cosine = cosine(&products, a, b);
                cosines.entry((present[a], present[b])).or_default().push(cosine);
                values.push((format!("{}.{}.cosine", name(present[a]), name(present[b])), cosine));
            }
        }
        run.log(step, &values.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())?;
        n_done = step;
        let mut of_tasks = Vec::new();
        loop_start += validator.validate(step, &model, &mut updater, &mut run, |model| {
            of_tasks = validation::losses(config, model, &validated);
            Ok(validation::mean_share(&of_tasks, &first))
        })?;
        if n > 1 && !of_tasks.is_empty() {
            let named: Vec<String> = tasks.iter().map(|task| format!("{}.validation_loss", task.head.name)).collect();
            run.log(step, &named.iter().map(String::as_str).zip(of_tasks).collect::<Vec<_>>())?;
        }
        // Where tasks are also trained alone, the end of this part is not that of the run.
        let ends_part = (step == n_steps || validator.is_over()) && (config.baselines || start.is_part());
        if run.is_due(step) || ends_part {
            let cosines = cosines.iter().map(|(pair, cosines)| (*pair, cosines.clone())).collect();
            let (train_seconds, validation) = (run.elapsed_seconds() - loop_start, validator.found().clone());
            let progress = Progress { train_seconds, weights: weights.state(), cosines, validation };
            run.save(step, &model, &updater, &progress, &validator.carried(&ByName::new()))?;
        }
    }
    let train_seconds = run.elapsed_seconds() - loop_start;
    let model = validator.kept(updater.averaged(&model));
    let validation = validator.summary(0, config.seed, |_| {
        Ok(validation::mean_share(&validation::losses(config, &model, &validation::trained(config, tasks)?), &first))
    })?;
    let batches = &batches[..n_done];
    let after = judge(&model);
    let learnt = weights.learnt();
    let summary = |(task, (before, after)): (usize, (Evaluation, Evaluation))| {
        let Task { head, counts: [train_rows, held_out_rows, _], .. } = &tasks[task];
        let n_rows_trained = batches.iter().flatten().filter(|pick| pick.0 == task).count();
        let weight = learnt.as_ref().map(|weights| weights[task]);
        let (train_rows, held_out_rows) = (*train_rows, *held_out_rows);
        (head.name.clone(), TaskSummary { before, after, train_rows, held_out_rows, n_rows_trained, weight, alone: None })
    };
    let conflict = |((a, b), cosines): ((usize, usize), Vec<f64>)| {
        let opposed = cosines.iter().map(|&cosine| f64::from(u8::from(cosine < 0.0))).collect();
        Conflict {
            tasks: [a, b].map(|task| tasks[task].head.name.clone()),
            n_steps: cosines.len(),
            cosine: Figure::new("cosine", cosines, mean, config.seed),
            opposed: Figure::new("opposed", opposed, mean, config.seed).lower_is_better(),
        }
    };
    let lengths: Vec<Vec<usize>> = rows.iter().map(|rows| rows.lengths()).collect();
    let n_tokens: usize = batches.iter().flatten().map(|&(task, row)| lengths[task][row]).sum();
    let summary = Summary {
        tasks: before.into_iter().zip(after).enumerate().map(summary).collect(),
        conflicts: cosines.into_iter().map(conflict).collect(),
        validation,
        n_parameters: parameters(&model).iter().map(|parameter| parameter.len()).sum(),
        n_steps: n_done,
        n_skipped_steps: updater.n_skipped(),
        train_seconds,
        tokens_per_second: n_tokens as f64 / train_seconds,
        alone_seconds: None,
    };
    Ok((model, run, summary))
}
