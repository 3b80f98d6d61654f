//! The training loop of policy gradients.

use crate::config::{Advantage, RlConfig};
use crate::data::{self, Prompt};
use crate::evaluate::{Evaluation, evaluate};
use crate::lesson::Lesson;
use crate::objective::advantage::moved_baseline;
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
use kiln_data::split::order;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Difference;
use kiln_kernels::random::Key;
use kiln_train::run::Run;
use kiln_train::updater::{StepStats, Updater};
use serde::Serialize;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
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
    /// Parameters trained.
    pub n_trainable: usize,
    /// Parameters of the model, trained or not.
    pub n_parameters: usize,
    /// Steps, those of the warm-up included.
    pub n_steps: usize,
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
const DROPOUT: u64 = 2;
const ROLLOUTS: u64 = 3;

/// Trains as `config` says and leaves the run in the folder `out`: `model/` in Hugging Face layout (an adapter merged in), `adapter/` in PEFT's
/// if there is one, `samples.jsonl` with completions of every step, `config.toml`, `metrics.jsonl`, `results.json` and `report.html`.
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
pub fn train_with_rewards(config: &RlConfig, mut rewards: Rewards, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    let (device, key) = (device.clone().autodiff(), Key::new(config.seed));
    let shape = ModelConfig::from_folder(&config.model)?;
    if !shape.causal {
        return Err(Error::config("model", "an encoder cannot complete a prompt; take a decoder"));
    }
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let prompts = data::prompts(config, &shape, &tokenizer)?;
    let (model, _) = LanguageModel::load(&config.model, &device)?;
    let mut model = match &config.adapter {
        Some(lora) => adapter::attach(model, lora, &device, key.fold(ADAPTER))?,
        None => model,
    };
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    let judge = |model: &LanguageModel, reference: Option<&LanguageModel>, rewards: &mut Rewards| {
        evaluate(model, reference, &tokenizer, &prompts.held_out, rewards, config)
    };
    // Before the run's folder is made: a reward that fails on the first completions leaves nothing behind.
    let before = judge(&model, None, &mut rewards)?;
    let warm_up_batches = warm_up::batches(config, prompts.warm_up.len());
    let epochs = 0..config.epochs as u64;
    let batches: Vec<Vec<usize>> =
        epochs.flat_map(|epoch| by_rows(&order(prompts.train.len(), config.seed.wrapping_add(epoch)), config.batch_prompts)).collect();
    let (n_warm_up, n_steps) = (warm_up_batches.len(), warm_up_batches.len() + batches.len());
    let mut run = Run::create(out, config, "rl", n_steps)?;
    let [train_rows, held_out_rows] = prompts.counts;
    run.note(&format!("training prompts: {train_rows}; held out: {held_out_rows}; reward before {:.4}", before.reward.value));
    let start = run.elapsed_seconds();
    let model = warm_up(config, model, &prompts.warm_up, &warm_up_batches, key.fold(DROPOUT), &mut run)?;
    let mut seconds = Seconds { train: run.elapsed_seconds() - start, ..Seconds::default() };
    let warmed_up = if n_warm_up > 0 && !batches.is_empty() { Some(judge(&model, None, &mut rewards)?) } else { None };
    let reference = frozen(&model, config);
    let mut updater = Updater::new(config.update.clone(), batches.len() * config.passes);
    let policy = Policy::new(model, config.parts().advantage == Advantage::Generalised, &device);
    let mut policy = updater.prepare(policy, "update")?;
    let mut samples = Samples::create(out, rewards.names())?;
    let (mut baseline, mut n_sampled) = (0.0, 0);
    if run.interrupted() {
        return Err(interrupted(&policy, &tokenizer, out, n_warm_up)?);
    }
    for (index, batch) in batches.iter().enumerate() {
        let step = n_warm_up + index + 1;
        let started = Instant::now();
        let batch: Vec<&Prompt> = batch.iter().map(|&row| &prompts.train[row]).collect();
        let draws = Draws {
            n_each: config.group_size,
            temperature: config.sampling.temperature,
            max_new_tokens: config.sampling.max_new_tokens,
            key: key.fold(ROLLOUTS).fold(index as u64),
        };
        let mut rollouts = sample(&policy.model.clone().valid(), &tokenizer, &batch, draws)?;
        let sampled = started.elapsed().as_secs_f64();
        if let Err(error) = score(&mut rollouts, &mut rewards) {
            return Err(if index > 0 { kept(&policy, &tokenizer, out, step - 1, error)? } else { error });
        }
        let rewarded = started.elapsed().as_secs_f64();

        let lesson = Lesson::new(&policy, Some(&reference), &rollouts, config, baseline);
        let (mut loss, mut n_clipped, mut stats) = (0.0, 0, StepStats { learning_rate: 0.0, gradient_norm: 0.0 });
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
            if !loss.is_finite() {
                return Err(Error::Diverged { step, what: "the loss".into() });
            }
            (policy, stats) = updater.step(policy)?;
        }
        let all: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward).collect();
        baseline = moved_baseline(baseline, &all);
        seconds.add(sampled, rewarded, started.elapsed().as_secs_f64());
        n_sampled += rollouts.iter().map(|rollout| rollout.continuation.ids.len()).sum::<usize>();

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
        samples.write(step, &rollouts[..config.group_size])?;
        if run.interrupted() && step < n_steps {
            return Err(interrupted(&policy, &tokenizer, out, step)?);
        }
    }
    let model = updater.averaged(&policy).model;
    let after = match judge(&model, Some(&reference), &mut rewards) {
        Ok(after) => after,
        Err(error) => return Err(kept(&Policy { model, value: None }, &tokenizer, out, n_steps, error)?),
    };
    let difference = after.reward.minus(&before.reward);
    let all = parameters(&model);
    let summary = Summary {
        before,
        warmed_up,
        after,
        difference,
        train_rows,
        held_out_rows,
        n_trainable: all.iter().filter(|parameter| parameter.trainable).map(|parameter| parameter.len()).sum(),
        n_parameters: all.iter().map(|parameter| parameter.len()).sum(),
        n_steps,
        train_seconds: seconds.train,
        sample_seconds: seconds.sample,
        reward_seconds: seconds.reward,
        update_seconds: seconds.update,
        sampled_tokens_per_second: if n_sampled > 0 { n_sampled as f64 / seconds.sample } else { 0.0 },
    };
    drop(all);
    if let Some(lora) = &config.adapter {
        adapter::save(&model, lora, &config.model.to_string_lossy(), &out.join("adapter"))?;
    }
    model::save(&model, &tokenizer, &out.join("model"))?;
    run.finish(&summary)?;
    Ok(summary)
}

