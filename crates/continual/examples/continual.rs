//! Two domains learnt one after the other, without replay and with it: `cargo run --example continual`.
//!
//! A small decoder first reads everyday stories of the built-in world, then a cook's notes, then a ship's log. The tables show the
//! perplexity of each after each.

use kiln_continual::config::{ContinualConfig, DomainConfig};
use kiln_continual::train::{Summary, train};
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::source::DataConfig;
use kiln_data::world::{Domain, World, write_jsonl};
use kiln_kernels::random::Key;
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (world, device) = (World::new(1), device::by_name("flex")?);
    for (name, domain) in [("stories", Domain::Everyday), ("kitchen", Domain::Kitchen), ("ship", Domain::ShipsLog)] {
        write_jsonl(&path(&format!("{name}.jsonl")), &world.documents(domain, 600))?;
    }

    let documents = Domain::ALL.map(|domain| world.documents(domain, 200)).concat();
    let tokenizer = Tokenizer::train(documents.iter().map(|row| row.text.as_str()), 512)?;
    let keys = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
    });
    let shape = ModelConfig::from_json(keys.as_object().expect("an object").clone(), Path::new("config.json"))?;
    model::save(&LanguageModel::new(shape, &device, Key::new(1))?, &tokenizer, &path("untrained"))?;

    // The rows of a small grammar repeat, which the pre-flight would stop at.
    let mut config = ContinualConfig { model: path("untrained"), epochs: 3, batch_rows: 16, force: true, ..ContinualConfig::default() };
    config.update.learning_rate = 3e-3;
    config.data.train = path("stories.jsonl").into();
    train(&config, &device, &path("base"))?;

    config.data = DataConfig::default();
    (config.model, config.epochs) = (path("base/model"), 1);
    config.general = Some(DataConfig { train: path("stories.jsonl").into(), ..DataConfig::default() });
    let domain = |name: &str| DomainConfig { train: path(name).into(), ..DomainConfig::default() };
    config.domains = vec![domain("kitchen.jsonl"), domain("ship.jsonl")];
    for (out, share) in [("without replay", 0.0), ("with replay", 0.4)] {
        config.replay.share = share;
        show(out, &train(&config, &device, &path(out))?);
    }
    Ok(())
}

fn show(title: &str, Summary { matrix, transfer, .. }: &Summary) {
    println!("\n{title}: gain {:.3} nats per token\n{:<12} {}", transfer.gain.value, "perplexity", matrix.columns.join("  "));
    for stage in &matrix.stages {
        let figures: Vec<String> = stage.perplexities.iter().map(|figure| format!("{:7.2}", figure.value)).collect();
        println!("{:<12} {}", stage.after, figures.join("  "));
    }
}
