//! The training loop of policy gradients.

use crate::config::{Advantage, RlConfig};
use crate::data::{self, Prompt};
use crate::evaluate::{Evaluation, Scores, evaluation, scores};
use crate::lesson::Lesson;
use crate::objective::advantage::moved_baseline;
use crate::plan;
use crate::policy::Policy;
use crate::reward::Rewards;
use crate::rollout::{Draws, Rollout, sample, score};
use crate::warm_up::{self, warm_up};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::parameters::parameters;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Counts;
use kiln_data::pack::{by_rows, parts};
use kiln_data::source::counted;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Difference;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::manifest::resumable;
use kiln_train::preflight::plan::{Goal, Outcome};
use kiln_train::run::{Run, Start};
use kiln_train::updater::{StepStats, Updater, anchor, put};
use kiln_train::validation::{Criterion, Found, ValidationSummary, Validator, best_and_others, epoch_ends};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model as it came, on the held-out prompts.
    pub before: Evaluation,
    /// The model after its warm-up, if it had one and rewards followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmed_up: Option<Evaluation>,
    /// The trained model, on the same prompts.
    pub after: Evaluation,
    /// What the mean reward gained, prompt by prompt.
    pub difference: Difference,
    /// What became of the training prompts.
    pub train_rows: Counts,
    /// What became of the held-out prompts.
    pub held_out_rows: Counts,
    /// What came of validating the steps by rewards, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSummary>,
    /// Parameters trained.
    pub n_trainable: usize,
    /// Parameters of the model, trained or not.
    pub n_parameters: usize,
    /// Steps, those of the warm-up included.
    pub n_steps: usize,
    /// Updates that were left out because the loss or a gradient was not finite, or a spike.
    pub n_skipped_steps: usize,
    /// Time in the training loop, evaluation left out.
    pub train_seconds: f64,
    /// Of that, time spent sampling, rewarding, and updating.
    pub sample_seconds: f64,
    /// Time spent rewarding.
    pub reward_seconds: f64,
    /// Time spent updating, with the reference's and the value head's passes.
    pub update_seconds: f64,
    /// Tokens sampled per second of sampling.
    pub sampled_tokens_per_second: f64,
}

/// Streams of randomness that one seed feeds; those of supervised fine-tuning have the same numbers.
const ADAPTER: u64 = 1;
const ROLLOUTS: u64 = 3;

/// Trains as `config` says and leaves the run in the folder `out`: `model/` in Hugging Face layout (an adapter merged in), `adapter/` in PEFT's
/// if there is one, `samples.jsonl` with completions of every step, and what every run leaves (see [`kiln_train::run`]).
///
/// # Errors
/// If the configuration, a file, a row or a reward is bad, training diverges, or the user interrupts it.
pub fn train(config: &RlConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    train_with_rewards(config, Rewards::open(&config.rewards, device)?, device, out)
}

/// The same with rewards of one's own; those that `config` names are not looked at.
///
/// # Errors
/// As [`train`].
pub fn train_with_rewards(config: &RlConfig, rewards: Rewards, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    Ok(start(config, rewards, device, Goal::Run(&Start::new(out)))?.achieved())
}

