//! What a run would do and take, and whether its rows and settings are what was meant.

use crate::config::{Advantage, RlConfig};
use crate::data::{Prompt, Prompts};
use crate::lesson::Lesson;
use crate::policy::Policy;
use crate::reward::Rewards;
use crate::rollout::{Draws, Rollout, sample};
use crate::train::start;
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::pack::parts;
use kiln_kernels::random::Key;
use kiln_train::preflight::look::Look;
use kiln_train::preflight::plan::{Course, Goal, Plan, Work};
use kiln_train::preflight::{Finding, settings};
use kiln_train::updater::Updater;

/// The findings of the pre-flight and a forecast of memory and time, from a few updates that are forgotten: completions are sampled, but
/// every second one is rewarded whatever it says. Nothing is written.
///
/// # Errors
/// If the configuration, a file or a row is bad.
pub fn plan(config: &RlConfig, device: &Device) -> Result<Plan> {
    config.validate()?;
    Ok(start(config, Rewards::open(&config.rewards, device)?, device, Goal::Plan)?.plan())
}

/// What the steps by rewards compute, if every completion is as long as it may be.
fn course<'a>(config: &'a RlConfig, shape: &'a ModelConfig, prompts: &Prompts, batches: &[Vec<usize>]) -> Course<'a> {
    let (n_each, n_new) = (config.group_size, config.sampling.max_new_tokens);
    let of_prompts = prompts.rows.train.lengths();
    let update = |batch: &Vec<usize>| -> Vec<Work> {
        if config.micro_batch_tokens == 0 {
            // The completions of a prompt share it.
            let of_prompt = |&row: &usize| std::iter::once(of_prompts[row]).chain(std::iter::repeat_n(n_new, n_each));
            return vec![Work { lengths: batch.iter().flat_map(of_prompt).collect(), n_rows: batch.len() * n_each * n_new }];
        }
        let lengths: Vec<usize> = batch.iter().flat_map(|&row| std::iter::repeat_n(of_prompts[row] + n_new, n_each)).collect();
        let all: Vec<usize> = (0..lengths.len()).collect();
        let work = |part: Vec<usize>| Work { n_rows: part.len() * n_new, lengths: part.iter().map(|&index| lengths[index]).collect() };
        parts(&all, &lengths, config.micro_batch_tokens).into_iter().map(work).collect()
    };
    Course {
        shape,
        n_outputs: shape.vocab_size,
        update: &config.update,
        adapter: config.adapter.as_ref(),
        gradient_checkpointing: config.gradient_checkpointing,
        micro_batch_key: Some("micro_batch_tokens"),
        updates: batches.iter().map(|batch| (0..config.passes).flat_map(|_| update(batch)).collect()).collect(),
        is_partial: false,
        // The reference.
        n_copies: 1,
        evaluation: Work::default(),
        n_evaluations: 0,
    }
}

/// What is wrong with the rows and the settings.
fn findings(config: &RlConfig, shape: &ModelConfig, tokenizer: &Tokenizer, prompts: &Prompts) -> Result<Vec<Finding>> {
    let RlConfig { data, columns, .. } = config;
    let look = Look { data, names: &columns.names, draw: config.draw(), class: None, tokenizer, files: &prompts.rows.files };
    let mut findings = look.findings()?;
    // A prompt may be asked again: its completions are others.
    findings.retain(|finding| !["duplicate-rows", "near-duplicate-rows"].contains(&finding.name));
    findings.extend(look.without_end(&prompts.warm_up, &shape.end_ids, |row| Some(row))?);
    let adapter = config.adapter.as_ref();
    findings.extend(settings::learning_rate("update.learning_rate", config.update.learning_rate, adapter));
    if config.warm_up.epochs > 0 {
        findings.extend(settings::learning_rate("warm_up.update.learning_rate", config.warm_up.update.learning_rate, adapter));
    }
    Ok(findings)
}

/// Looks at a run before its first step. Returns what the user is to be told.
///
/// # Errors
/// If a finding stops the run.
pub(crate) fn check(
    config: &RlConfig,
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    prompts: &Prompts,
    batches: &[Vec<usize>],
) -> Result<Vec<String>> {
    let findings = findings(config, model.config(), tokenizer, prompts)?;
    course(config, model.config(), prompts, batches).check(model, findings, config.force)
}

/// The plan of the steps by rewards.
///
/// # Errors
/// If training diverges or cannot begin.
pub(crate) fn tried(
    config: &RlConfig,
    model: LanguageModel,
    tokenizer: &Tokenizer,
    prompts: &Prompts,
    batches: &[Vec<usize>],
    device: &Device,
) -> Result<Plan> {
    let shape = &model.config().clone();
    let findings = findings(config, shape, tokenizer, prompts)?;
    let reference = model.clone().valid();
    let policy = Policy::new(model, config.parts().advantage == Advantage::Generalised, device);
    let n_rows = [prompts.rows.train.len(), prompts.rows.held_out.len()];
    course(config, shape, prompts, batches).plan(policy, findings, n_rows, |policy, index, updater: &mut Updater| {
        let batch = prompts.rows.train.pick(&batches[index]).expect("prompts that were read before");
        let batch: Vec<&Prompt> = batch.iter().map(|row| &**row).collect();
        let draws = Draws {
            n_each: config.group_size,
            temperature: config.sampling.temperature,
            max_new_tokens: config.sampling.max_new_tokens,
            key: Key::new(config.seed).fold(index as u64),
        };
        let mut rollouts: Vec<Rollout<'_>> =
            sample(&policy.model.clone().valid(), tokenizer, &batch, draws).expect("prompts were read with this tokenizer");
        // Else nothing would have a gradient.
        rollouts.iter_mut().enumerate().for_each(|(place, rollout)| rollout.reward = (place % 2) as f64);
        let lesson = Lesson::new(policy, Some(&reference), &rollouts, config, 0.0);
        for _ in 0..config.passes {
            for indices in parts(&lesson.trained, &lesson.lengths, config.micro_batch_tokens) {
                updater.add(policy, lesson.loss(policy, &indices, config).0.backward(), 1.0);
            }
        }
    })
}
