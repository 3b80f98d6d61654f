//! A step of group relative policy optimisation: completions sampled, rewarded, and one update on them.

use super::Setup;
use super::measure::{Meter, N_WARMUP_STEPS, Report, counts, rounded};
use super::train::{NEW_WEIGHTS, TOKENS, usual_update};
use burn::module::Module;
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::rows::Table;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::data::Prompt;
use kiln_rl::lesson::Lesson;
use kiln_rl::policy::Policy;
use kiln_rl::reward::{Completion, Reward, Rewards};
use kiln_rl::rollout::{Draws, sample, score};
use kiln_train::guard::median;
use kiln_train::preflight::work::{Gradients, head, trunk};
use kiln_train::updater::Updater;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Prompts per step.
const PROMPTS: usize = 4;
/// Completions of each.
const GROUP: usize = 8;
/// Prompts are cut to this many tokens.
const PROMPT_TOKENS: usize = 64;
/// Tokens of each completion.
const NEW_TOKENS: usize = 64;

/// The share of a completion's characters that are `e`.
struct ShareOfE;

impl Reward for ShareOfE {
    fn name(&self) -> String {
        "share_of_e".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        let share = |text: &str| text.matches('e').count() as f64 / text.chars().count().max(1) as f64;
        Ok(completions.iter().map(|completion| share(completion.text)).collect())
    }
}

/// # Errors
/// If the shape, the tokenizer or the prompts are missing or bad, or training diverges.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let mut shape = setup.shape("llama-8m")?;
    // No token ends a completion: all have the same length.
    shape.end_ids.clear();
    let tokenizer = Tokenizer::for_model(&setup.data("gpt2_bpe")?, &shape)?;
    let table = Table::read(&setup.data("gsm8k/train.jsonl")?, &[])?;
    let n_prompts = if setup.full { table.rows.len() } else { setup.n_steps * PROMPTS };
    let mut prompts = Vec::with_capacity(n_prompts);
    for row in order(table.rows.len(), setup.args.seed).into_iter().cycle().take(n_prompts).map(|index| &table.rows[index]) {
        let mut ids = tokenizer.encode(table.text(row, "question")?)?;
        ids.truncate(PROMPT_TOKENS);
        prompts.push(Prompt { text: tokenizer.decode(&ids)?, ids, line: row.line, fields: BTreeMap::new() });
    }
    let mut config = RlConfig { algorithm: Algorithm::Dapo, batch_prompts: PROMPTS, group_size: GROUP, ..RlConfig::default() };
    config.policy.clip_high = Some(0.2);
    config.sampling.max_new_tokens = NEW_TOKENS;
    let key = Key::new(setup.args.seed);
    let mut rewards = Rewards::new(vec![(1.0, Box::new(ShareOfE))]);
    let mut policy = Policy::new(LanguageModel::new(shape.clone(), &device, key.fold(NEW_WEIGHTS))?, false, &device);
    let batches: Vec<Vec<&Prompt>> = prompts.chunks(PROMPTS).map(|batch| batch.iter().collect()).collect();
    let mut updater = Updater::new(usual_update(1e-6), batches.len());
    let mut split = Vec::with_capacity(batches.len());
    let mut meter = Meter::start();
    for (index, batch) in batches.iter().enumerate() {
        let start = Instant::now();
        let key = key.fold(TOKENS).fold(index as u64);
        let draws = Draws { n_each: GROUP, temperature: 1.0, max_new_tokens: NEW_TOKENS, key };
        let mut rollouts = sample(&policy.model.clone().valid(), &tokenizer, batch, draws)?;
        let generated = start.elapsed().as_secs_f64();
        score(&mut rollouts, &mut rewards)?;
        let lesson = Lesson::new(&policy, None, &rollouts, &config, 0.0);
        let (loss, _) = lesson.loss(&policy, &lesson.trained, &config);
        updater.add(&policy, loss.backward(), 1.0);
        let loss = f64::from(loss.into_scalar::<f32>());
        let n_trained = lesson.n_tokens(&lesson.trained);
        (policy, _) = updater.step(policy, loss)?;
        let lengths: Vec<usize> = rollouts.iter().map(|rollout| rollout.prompt.ids.len() + rollout.continuation.ids.len()).collect();
        let mut counts = counts(rollouts.len(), &lengths);
        counts.insert("supervised", rollouts.iter().map(|rollout| rollout.continuation.ids.len()).sum::<usize>() as f64);
        // Both passes take a prompt once and every new token but the last; the attention of the others to a prompt is left out.
        let passed: Vec<usize> = batch.iter().map(|prompt| prompt.ids.len()).chain(vec![NEW_TOKENS - 1; rollouts.len()]).collect();
        let sampling = trunk(&shape, &passed, passed.iter().sum(), Gradients::None)
            + head(shape.hidden_size, shape.vocab_size, rollouts.len() * NEW_TOKENS, Gradients::None);
        let training =
            trunk(&shape, &passed, n_trained, Gradients::All) + head(shape.hidden_size, shape.vocab_size, n_trained, Gradients::All);
        counts.insert("gflop", sampling + training);
        split.push((generated, start.elapsed().as_secs_f64() - generated));
        meter.step(counts, Some(loss));
    }
    let timed = || split.iter().skip(N_WARMUP_STEPS);
    let middle = |part: fn(&(f64, f64)) -> f64| rounded(median(&timed().map(part).collect::<Vec<_>>()), 3);
    let split = json!({"generation_seconds": middle(|(generated, _)| *generated), "reward_and_update_seconds": middle(|(_, rest)| *rest)});
    meter.report(setup.workload.name, setup.workload.unit, Map::from_iter([("split".to_owned(), split)]))
}
