//! Training a small GPT-2 on random tokens: products of dense matrices and nothing to read.

use super::measure::{Meter, Report, counts};
use super::train::{NEW_WEIGHTS, TOKENS, train};
use super::{Setup, ceiling};
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_kernels::random::Key;
use kiln_train::preflight::work::{Gradients, head, trunk};
use kiln_train::schedule::Schedule;
use kiln_train::updater::UpdateConfig;
use serde_json::Map;

/// Sequences per step.
const ROWS: usize = 8;

/// The steps, then the machine's ceiling in the same process.
///
/// # Errors
/// As [`steps`].
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let mut report = steps(setup)?;
    report.extra.insert("ceiling".to_owned(), ceiling::products(&setup.device()?));
    Ok(report)
}

/// Steps of AdamW at a constant rate, without clipping, every parameter decaying.
///
/// # Errors
/// If the shape is missing or bad, or training diverges.
pub fn steps(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let config = setup.shape("gpt2-17m")?;
    let (length, vocab_size) = (config.max_positions, config.vocab_size);
    let key = Key::new(setup.args.seed);
    let model = LanguageModel::new(config.clone(), &device, key.fold(NEW_WEIGHTS))?;
    let batches: Vec<Vec<Vec<u32>>> = (0..setup.n_steps as u64)
        .map(|step| {
            let key = key.fold(TOKENS).fold(step);
            let token = |row: usize, index: usize| key.below((row * (length + 1) + index) as u64, vocab_size as u64) as u32;
            (0..ROWS).map(|row| (0..=length).map(|index| token(row, index)).collect()).collect()
        })
        .collect();
    let update = UpdateConfig {
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        no_decay: Vec::new(),
        max_gradient_norm: 0.0,
        ..UpdateConfig::default()
    };
    let n_tokens = ROWS * length;
    let mut counts = counts(n_tokens, &[length; ROWS]);
    counts.insert("supervised", n_tokens as f64);
    let gflop = trunk(&config, &[length; ROWS], n_tokens, Gradients::All) + head(config.hidden_size, vocab_size, n_tokens, Gradients::All);
    counts.insert("gflop", gflop);
    let mut meter = Meter::start();
    train(model, &batches, update, key, &mut meter, |model, rows, dropout| {
        let batch = Packed::new(rows.iter().map(|row| &row[..length]));
        let supervised = Supervised {
            rows: (0..n_tokens as u32).collect(),
            targets: rows.iter().flat_map(|row| &row[1..]).copied().collect(),
            weights: vec![1.0; n_tokens].into(),
        };
        (model.loss(&batch, &supervised, Some(dropout)), n_tokens, counts.clone())
    })?;
    meter.report(setup.workload.name, setup.workload.unit, Map::new())
}
