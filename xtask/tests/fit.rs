//! `cargo xtask audit` of runs, from their training to the pages and cards they leave.

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

/// A folder with an encoder that knows nothing.
fn place() -> tempfile::TempDir {
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
    folder
}

/// The settings, each behind `--set`.
fn sets<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|&set| ["--set", set]).collect()
}

#[test]
fn a_run_is_looked_at_and_trained_again() {
    let folder = place();
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
    run(folder.path(), &[&["sft", "--out", "run"], &sets(&settings)[..]].concat());
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

#[test]
fn the_rows_of_a_run_are_looked_at() {
    let folder = place();
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("written");
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).expect(path);
    let row = |row: usize| format!("{} {row}\t{}\n", TOPICS[row % 2][row / 2 % 4], ["cold", "warm"][row % 2]);
    let rows: String = (10..40).map(row).collect();
    // The same as another, one that is held out too, and one that says who to write to.
    write("train.tsv", &format!("{rows}{}hot sand 99\twarm\nwrite to ann.lee@example.org\tcold\n", row(12)));
    write("held-out.tsv", &format!("hot sand 99\twarm\n{}", row(77)));
    let settings = [
        "model=encoder",
        "task=classification",
        "data.train=train.tsv",
        "data.held_out=held-out.tsv",
        "columns.names=[\"body\", \"mood\"]",
        "columns.text=body",
        "columns.label=mood",
        "force=true",
    ];
    run(folder.path(), &[&["sft", "--out", "run"], &sets(&settings)[..]].concat());
    let printed = run(folder.path(), &["audit", "data", "run", "--fail-if", "duplicates=1", "--clean", "clean.tsv", "--out", "audit"]);
    for line in ["data             33 rows of train.tsv", "leakage               1", "not looked for   label-errors, outliers"] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let found: Value = serde_json::from_str(&read("run/data.json")).expect("JSON");
    let of_check = |name: &str| {
        found["checks"].as_array().expect("checks").iter().find(|check| check["check"] == name).expect("a check")["found"].clone()
    };
    assert_eq!(["duplicates", "leakage", "personal-data"].map(of_check), [1, 1, 1]);
    assert_eq!((&found["held_out_rows"], &found["not looked for"]), (&json!(2), &json!("label-errors, outliers")));
    assert!(found.get("examples").is_none() && read("audit/results.json").contains("\"examples\""));
    let card = read("run/model/README.md");
    for line in ["## Data\n", "| of | train.tsv |", "| duplicates | 1 (3.0 %) |", "| label-errors | not looked for |", "| rows | 33 |"] {
        assert!(card.contains(line), "{line} in {card}");
    }
    assert!(read("clean.tsv").contains("write to [EMAIL]") && read("clean.tsv").lines().count() == 31);
    // What one audit left stays when another comes.
    run(folder.path(), &["audit", "fit", "run", "--out", "fit"]);
    let (page, card) = (read("run/report.html"), read("run/model/README.md"));
    assert!(page.contains("<h2>data.checks</h2>") && page.contains("<h2>fit.figures</h2>"), "{page}");
    assert!(card.contains("## Data\n") && card.contains("## Fit\n"), "{card}");
    assert!([page, card, read("run/data.json")].iter().all(|text| !text.contains("ann.lee")), "personal data is repeated");
    // What is given by hand counts more than what the run says.
    let printed = run(folder.path(), &["audit", "data", "run", "--set", "columns.label=", "--out", "unlabelled"]);
    assert!(printed.contains("not looked for   conflicts, label-errors"), "{printed}");
}

#[test]
fn each_file_of_a_run_has_its_column() {
    let folder = place();
    let lines = |from: usize, texts: [&str; 4]| (from..from + 40).map(|line| format!("{} {line}\n", texts[line % 4])).collect::<String>();
    fs::write(folder.path().join("cold.txt"), lines(0, TOPICS[0])).expect("written");
    fs::write(folder.path().join("warm.txt"), lines(40, TOPICS[1]) + "a warm room 40\n").expect("written");
    let settings =
        ["model=encoder", "objective=mlm", "domains=[{train=\"cold.txt\"}, {train=\"warm.txt\"}]", "block_tokens=16", "force=true"];
    run(folder.path(), &[&["continual", "--out", "run"], &sets(&settings)[..]].concat());
    let printed = run(folder.path(), &["audit", "data", "run", "--out", "audit"]);
    assert!(printed.contains("40 rows of cold.txt") && printed.contains("41 rows of warm.txt"), "{printed}");
    let card = fs::read_to_string(folder.path().join("run/model/README.md")).expect("a card");
    assert!(card.contains("| of | cold: cold.txt | warm: warm.txt |") && card.contains("| rows | 40 | 41 |"), "{card}");
    let findings = fs::read_to_string(folder.path().join("audit/findings.jsonl")).expect("findings");
    assert!(findings.lines().all(|line| line.contains("\"file\":\"")), "{findings}");
    assert!(folder.path().join("run/data.json").exists() && folder.path().join("audit/results.json").exists());
}
