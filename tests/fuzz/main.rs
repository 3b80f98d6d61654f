//! Every reader of files under damaged input: an error or a value, never a panic, and no more memory than the file itself could fill.
//!
//! The inputs are small valid files, damaged in ways drawn from a counter-based generator: the same ones in every run. As many as are tried
//! in a few seconds; `KILN_FUZZ_ROUNDS` multiplies them.

mod damage;
mod seeds;

use damage::{Damage, Reader};
use kiln_core::chat::ChatTemplate;
use kiln_core::checkpoint::Weights;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::sentence_encoder::SentenceHead;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{adapter, device};
use kiln_data::rows::Table;
use serde_json::json;
use std::path::Path;

/// What a reader may use beyond what the test itself does, for files of a few kilobytes.
const MOST_BYTES: usize = 400_000_000;

fn read_weights(folder: &Path) {
    let Ok(weights) = Weights::open(folder) else { return };
    for name in weights.names() {
        let shape = weights.shape(name).expect("a named tensor has a shape").to_vec();
        let _ = weights.read(name, &shape);
    }
}

fn read_tokenizer(folder: &Path) {
    let Ok(mut tokenizer) = Tokenizer::from_folder(folder) else { return };
    for text in ["the sea is cold", "", "naïve ☕\n\n  <s>x"] {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids);
        }
    }
    let _ = tokenizer.encode_pairs(vec![("the sea".into(), Some("is cold".into()))]);
    let _ = tokenizer.decode(&[0, 1, 2, 1000, u32::MAX]);
    let _ = (tokenizer.special_ids(), tokenizer.mask_id(), tokenizer.n_end_tokens(), tokenizer.n_ids());
    let _ = tokenizer.add(&["<new>".to_owned()], true);
}

fn read_model(folder: &Path) {
    let _ = LanguageModel::load(folder, &device::by_name("flex").expect("a device"));
}

fn check(reader: &mut Reader, n_inputs: usize) {
    let rounds: usize = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let outcome = reader.run(n_inputs * rounds);
    println!("{}: {} inputs, {:.1} s, {} MB at most", reader.file, n_inputs * rounds, outcome.seconds, outcome.peak_bytes / 1_000_000);
    assert!(outcome.panics.is_empty(), "{} panics, such as:\n{}", outcome.panics.len(), outcome.panics[0]);
    assert!(outcome.peak_bytes < MOST_BYTES, "{} bytes at most", outcome.peak_bytes);
}

/// One test, because memory is the process's: side by side they would count each other's.
#[test]
fn damaged_files_are_refused() {
    // Every thread's own heap is there before memory is counted.
    rayon::broadcast(|_| drop(std::hint::black_box(vec![0u8; 1 << 16])));
    let (model, torch) = (seeds::model(), seeds::torch());
    check(&mut Reader::new(model.path(), "config.json", Damage::Json, read_model), 400);
    check(&mut Reader::new(model.path(), "generation_config.json", Damage::Json, read_model), 200);
    check(&mut Reader::new(model.path(), "model.safetensors", Damage::SafetensorsHeader, read_model), 400);
    check(&mut Reader::new(model.path(), "model.safetensors", Damage::Bytes, read_weights), 300);
    let sharded = seeds::sharded();
    check(&mut Reader::new(sharded.path(), "model.safetensors.index.json", Damage::Json, read_weights), 200);
    check(&mut Reader::new(sharded.path(), "model.safetensors.index.json", Damage::Bytes, read_weights), 200);
    check(&mut Reader::new(torch.path(), "pytorch_model.bin", Damage::Bytes, read_weights), 1500);
    for kind in seeds::KINDS {
        let folder = seeds::tokenizer(kind);
        check(&mut Reader::new(folder.path(), "tokenizer.json", Damage::Json, read_tokenizer), 200);
        check(&mut Reader::new(folder.path(), "tokenizer.json", Damage::Bytes, read_tokenizer), 100);
    }
    let gpt2 = seeds::gpt2();
    check(&mut Reader::new(gpt2.path(), "vocab.json", Damage::Json, read_tokenizer), 100);
    check(&mut Reader::new(gpt2.path(), "merges.txt", Damage::Bytes, read_tokenizer), 100);
    let adapted = seeds::adapter();
    let device = device::by_name("flex").expect("a device");
    let (base, _) = LanguageModel::load(model.path(), &device).expect("the model loads");
    let read_adapter = move |folder: &Path| {
        let _ = adapter::load(base.clone(), folder, &device);
    };
    check(&mut Reader::new(adapted.path(), "adapter_config.json", Damage::Json, read_adapter.clone()), 300);
    check(&mut Reader::new(adapted.path(), "adapter_model.safetensors", Damage::SafetensorsHeader, read_adapter), 300);
    let read_chat = |folder: &Path| {
        if let Ok(template) = ChatTemplate::from_folder(folder) {
            let _ = template.conversation(&[json!({"role": "user", "content": "x"}), json!({"role": "assistant", "content": "y"})], 0);
        }
    };
    check(&mut Reader::new(model.path(), "tokenizer_config.json", Damage::Json, read_chat), 300);
    let read_head = |folder: &Path| {
        if let Ok(config) = ModelConfig::from_folder(folder) {
            let _ = SentenceHead::from_folder(folder, &config);
        }
    };
    check(&mut Reader::new(model.path(), "modules.json", Damage::Json, read_head), 200);
    let tables = seeds::tables();
    for file in seeds::TABLES {
        let read_table = move |folder: &Path| drop(Table::read(&folder.join(file), &[]));
        check(&mut Reader::new(tables.path(), file, Damage::Bytes, read_table), 300);
    }
    // A reader that takes too much is seen.
    let greedy = |_: &Path| drop(std::hint::black_box(vec![0u8; MOST_BYTES]));
    let outcome = Reader::new(model.path(), "modules.json", Damage::Json, greedy).run(1);
    assert!(outcome.peak_bytes >= MOST_BYTES);
}
