//! `cargo xtask generate` and `merge` on a small model and an adapter that was trained for it.

use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const SENTENCES: [&str; 4] = ["the sea is cold today", "the sun is warm today", "snow fell on the hill", "a fire burns in the room"];

/// A folder with `base`, a decoder, and `pairs.jsonl`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let tokenizer = Tokenizer::train(SENTENCES.into_iter(), 300).expect("a tokenizer");
        let keys = json!({
            "model_type": "llama", "hidden_act": "silu", "eos_token_id": 2, "tie_word_embeddings": true, "hidden_size": 16,
            "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
            "vocab_size": tokenizer.vocab_size(), "initializer_range": 0.3,
        });
        let Value::Object(keys) = keys else { unreachable!() };
        let config = ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration");
        let device = device::by_name("flex").expect("a device");
        let decoder = LanguageModel::new(config, &device, Key::new(0)).expect("a decoder");
        model::save(&decoder, &tokenizer, &place.0.path().join("base")).expect("saved");
        let pairs = SENTENCES.map(|text| format!("{}\n", json!({"prompt": text, "completion": " on the hill"})));
        fs::write(place.0.path().join("pairs.jsonl"), pairs.concat().repeat(4)).expect("written");
        place
    }

    /// What the command prints.
    fn run(&self, command: &str, arguments: &[&str]) -> String {
        let mut all = Command::new(env!("CARGO_BIN_EXE_xtask"));
        all.current_dir(self.0.path()).arg(command);
        for argument in arguments {
            match argument.starts_with("--") {
                true => all.args(argument.split('=')),
                false => all.args(["--set", argument]),
            };
        }
        let output = all.output().expect("the runner starts");
        assert!(output.status.success(), "{command} {arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path().join(file)).expect("a file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[test]
fn an_adapter_speaks_as_its_merged_model_does() {
    let place = Place::new();
    for (kind, set) in [
        ("rslora", "adapter.use_rslora=true"),
        ("dora", "adapter.use_dora=true"),
        ("embeddings", "adapter.modules_to_save=[\"embed_tokens\"]"),
    ] {
        let train = [
            "model=base",
            "data.train=pairs.jsonl",
            "force=true",
            "epochs=3",
            "update.learning_rate=2e-2",
            "adapter.rank=4",
            "adapter.dropout=0.1",
            set,
        ];
        place.run("sft", &[&train[..], &[&format!("--out={kind}")]].concat());
        let adapter = format!("adapters=[\"{kind}/adapter\"]");
        let merged = format!("output={kind}/merged");
        assert!(place.run("merge", &["base=base", &adapter, &merged]).contains("of the base and an adapter"));
        let said = |sets: &[&str]| place.run("generate", &[sets, &["prompt=the sea", "sampling.max_new_tokens=12"]].concat());
        let model = format!("model={kind}/merged");
        let by_merged = said(&[&model]);
        assert_eq!(said(&["model=base", &format!("adapter={kind}/adapter")]), by_merged);
        assert_eq!(said(&[&format!("model={kind}/model")]), by_merged, "the model that training left");
        assert_ne!(said(&["model=base"]), by_merged, "{kind} changes something");
    }
}

#[test]
fn prompts_of_a_file_are_continued_as_if_each_were_alone() {
    let place = Place::new();
    let sampling = ["model=base", "sampling.temperature=0.9", "sampling.top_p=0.95", "sampling.max_new_tokens=20", "--seed=3"];
    let report = place.run("generate", &[&sampling[..], &["data=pairs.jsonl", "n=2", "output=said.jsonl"]].concat());
    assert!(report.starts_with("32 continuations of 16 prompts, "), "{report}");
    let said = place.lines("said.jsonl");
    assert_eq!(said.len(), 32);
    for (index, line) in said.iter().enumerate() {
        assert_eq!(line["prompt"], SENTENCES[index / 2 % 4]);
        let [ids, log_probabilities] = ["ids", "log_probabilities"].map(|key| line[key].as_array().expect("a list"));
        assert_eq!(ids.len(), log_probabilities.len());
        assert!(log_probabilities.iter().all(|p| p.as_f64().is_some_and(|p| p <= 0.0)));
        assert_eq!(line["ended"], ids.last().is_some_and(|id| id == 2));
    }
    // The first of them is what the prompt alone begins with, printed as it grows.
    let alone = place.run("generate", &[&sampling[..], &["prompt=the sea is cold today"]].concat());
    let text = said[0]["text"].as_str().expect("a text");
    assert_eq!(alone, format!("{}{text}\n", SENTENCES[0]));
    // Up to a string in the middle of it.
    let stop = text.chars().skip(3).take(2).collect::<String>();
    let stopped = place.run("generate", &[&sampling[..], &["prompt=the sea is cold today", &format!("stop=[{}]", json!(stop))]].concat());
    let expected = text.split(stop.as_str()).next().expect("a beginning");
    assert_eq!(stopped, format!("{}{expected}\n", SENTENCES[0]));
}
