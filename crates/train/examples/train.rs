//! A training loop of one's own: batch, forward, backward, step, log. Here a small decoder learns the world's documents.
//!
//! `cargo run --example train`

use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::examples::{Example, pack};
use kiln_data::pack::by_rows;
use kiln_data::split::order;
use kiln_data::world::{Domain, World};
use kiln_kernels::random::Key;
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::run::{Run, Start};
use kiln_train::updater::{UpdateConfig, Updater};
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let (device, seed) = (device::by_name("flex")?.autodiff(), 0);
    let texts: Vec<String> = World::new(seed).documents(Domain::ShipsLog, 600).into_iter().map(|document| document.text).collect();
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 512)?;
    let rows: Vec<Example> = tokenizer.encode_all(texts)?.into_iter().map(|ids| Example::from(ids, 1)).collect();
    let keys = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let config = ModelConfig::from_json(keys.as_object().cloned().unwrap_or_default(), Path::new("config.json"))?;
    let mut decoder = LanguageModel::new(config, &device, Key::new(seed))?;

    let update = UpdateConfig { learning_rate: 3e-3, warmup_share: 0.1, ..UpdateConfig::default() };
    let batches = by_rows(&order(rows.len(), seed), 16);
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let about = About {
        method: "documents",
        n_steps: batches.len(),
        checkpoint: &CheckpointConfig::default(),
        seed,
        device: &device,
        models: Vec::new(),
        data: Vec::new(),
    };
    let mut run = Run::open(&Start::new(&folder.path().join("run")), &update, &about)?;
    let mut updater = Updater::new(update, batches.len());
    for (index, batch) in batches.iter().enumerate() {
        let batch: Vec<&Example> = batch.iter().map(|&row| &rows[row]).collect();
        let (packed, supervised) = pack(&batch);
        // A sum: the update divides by the tokens of all parts of a batch.
        let loss = decoder.loss(&packed, &supervised, None);
        updater.add(&decoder, loss.backward(), supervised.targets.len() as f64);
        let loss = f64::from(loss.into_scalar::<f32>()) / supervised.targets.len() as f64;
        let stats;
        (decoder, stats) = updater.step(decoder, loss)?;
        run.log(index + 1, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
    }
    model::save(&decoder, &tokenizer, &run.folder().join("model"))?;
    run.finish(&json!({"n_steps": batches.len()}))
}
