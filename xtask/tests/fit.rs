//! `cargo xtask audit fit`, from the training of a run to the page it leaves.

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

const TOPICS: [[&str; 4]; 2] =
    [["the sea is cold", "snow fell", "ice and wind", "a cold hill"], ["the sun is warm", "a fire burns", "hot sand", "a warm room"]];

/// Runs the runner in `folder`; what it prints.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).current_dir(folder).args(arguments).output().expect("the runner starts");
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_run_is_looked_at_and_trained_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let texts = TOPICS.concat();
    let tokenizer = Tokenizer::train(texts.iter().copied(), 300).expect("a tokenizer");
    let Value::Object(keys) = json!({
        "model_type": "bert", "hidden_act": "gelu", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
    }) else {
        panic!("an object")
    };
    let config = ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration");
    let encoder = LanguageModel::new(config, &device::by_name("flex").expect("a device"), Key::new(0)).expect("a model");
    model::save(&encoder, &tokenizer, &folder.path().join("encoder")).expect("saved");
    let key = Key::new(7);
    let row = |row: u64| {
        let topic = key.below(row, 2) as usize;
        let part = |place| TOPICS[topic][key.fold(place).below(row, 4) as usize];
        format!("{} {} {}\t{}\n", part(1), part(2), part(3), ["cold", "warm"][topic])
    };
    fs::write(folder.path().join("rows.tsv"), (0..160).map(row).collect::<String>()).expect("written");
    let settings = [
        "model=encoder",
        "task=classification",
        "data.train=rows.tsv",
        "columns.names=[\"text\", \"label\"]",
        "data.held_out_share=0.3",
        "batch_rows=8",
        "epochs=3",
        "update.learning_rate=5e-3",
        "force=true",
    ];
    let settings: Vec<&str> = settings.iter().flat_map(|&set| ["--set", set]).collect();
    run(folder.path(), &[&["sft", "--out", "run"], &settings[..]].concat());
    let printed = run(folder.path(), &["audit", "fit", "run", "--learning-curve", "--shuffled-labels", "--out", "audit"]);
    println!("{printed}");
    for word in ["verdict", "membership AUC", "ECE", "memorised", "learning curve", "share of wrong answers", " expected at "] {
        assert!(printed.contains(word), "{word} in {printed}");
    }
    let read = |path: &str| -> Value { serde_json::from_str(&fs::read_to_string(folder.path().join(path)).expect(path)).expect(path) };
    let results = read("audit/results.json");
    assert_eq!(results, read("run/fit.json"));
    let rows: Vec<&str> =
        results["points of the learning curve"].as_array().expect("points").iter().filter_map(|point| point["rows"].as_str()).collect();
    assert_eq!(rows, ["14", "28", "56", "112"]);
    let page = fs::read_to_string(folder.path().join("run/report.html")).expect("a page");
    assert!(page.contains("<h2>fit.figures</h2>") && page.contains("after.metric"), "the page of the run has both");
    let card = fs::read_to_string(folder.path().join("run/model/README.md")).expect("a card");
    assert!(card.contains("## Fit\n") && card.contains("| figure | of | before | after | rise |"), "{card}");
    // The same once more, on the run's own rows and seed; and beside another run in a table.
    run(folder.path(), &["audit", "fit", "run", "--out", "again"]);
    let part = |results: &Value| results["figures"].as_array().expect("figures")[..5].to_vec();
    assert_eq!(part(&results), part(&read("again/results.json")));
    let table = run(folder.path(), &["audit", "fit", "run", "audit/runs/half", "--out", "both"]);
    assert!(table.lines().count() == 4 && table.contains("audit/runs/half "), "{table}");
}
