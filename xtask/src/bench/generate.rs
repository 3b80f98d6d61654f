//! Greedy generation with a cache, for one prompt and for eight at once.

use super::Setup;
use super::measure::{Meter, Report, counts};
use super::train::NEW_WEIGHTS;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::rows::Table;
use kiln_kernels::random::Key;
use kiln_train::preflight::work::{Gradients, head, trunk, weight_gb};
use serde_json::Map;

/// Tokens of each prompt.
const PROMPT_TOKENS: usize = 32;
/// Tokens added to each.
const NEW_TOKENS: usize = 128;

/// # Errors
/// As [`run`].
pub fn one(setup: &Setup<'_>) -> Result<Report> {
    run(setup, 1)
}

/// # Errors
/// As [`run`].
pub fn eight(setup: &Setup<'_>) -> Result<Report> {
    run(setup, 8)
}

/// # Errors
/// If the shape, the tokenizer or the prompts are missing or bad.
fn run(setup: &Setup<'_>, n_prompts: usize) -> Result<Report> {
    let device = setup.device()?;
    let config = setup.shape("smollm2-135m")?;
    let tokenizer = Tokenizer::for_model(&setup.data("gpt2_bpe")?, &config)?;
    let path = setup.data("gsm8k/train.jsonl")?;
    let table = Table::read(&path, &[])?;
    let mut prompts = Vec::with_capacity(n_prompts);
    for row in &table.rows {
        let mut ids = tokenizer.encode(table.text(row, "question")?)?;
        if prompts.len() < n_prompts && ids.len() >= PROMPT_TOKENS {
            ids.truncate(PROMPT_TOKENS);
            prompts.push(ids);
        }
        if prompts.len() == n_prompts {
            break;
        }
    }
    if prompts.len() < n_prompts {
        let message = format!("{} questions have {PROMPT_TOKENS} tokens, {n_prompts} are needed", prompts.len());
        return Err(Error::data(&path, None, message));
    }
    let key = Key::new(setup.args.seed);
    let model = LanguageModel::new(config.clone(), &device, key.fold(NEW_WEIGHTS))?;
    let sampling = Sampling { max_new_tokens: NEW_TOKENS, ..Sampling::default() };
    let n_new = n_prompts * NEW_TOKENS;
    let mut counts = counts(n_new, &vec![NEW_TOKENS; n_prompts]);
    // The last new token is never fed back.
    let lengths = vec![PROMPT_TOKENS + NEW_TOKENS - 1; n_prompts];
    let gflop = trunk(&config, &lengths, lengths.iter().sum(), Gradients::None)
        + head(config.hidden_size, config.vocab_size, n_new, Gradients::None);
    counts.insert("gflop", gflop);
    counts.insert("weight_gb", NEW_TOKENS as f64 * weight_gb(&config));
    let mut meter = Meter::start();
    for _ in 0..setup.n_steps {
        let new = generate(&model, &prompts, &sampling, &[], key)?;
        if let Some(row) = new.iter().find(|row| row.len() != NEW_TOKENS) {
            let message = format!("{} new tokens instead of {NEW_TOKENS}: the model has too few positions", row.len());
            return Err(Error::config("--shapes", message));
        }
        meter.step(counts.clone(), None);
    }
    meter.report(setup.workload.name, setup.workload.unit, Map::new())
}
