//! Teaches a small encoder three tasks at once, and each alone: do they help each other? Then all heads answer one row.
//!
//! `cargo run --example multitask`

use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Limit, Overlong};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::world::World;
use kiln_kernels::random::Key;
use kiln_multitask::config::{Kind, MultitaskConfig, TaskConfig};
use kiln_multitask::model::MultitaskModel;
use kiln_multitask::train::train;
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let device = device::by_name("flex")?;
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = |name: &str| folder.path().join(name);
    let world = World::new(0);
    let (topics, moods, names) = (world.topic_rows(600), world.sentiment_rows(600), world.entity_rows(600));
    write_jsonl(&path("topics.jsonl"), &topics)?;
    write_jsonl(&path("moods.jsonl"), &moods)?;
    write_jsonl(&path("names.jsonl"), &names)?;

    // A published encoder would be a folder on disk; this one is made up here.
    let sentences: Vec<String> = names.iter().map(|row| row.tokens.join(" ")).collect();
    let texts = topics.iter().chain(&moods).map(|row| row.text.as_str()).chain(sentences.iter().map(String::as_str));
    let tokenizer = Tokenizer::train(texts, 512)?;
    let keys = json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "gelu",
    });
    let config = ModelConfig::from_json(keys.as_object().cloned().unwrap_or_default(), Path::new("config.json"))?;
    model::save(&LanguageModel::new(config, &device, Key::new(0))?, &tokenizer, &path("encoder"))?;

    // The rows of a small grammar repeat, which the pre-flight would stop at.
    let mut config = MultitaskConfig { model: path("encoder"), epochs: 6, baselines: true, force: true, ..MultitaskConfig::default() };
    for (name, kind) in [("topics", Kind::Classification), ("moods", Kind::Classification), ("names", Kind::TokenClassification)] {
        let mut task = TaskConfig { kind, ..TaskConfig::default() };
        task.data.train = path(&format!("{name}.jsonl")).into();
        config.tasks.insert(name.to_owned(), task);
    }
    config.update.learning_rate = 2e-3;
    config.update.warmup_share = 0.1;
    let summary = train(&config, &device, &path("run"))?;
    for (name, task) in &summary.tasks {
        let alone = task.alone.as_ref().expect("each task was trained alone too");
        let (together, transfer) = (&task.after.figure, &alone.transfer[0]);
        println!(
            "{name}: {} {:.3} alone, {:.3} together: {:+.3} [{:+.3}, {:+.3}]",
            together.metric, alone.after.figure.value, together.value, transfer.value, transfer.interval.low, transfer.interval.high
        );
    }

    let model = MultitaskModel::load(&path("run/model"), &device)?;
    let limit = Limit::new(model.config().max_positions, Overlong::Refuse, &tokenizer)?;
    write_jsonl(&path("new.jsonl"), &world.held_out().sentiment_rows(1))?;
    let new = Table::read(&path("new.jsonl"), &[])?;
    let (answers, _) = model.predict(&new, &ColumnsConfig::default(), &tokenizer, limit)?;
    println!("{}\n{}", new.text(&new.rows[0], "text")?, answers[0]);
    Ok(())
}
