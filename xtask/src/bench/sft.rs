//! Supervised fine-tuning on prompts and answers, of all weights or of a low-rank adapter.

use super::Setup;
use super::measure::{Meter, Report, counts};
use super::train::{ADAPTER, NEW_WEIGHTS, batches, train, usual_update};
use kiln_core::adapter::{self, LoraConfig};
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Example, Limit, Overlong, end_id, pack, prompt_completion};
use kiln_data::rows::Table;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_sft::objective::next_token;
use kiln_train::preflight::work::{Gradients, head, trunk};
use serde_json::Map;

/// Rows per step.
const ROWS: usize = 4;
/// Rows are cut to this many tokens.
const MAX_TOKENS: usize = 512;

/// An adapter on every linear layer of a frozen model of 135 million weights.
///
/// # Errors
/// As [`run`].
pub fn lora(setup: &Setup<'_>) -> Result<Report> {
    run(setup, "smollm2-135m", Some(&LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() }))
}

/// All weights of a small model.
///
/// # Errors
/// As [`run`].
pub fn full(setup: &Setup<'_>) -> Result<Report> {
    run(setup, "llama-8m", None)
}

/// # Errors
/// If the shape, the tokenizer or the rows are missing or bad, or training diverges.
fn run(setup: &Setup<'_>, shape: &str, lora: Option<&LoraConfig>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let config = setup.shape(shape)?;
    let tokenizer = Tokenizer::for_model(&setup.data("gpt2_bpe")?, &config)?;
    let path = setup.data("dolly_small/dolly.jsonl")?;
    let no_limit = Limit { max_tokens: usize::MAX, overlong: Overlong::Refuse, n_end_tokens: 0 };
    let end_id = end_id(&config.end_ids, shape.as_ref())?;
    let (rows, _) = prompt_completion(&Table::read(&path, &[])?, ["prompt", "answer"], &tokenizer, end_id, no_limit)?;
    let key = Key::new(setup.args.seed);
    let shuffled = order(rows.len(), setup.args.seed).into_iter().map(|index| rows[index].clone());
    let cut = shuffled.map(|Example { mut ids, supervised }| {
        ids.truncate(MAX_TOKENS);
        Example::from(ids, supervised[0].start)
    });
    let rows: Vec<Example> = cut.filter(|row| row.n_supervised() > 0).collect();
    if rows.is_empty() {
        return Err(Error::data(&path, None, format!("no row has an answer within its first {MAX_TOKENS} tokens")));
    }
    let mut model = LanguageModel::new(config.clone(), &device, key.fold(NEW_WEIGHTS))?;
    if let Some(lora) = lora {
        model = adapter::attach(model, lora, &device, key.fold(ADAPTER))?;
    }
    let gradients = lora.map_or(Gradients::All, |lora| Gradients::Adapters { rank: lora.rank });
    let in_order: Vec<usize> = (0..rows.len()).collect();
    let batches = batches(&in_order, ROWS, setup.n_steps, setup.full);
    let mut meter = Meter::start();
    train(model, &batches, usual_update(2e-4), key, &mut meter, |model, batch, dropout| {
        let batch: Vec<&Example> = batch.iter().map(|&index| &rows[index]).collect();
        let lengths: Vec<usize> = batch.iter().map(|row| row.ids.len()).collect();
        let (packed, supervised) = pack(&batch);
        let n_supervised = supervised.targets.len();
        let mut counts = counts(packed.ids.len(), &lengths);
        counts.insert("supervised", n_supervised as f64);
        let gflop =
            trunk(&config, &lengths, n_supervised, gradients) + head(config.hidden_size, config.vocab_size, n_supervised, gradients);
        counts.insert("gflop", gflop);
        (next_token::loss(model, &packed, &supervised, 0.0, Some(dropout)), n_supervised, counts)
    })?;
    meter.report(setup.workload.name, setup.workload.unit, Map::new())
}
