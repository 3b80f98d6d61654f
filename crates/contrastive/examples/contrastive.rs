//! Teaches a small encoder which sentences mean the same, through an adapter, and searches with it.
//!
//! `cargo run --example contrastive`

use kiln_contrastive::config::{ContrastiveConfig, Objective};
use kiln_contrastive::embed::{SearchConfig, search};
use kiln_contrastive::train::train;
use kiln_core::adapter::LoraConfig;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::rows::write_jsonl;
use kiln_data::world::World;
use kiln_kernels::random::Key;
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let device = device::by_name("flex")?;
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = |name: &str| folder.path().join(name);
    let pairs = World::new(0).paraphrase_rows(1000);
    write_jsonl(&path("pairs.jsonl"), &pairs)?;

    // A published encoder would be a folder on disk; this one is made up here.
    let tokenizer = Tokenizer::train(pairs.iter().flat_map(|pair| [pair.anchor.as_str(), &pair.positive]), 512)?;
    let keys = json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "gelu",
    });
    let config = ModelConfig::from_json(keys.as_object().cloned().unwrap_or_default(), Path::new("config.json"))?;
    model::save(&LanguageModel::new(config, &device, Key::new(0))?, &tokenizer, &path("encoder"))?;

    // The rows of a small grammar repeat, which the pre-flight would stop at.
    let mut config =
        ContrastiveConfig { model: path("encoder"), objective: Objective::Mnrl, epochs: 4, force: true, ..ContrastiveConfig::default() };
    config.data.train = path("pairs.jsonl").into();
    config.adapter = Some(LoraConfig::default());
    config.update.learning_rate = 1e-2;
    let summary = train(&config, &device, &path("run"))?;
    for (after, gain) in summary.after.figures.iter().zip(&summary.difference) {
        println!("{} {:.3}, better by {:.3} [{:.3}, {:.3}]", after.metric, after.value, gain.value, gain.interval.low, gain.interval.high);
    }

    let data = path("texts.jsonl");
    write_jsonl(&data, &pairs.iter().map(|pair| json!({"text": pair.positive})).collect::<Vec<_>>())?;
    let query = pairs[0].anchor.clone();
    println!("{query:?} is nearest to");
    for found in search(&SearchConfig { model: path("run/model"), data, query, n: 3, ..SearchConfig::default() }, &device)?.0 {
        println!("{:.3} {:?}", found.cosine, found.text);
    }
    Ok(())
}