/// Goes on with the run in `folder` from its newest checkpoint, and stops as if interrupted after the step `until`. What the run leaves is
/// what it would have been without the break, but for the times.
///
/// # Errors
/// As [`train`]; if there is no run to go on with, or a file it reads was changed.
pub fn resume(folder: &Path, device: &Device, until: Option<usize>) -> Result<Summary> {
    let config: RlConfig = resumable(folder)?;
    Ok(start(&config, Rewards::open(&config.rewards, device)?, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// The same with rewards of one's own, which have to be those the run was begun with.
///
/// # Errors
/// As [`resume`].
pub fn resume_with_rewards(folder: &Path, rewards: Rewards, device: &Device, until: Option<usize>) -> Result<Summary> {
    Ok(start(&resumable::<RlConfig>(folder)?, rewards, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// A run, or the plan of one.
pub(crate) fn start(config: &RlConfig, mut rewards: Rewards, device: &Device, goal: Goal<&Start>) -> Result<Outcome<Summary>> {
    let (device, key) = (device.clone().autodiff(), Key::new(config.seed));
    let shape = ModelConfig::from_folder(&config.model)?;
    if !shape.causal {
        return Err(Error::config("model", "an encoder cannot complete a prompt; take a decoder"));
    }
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let prompts = data::prompts(config, &shape, &tokenizer)?;
    let rows = &prompts.rows;
    let (model, _) = LanguageModel::load(&config.model, &device)?;
    let mut model = match &config.adapter {
        Some(lora) => adapter::attach(model, lora, &device, key.fold(ADAPTER))?,
        None => model,
    };
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    let warm_up_batches = warm_up::batches(config, &prompts.warm_up);
    let of_epoch = |epoch: u64| by_rows(&rows.train.order(config.seed, epoch), config.batch_prompts);
    let epochs: Vec<Vec<Vec<usize>>> = (0..config.epochs as u64).map(of_epoch).collect();
    let ends = epoch_ends(warm_up_batches.len(), epochs.iter().map(Vec::len));
    let batches = epochs.concat();
    let (n_warm_up, n_steps) = (warm_up_batches.len(), warm_up_batches.len() + batches.len());
    let start = match goal {
        Goal::Plan => return plan::tried(config, model, &tokenizer, &prompts, &batches, &device).map(Outcome::planned),
        Goal::Run(start) => start,
    };
    // A group without a parameter is told before the run has a folder.
    if n_warm_up > 0 {
        Updater::new(config.warm_up.update.clone(), n_warm_up).prepare(model.clone(), "warm_up.update")?;
    }
    let has_value = config.parts().advantage == Advantage::Generalised;
    Updater::new(config.update.clone(), 1).prepare(Policy::new(model.clone(), has_value, &device), "update")?;
    let told = if start.is_resumed() { Vec::new() } else { plan::check(config, &model, &tokenizer, &prompts, &batches)? };
    let judge = |model: &LanguageModel, reference: Option<&LanguageModel>, rewards: &mut Rewards| {
        scores(model, reference, &tokenizer, &rows.held_out, rewards, config)
    };
    let mean_reward = |model: &LanguageModel, prompts: &[Prompt], rewards: &mut Rewards| {
        Ok::<f64, Error>(mean(scores(model, None, &tokenizer, prompts, rewards, config)?.last().expect("the reward comes last")))
    };
    // Before the run's folder is made: a reward that fails on the first completions leaves nothing behind.
    let before = if start.is_resumed() { None } else { Some(judge(&model, None, &mut rewards)?) };
    let mut run = Run::open(start, config, &config.about(&device, n_steps))?;
    rows.notes.iter().chain(&told).for_each(|line| run.note(line));
    let mut progress: Progress = run.progress()?;
    if progress.before.is_empty() {
        progress.before = before.map_or_else(|| judge(&model, None, &mut rewards), Ok)?;
    }
    let before = evaluation(progress.before.clone(), rewards.names(), false, config);
    let [train_rows, held_out_rows, _] = rows.counts;
    run.note(&format!("{}; reward before {:.4}", counted(&rows.counts, rows.validation.len()), before.reward.value));
    // What is carried are the best weights, and those after the warm-up, if there was one.
    let [best, warm] = best_and_others(run.carried(&device.clone().inner())?);
    let was_warm = progress.is_warm;
    let model = match was_warm {
        true => put(model, &warm),
        false => warm_up(config, model, &prompts.warm_up, &warm_up_batches, &mut progress, &mut run)?,
    };
    progress.is_warm = true;
    if progress.warmed_up.is_empty() && n_warm_up > 0 && !batches.is_empty() {
        progress.warmed_up = judge(&model, None, &mut rewards)?;
    }
    let reference = frozen(&model, config);
    let warm = if n_warm_up > 0 { anchor(&model) } else { ByName::new() };
    let validator = Validator::new(&config.validation, Criterion::Reward, rows.validation.len(), ends);
    let mut validator = validator.restored(progress.validation.clone(), best);
    let mut updater = Updater::new(config.update.clone(), batches.len() * config.passes).after(n_warm_up);
    let policy = Policy::new(model, has_value, &device);
    let mut policy = updater.prepare(policy, "update")?;
    if was_warm {
        policy = run.restore(policy, &mut updater)?;
    }
    let mut n_done = n_warm_up.max(run.step());
    for (index, batch) in batches.iter().enumerate().skip(run.step().saturating_sub(n_warm_up)) {
        if validator.is_over() {
            break;
        }
        let step = n_warm_up + index + 1;
        let started = Instant::now();
        let batch = rows.train.pick(batch)?;
        let batch: Vec<&Prompt> = batch.iter().map(|row| &**row).collect();
        let draws = Draws {
            n_each: config.group_size,
            temperature: config.sampling.temperature,
            max_new_tokens: config.sampling.max_new_tokens,
            key: key.fold(ROLLOUTS).fold(index as u64),
        };
        let mut rollouts = sample(&policy.model.clone().valid(), &tokenizer, &batch, draws)?;
        let sampled = started.elapsed().as_secs_f64();
        if let Err(error) = score(&mut rollouts, &mut rewards) {
            return Err(match step - 1 {
                0 => error,
                done => kept(done, &policy, &updater, &progress, &validator.carried(&warm), &mut run, error)?,
            });
        }
        let rewarded = started.elapsed().as_secs_f64();

        let lesson = Lesson::new(&policy, Some(&reference), &rollouts, config, progress.baseline);
        let (mut loss, mut n_clipped, mut stats) = (0.0, 0, StepStats::default());
        // Where nothing has a gradient nothing moves, not even by what the optimizer remembers.
        let n_passes = if lesson.trained.is_empty() { 0 } else { config.passes };
        for _ in 0..n_passes {
            let micro_batches = parts(&lesson.trained, &lesson.lengths, config.micro_batch_tokens);
            loss = 0.0;
            for indices in &micro_batches {
                let (part, n) = lesson.loss(&policy, indices, config);
                // The parts' losses add up to a mean: the divisor of their sum is 1.
                updater.add(&policy, part.backward(), 1.0 / micro_batches.len() as f64);
                loss += f64::from(part.into_scalar::<f32>());
                n_clipped += n;
            }
            (policy, stats) = run.update(step, policy, &mut updater, loss)?;
        }
        let all: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward).collect();
        progress.baseline = moved_baseline(progress.baseline, &all);
        progress.seconds.add(sampled, rewarded, started.elapsed().as_secs_f64());
        progress.n_sampled += rollouts.iter().map(|rollout| rollout.continuation.ids.len()).sum::<usize>();

        let clip_share = n_clipped as f64 / (lesson.n_tokens(&lesson.trained) * n_passes).max(1) as f64;
        let mut values = vec![("loss".to_owned(), loss), ("reward".to_owned(), mean(&all))];
        values.extend(rewards.names().into_iter().enumerate().map(|(part, name)| {
            let of_part: Vec<f64> = rollouts.iter().map(|rollout| rollout.parts[part]).collect();
            (format!("reward_{name}"), mean(&of_part))
        }));
        values.extend(figures(&rollouts).map(|(name, value)| (name.to_owned(), value)));
        values.extend([("dead_groups", lesson.dead_groups), ("clip_share", clip_share)].map(|(name, value)| (name.to_owned(), value)));
        values.extend(lesson.kl.map(|kl| ("kl".to_owned(), kl)));
        values.extend(lesson.explained_variance().map(|share| ("explained_variance".to_owned(), share)));
        values.extend(
            [("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)].map(|(name, value)| (name.to_owned(), value)),
        );
        run.log(step, &values.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())?;
        run.append("samples.jsonl", &lines(step, &rollouts[..config.group_size], &rewards.names()))?;
        n_done = step;
        let measure = |policy: &Policy| mean_reward(&policy.model, &rows.validation, &mut rewards);
        if let Err(error) = validator.validate(step, &policy, &mut updater, &mut run, measure) {
            return Err(kept(step, &policy, &updater, &progress, &validator.carried(&warm), &mut run, error)?);
        }
        progress.validation = validator.found().clone();
        if run.is_due(step) {
            run.save(step, &policy, &updater, &progress, &validator.carried(&warm))?;
        }
    }
    let model = validator.kept(updater.averaged(&policy)).model;
    let some = |some: &[usize]| Ok::<_, Error>(rows.train.pick(some)?.into_iter().map(Cow::into_owned).collect::<Vec<_>>());
    let judged = validator
        .summary(rows.train.len(), config.seed, |rows| mean_reward(&model, &some(rows)?, &mut rewards))
        .and_then(|validation| Ok((validation, judge(&model, Some(&reference), &mut rewards)?)));
    let (validation, after) = match judged {
        Ok((validation, after)) => (validation, evaluation(after, rewards.names(), true, config)),
        Err(error) => return Err(kept(n_done, &policy, &updater, &progress, &validator.carried(&warm), &mut run, error)?),
    };
    let Progress { warmed_up, n_sampled, n_skipped, seconds, .. } = progress;
    let warmed_up = (!warmed_up.is_empty()).then(|| evaluation(warmed_up, rewards.names(), false, config));
    let difference = after.reward.minus(&before.reward);
    let all = parameters(&model);
    let summary = Summary {
        before,
        warmed_up,
        after,
        difference,
        train_rows,
        held_out_rows,
        validation,
        n_trainable: all.iter().filter(|parameter| parameter.trainable).map(|parameter| parameter.len()).sum(),
        n_parameters: all.iter().map(|parameter| parameter.len()).sum(),
        n_steps: n_done,
        n_skipped_steps: n_skipped + updater.n_skipped(),
        train_seconds: seconds.train,
        sample_seconds: seconds.sample,
        reward_seconds: seconds.reward,
        update_seconds: seconds.update,
        sampled_tokens_per_second: if n_sampled > 0 { n_sampled as f64 / seconds.sample } else { 0.0 },
    };
    drop(all);
    if let Some(lora) = &config.adapter {
        adapter::save(&model, lora, &config.model.to_string_lossy(), &run.folder().join("adapter"))?;
    }
    model::save(&model, &tokenizer, &run.folder().join("model"))?;
    run.finish(&summary)?;
    Ok(Outcome::Run(summary))
}

/// The model as it is now, which divergence is measured from. Without a warm-up a fresh adapter adds nothing and is left off.
fn frozen(model: &LanguageModel, config: &RlConfig) -> LanguageModel {
    let model = model.clone().valid();
    if config.warm_up.epochs == 0 { adapter::detach(model) } else { model }
}

/// What the completions are like.
fn figures(rollouts: &[Rollout<'_>]) -> [(&'static str, f64); 4] {
    let n = rollouts.len() as f64;
    let lengths = || rollouts.iter().map(|rollout| rollout.continuation.ids.len());
    let n_tokens = lengths().sum::<usize>() as f64;
    let entropy = rollouts.iter().flat_map(|rollout| &rollout.continuation.entropies).map(|&entropy| f64::from(entropy)).sum::<f64>();
    let n_ended = rollouts.iter().filter(|rollout| rollout.continuation.ended).count() as f64;
    [
        ("entropy", entropy / n_tokens),
        ("completion_tokens", n_tokens / n),
        ("completion_tokens_max", lengths().max().unwrap_or(0) as f64),
        ("ended", n_ended / n),
    ]
}

/// Saves what was trained before a reward failed, and says how to go on.
fn kept(
    step: usize,
    policy: &Policy,
    updater: &Updater,
    progress: &Progress,
    carried: &ByName,
    run: &mut Run,
    error: Error,
) -> Result<Error> {
    run.save(step, policy, updater, progress, carried)?;
    let folder = run.folder().display();
    Ok(match error {
        Error::Config { place, message } => {
            Error::Config { place, message: format!("{message}; the run goes on after step {step} with `cargo xtask resume {folder}`") }
        }
        other => other,
    })
}

/// What the loop carries from step to step, beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Whether the warm-up is over.
    is_warm: bool,
    /// The moving mean of the rewards.
    baseline: f64,
    /// Tokens.
    n_sampled: usize,
    /// Updates of the warm-up that were left out.
    pub n_skipped: usize,
    /// Of the model as it came.
    before: Scores,
    /// Of the model after its warm-up, if it had one and rewards follow.
    warmed_up: Scores,
    /// What validations found.
    validation: Found,
    /// Where the time went.
    pub seconds: Seconds,
}

/// Where the time went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seconds {
    /// In the training loop, evaluation left out.
    pub train: f64,
    sample: f64,
    reward: f64,
    update: f64,
}

impl Seconds {
    /// A step, by when its sampling, its rewarding and itself had ended.
    fn add(&mut self, sampled: f64, rewarded: f64, ended: f64) {
        self.sample += sampled;
        self.reward += rewarded - sampled;
        self.update += ended - rewarded;
        self.train += ended;
    }
}

/// The completions of one prompt, a JSON object a line. `names` are those of the reward's parts.
fn lines(step: usize, group: &[Rollout<'_>], names: &[String]) -> String {
    let mut lines = String::new();
    for Rollout { prompt, continuation, text, parts, reward } in group {
        let parts: serde_json::Map<_, _> = names.iter().cloned().zip(parts.iter().map(|&part| part.into())).collect();
        let line = json!({
            "step": step, "prompt": prompt.text, "completion": text, "reward": reward, "parts": parts,
            "tokens": continuation.ids.len(), "ended": continuation.ended,
        });
        lines += &line.to_string();
        lines.push('\n');
    }
    lines
}