/// The model as it is now, which divergence is measured from. Without a warm-up a fresh adapter adds nothing and is left off.
fn frozen(model: &LanguageModel, config: &RlConfig) -> LanguageModel {
    let mut model = model.clone().valid();
    if config.warm_up.epochs == 0 {
        model.linears_mut(&mut |_, linear| linear.adapter = None);
    }
    model
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

/// Saves the model, and says where.
fn interrupted(policy: &Policy, tokenizer: &Tokenizer, out: &Path, step: usize) -> Result<Error> {
    let path = out.join("interrupted");
    model::save(&policy.model, tokenizer, &path)?;
    Ok(Error::Interrupted { step, path })
}

/// Saves the model that was trained before a reward failed, and says where.
fn kept(policy: &Policy, tokenizer: &Tokenizer, out: &Path, step: usize, error: Error) -> Result<Error> {
    let path = out.join("interrupted");
    model::save(&policy.model, tokenizer, &path)?;
    Ok(match error {
        Error::Config { place, message } => {
            Error::Config { place, message: format!("{message}; the model as it stood after step {step} is in {}", path.display()) }
        }
        other => other,
    })
}

/// Where the time went.
#[derive(Debug, Default)]
struct Seconds {
    train: f64,
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

/// The table of samples, a JSON object a line.
#[derive(Debug)]
struct Samples {
    file: File,
    names: Vec<String>,
}

impl Samples {
    fn create(out: &Path, names: Vec<String>) -> Result<Self> {
        let path = out.join("samples.jsonl");
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(|source| Error::io(&path, source))?;
        Ok(Self { file, names })
    }

    /// The completions of one prompt.
    fn write(&mut self, step: usize, group: &[Rollout<'_>]) -> Result<()> {
        let mut lines = String::new();
        for Rollout { prompt, continuation, text, parts, reward } in group {
            let parts: serde_json::Map<_, _> = self.names.iter().cloned().zip(parts.iter().map(|&part| part.into())).collect();
            let line = json!({
                "step": step, "prompt": prompt.text, "completion": text, "reward": reward, "parts": parts,
                "tokens": continuation.ids.len(), "ended": continuation.ended,
            });
            lines += &line.to_string();
            lines.push('\n');
        }
        self.file.write_all(lines.as_bytes()).map_err(|source| Error::io(Path::new("samples.jsonl"), source))
    }
}
