//! A model from nothing: trains a tokenizer, makes a small decoder, attaches an adapter, saves the folder, loads it and continues a text.
//!
//! `cargo run --example core`

use kiln_core::adapter::{self, LoraConfig};
use kiln_core::config::ModelConfig;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::counts;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::world::{Domain, World};
use kiln_kernels::random::Key;
use serde_json::json;
use std::path::Path;

fn main() -> Result<()> {
    let (device, key) = (device::by_name("flex")?, Key::new(0));
    let documents = World::new(0).documents(Domain::Kitchen, 300);
    let tokenizer = Tokenizer::train(documents.iter().map(|document| document.text.as_str()), 512)?;

    let keys = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "silu", "tie_word_embeddings": true,
        "eos_token_id": tokenizer.id("</s>"),
    });
    let config = ModelConfig::from_json(keys.as_object().cloned().unwrap_or_default(), Path::new("config.json"))?;
    let decoder = LanguageModel::new(config, &device.clone().autodiff(), key.fold(0))?;
    let decoder = adapter::attach(decoder, &LoraConfig::default(), &device.clone().autodiff(), key.fold(1))?;
    let [n_trainable, n_parameters] = counts(&decoder);
    println!("{n_trainable} of {n_parameters} parameters are the adapter's");

    let folder = tempfile::tempdir().expect("a folder for temporary files");
    model::save(&decoder, &tokenizer, folder.path())?;
    let (decoder, fit) = LanguageModel::load(folder.path(), &device)?;
    println!("saved with the adapter merged in, and loaded: {} tensors missing, {} unused", fit.new.len(), fit.unused.len());

    let prompt = tokenizer.encode("The cook")?;
    let sampling = Sampling { temperature: 1.0, max_new_tokens: 16, ..Sampling::default() };
    let new = generate(&decoder, &[prompt], &sampling, &decoder.config().end_ids, key.fold(2))?;
    println!("untrained it says: The cook{}", tokenizer.decode(&new[0])?);
    Ok(())
}
