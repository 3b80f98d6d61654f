//! Teaches a small encoder to tell topics apart, and asks whether it learnt: before and after on held-out rows, with the difference.
//!
//! `cargo run --example sft`

use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::rows::write_jsonl;
use kiln_data::world::World;
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::train::train;
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let device = device::by_name("flex")?;
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = |name: &str| folder.path().join(name);
    let rows = World::new(0).topic_rows(1000);
    write_jsonl(&path("topics.jsonl"), &rows)?;

    // A published encoder would be a folder on disk; this one is made up here.
    let tokenizer = Tokenizer::train(rows.iter().map(|row| row.text.as_str()), 512)?;
    let keys = json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "gelu",
    });
    let config = ModelConfig::from_json(keys.as_object().cloned().unwrap_or_default(), Path::new("config.json"))?;
    model::save(&LanguageModel::new(config, &device, Key::new(0))?, &tokenizer, &path("encoder"))?;

    // The rows of a small grammar repeat, which the pre-flight would stop at.
    let mut config = SftConfig { model: path("encoder"), task: Task::Classification, epochs: 6, force: true, ..SftConfig::default() };
    config.data.train = path("topics.jsonl").into();
    config.update.learning_rate = 2e-3;
    config.update.warmup_share = 0.1;
    let summary = train(&config, &device, &path("run"))?;
    let (before, after, gain) = (&summary.before.figure, &summary.after.figure, &summary.difference[0]);
    println!("{} {:.3} -> {:.3}", after.metric, before.value, after.value);
    println!("better by {:.3}, with 95 % confidence by {:.3} to {:.3}", gain.value, gain.interval.low, gain.interval.high);
    println!("{}", summary.after.report.expect("a classifier has a report"));
    Ok(())
}
