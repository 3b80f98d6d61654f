//! Models and data sets by name, from a hub on this machine.

#[path = "../../../crates/core/src/hub/tests/server.rs"]
mod server;

use crate::support::{Place, models};
use serde_json::json;
use server::{COMMIT, Server};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the runner in `place` against the hub, whose cache is in the place.
fn run(place: &Place, endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(place.path("")).args(arguments).env("HF_ENDPOINT", endpoint).env("HF_HOME", place.path("hf"));
    command.env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE").output().expect("the runner starts")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn refused(output: &Output, words: &[&str]) {
    let line = said(output);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.starts_with("error: ") && line.matches('\n').count() == 1, "not one line: {line}");
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
}

#[test]
fn commands_take_a_name_for_a_folder() {
    let place = Place::new();
    let folder = models().join("decoder");
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .expect("a model")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("a file")))
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let server = Server::start(&files, None);
    let generate = ["generate", "--set", "prompt=the sea", "--set", "sampling.max_new_tokens=4", "--set"];
    let local = run(&place, &server.endpoint, &[&generate[..], &[&format!("model={}", folder.display())]].concat());
    assert!(local.status.success() && server.paths().is_empty(), "{}", said(&local));
    for model in ["model=org/model", "model=org/model@v1"] {
        let named = run(&place, &server.endpoint, &[&generate[..], &[model]].concat());
        assert!(named.status.success(), "{}", said(&named));
        assert_eq!(named.stdout, local.stdout);
        assert!(!server.paths().is_empty());
    }
    // The run and what it writes know the model by its name.
    let sft = ["sft", "--set", "model=org/model", "--set", "data.train=pairs.jsonl", "--set", "adapter.rank=2", "--out", "out"];
    let tuned = run(&place, &server.endpoint, &sft);
    assert!(tuned.status.success(), "{}", said(&tuned));
    let adapter = fs::read_to_string(place.path("out/adapter/adapter_config.json")).expect("an adapter");
    assert!(adapter.contains("\"base_model_name_or_path\": \"org/model\""), "{adapter}");
    assert!(place.path("hf/hub/models--org--model/snapshots").join(COMMIT).join("config.json").exists());
    // No hub, no matter: the cache has it, also where it is somewhere else.
    let alone = run(&place, "http://127.0.0.1:9", &[&generate[..], &["model=org/model"]].concat());
    assert_eq!(alone.stdout, local.stdout, "{}", said(&alone));
    fs::rename(place.path("hf/hub"), place.path("cache")).expect("moved");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(place.path("")).args(generate).arg("model=org/model").env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.path("hf"));
    let moved = command.env("HF_HUB_CACHE", place.path("cache")).output().expect("the runner starts");
    assert_eq!(moved.stdout, local.stdout, "{}", said(&moved));
}

/// A data set whose training rows are two files, and whose test rows are one.
fn data() -> Vec<(&'static str, Vec<u8>)> {
    let lines = |rows: std::ops::Range<usize>| {
        let row = |index: usize| json!({"text": format!("row {index} of the sea"), "label": if index.is_multiple_of(2) { "cold" } else { "warm" }});
        rows.map(|index| format!("{}\n", row(index))).collect::<String>().into_bytes()
    };
    vec![
        ("README.md", b"not needed".to_vec()),
        ("data/train-00000-of-00002.jsonl", lines(0..40)),
        ("data/train-00001-of-00002.jsonl", lines(40..60)),
        ("data/test-00000-of-00001.jsonl", lines(60..80)),
    ]
}

#[test]
fn a_run_on_a_data_set_of_the_hub() {
    let (place, files) = (Place::new(), data());
    let served: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let server = Server::start(&served, None);
    let model = format!("model={}", models().join("encoder").display());
    let train = [
        "sft",
        "--force",
        "--out",
        "out",
        "--set",
        &model,
        "--set",
        "task=classification",
        "--set",
        "data.train=[{path=\"org/data\", weight=0.5}, \"texts.tsv\"]",
        "--set",
        "data.held_out=org/data:test",
    ];
    let trained = run(&place, &server.endpoint, &train);
    assert!(trained.status.success(), "{}", said(&trained));
    let said_lines = said(&trained);
    assert!(said_lines.contains("training rows: 66 rows") && said_lines.contains("held out: 20 rows"), "{said_lines}");
    // Half of the split's 60 rows, and all 6 of the other file: 2 updates.
    assert!(String::from_utf8_lossy(&trained.stdout).contains(", 2 steps"), "{}", String::from_utf8_lossy(&trained.stdout));
    // The run knows the files by their places in the cache, with their weight.
    let folder = place.path("hf/hub/datasets--org--data/snapshots").join(COMMIT).join("data");
    let config = fs::read_to_string(place.path("out/config.toml")).expect("the settings");
    for file in ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"] {
        assert!(config.contains(&folder.join(file).display().to_string()), "{file} in {config}");
    }
    assert_eq!(config.matches("weight = 0.5").count(), 2, "{config}");
    // So it can be made again when nobody answers.
    let nobody = "http://127.0.0.1:9";
    let again = run(&place, nobody, &["verify-run", "out", "--from", "0"]);
    assert!(again.status.success(), "{}", said(&again));

    // What only reads takes the same names.
    server.paths();
    let model = format!("model={}", place.path("out/model").display());
    let eval = |data: &str| run(&place, &server.endpoint, &["eval", "--set", &model, "--set", &format!("data={data}")]);
    let [named, local] = ["org/data:test", &folder.join("test-00000-of-00001.jsonl").display().to_string()].map(eval);
    assert!(named.status.success() && String::from_utf8_lossy(&named.stdout).contains("on 20 rows"), "{}", said(&named));
    assert_eq!(named.stdout, local.stdout);
    let folder = place.path("out/model").display().to_string();
    let inspect = |file: &str| run(&place, &server.endpoint, &["inspect", "data", file, "--model", &folder]);
    let inspected = inspect("hf://datasets/org/data/data/train-00000-of-00002.jsonl");
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("40: texts with a label"), "{}", said(&inspected));

    refused(&eval("org/data"), &["data", "org/data names no split", "org/data:test"]);
    refused(&eval("org/data:train"), &["data", "org/data:train is 2 files: name one of them", "train-00000-of-00002.jsonl"]);
    refused(&inspect("org/data"), &["FILE", "org/data names no split"]);
    refused(&inspect("org/none:test"), &["org/none", "no such data set at http://127.0.0.1:"]);
    let held_out = |name: &str| run(&place, &server.endpoint, &[&train[..train.len() - 1], &[&format!("data.held_out={name}")]].concat());
    refused(&held_out("org/data"), &["data.held_out", "names no split"]);
    refused(&held_out("org/data:dev"), &["no file of the split \"dev\""]);
}

#[test]
fn several_tasks_predict_for_a_data_set_of_the_hub() {
    let (place, files) = (Place::new(), data());
    let served: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let server = Server::start(&served, None);
    let model = format!("model={}", models().join("encoder").display());
    let sets = ["tasks.mood.data.train=org/data:train", "tasks.mood.data.held_out=org/data:test", "force=true"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let trained = run(&place, &server.endpoint, &[&["multitask", "--out", "out", "--set", &model], &sets[..]].concat());
    assert!(trained.status.success(), "{}", said(&trained));
    let predict = ["predict", "--set", "model=out/model", "--set", "data=org/data:test", "--set", "output=said.jsonl"];
    let predicted = run(&place, &server.endpoint, &predict);
    assert!(predicted.status.success(), "{}", said(&predicted));
    assert_eq!(fs::read_to_string(place.path("said.jsonl")).expect("predictions").lines().count(), 20);
}

/// A folder that is not there is no name on the hub: nobody is asked.
#[test]
fn names_without_an_organisation_are_folders() {
    let (place, server) = (Place::new(), Server::start(&[("config.json", b"{}")], None));
    for command in [["sft", "data.train=pairs.jsonl"], ["eval", "data=texts.tsv"], ["generate", "prompt=x"]] {
        let output = run(&place, &server.endpoint, &[command[0], "--set", command[1], "--set", "model=nowhere"]);
        refused(&output, &["nowhere: no such folder; names on the hub are such as org/name"]);
    }
    assert!(server.paths().is_empty());
}

#[test]
fn models_that_are_nowhere() {
    let (place, server) = (Place::new(), Server::start(&[("config.json", b"{}")], Some("hf_secret")));
    let commands: [&[&str]; 4] = [
        &["generate", "--set", "prompt=x", "--set", "model=org/none"],
        &["sft", "--set", "data.train=pairs.jsonl", "--set", "model=org/none"],
        &["eval", "--set", "data=texts.tsv", "--set", "model=org/none"],
        &["embed", "--set", "data=lines.txt", "--set", "output=x.npy", "--set", "model=org/none"],
    ];
    for command in commands {
        refused(&run(&place, &server.endpoint, command), &["org/none", "no such model at http://127.0.0.1:", "HF_TOKEN"]);
    }
    refused(&run(&place, "http://127.0.0.1:9", commands[0]), &["org/none", "cannot be reached", "HF_ENDPOINT"]);
    refused(&run(&place, "huggingface.co", commands[0]), &["HF_ENDPOINT", "\"huggingface.co\"", "https://"]);
    assert!(!Path::new(&place.path("out")).exists());
}

#[test]
fn tokenizers_and_tokens() {
    let place = Place::new();
    let nobody = "http://127.0.0.1:9";
    let train = |rest: &[&str]| run(&place, nobody, &[&["tokenizer", "--set", "output=tokens"], rest].concat());
    refused(&train(&[]), &["data", "missing"]);
    refused(&train(&["--set", "data=[\"none.txt\"]"]), &["none.txt", "no such file"]);
    refused(&train(&["--set", "data=[\"lines.txt\"]", "--set", "vocab_size=100"]), &["vocab_size", "found 100"]);
    refused(&train(&["--set", "data=[\"lines.txt\"]", "--set", "kind=words"]), &["kind=words", "byte-level-bpe"]);
    refused(&train(&["--set", "data=[\"texts.tsv\"]", "--set", "column=txt"]), &["texts.tsv", "no column \"txt\""]);
    assert!(!place.path("tokens").exists());
    for kind in ["byte-level-bpe", "bpe", "wordpiece", "unigram"] {
        let output = format!("output={kind}");
        let trained = run(
            &place,
            nobody,
            &[
                "tokenizer",
                "--set",
                "data=[\"lines.txt\", \"texts.tsv\"]",
                "--set",
                "vocab_size=300",
                "--set",
                &format!("kind={kind}"),
                "--set",
                &output,
            ],
        );
        assert!(trained.status.success(), "{}", said(&trained));
        assert!(place.path(kind).join("tokenizer_config.json").exists());
    }
    refused(&run(&place, nobody, &["tokenizer", "--set", "data=[\"lines.txt\"]", "--set", "output=bpe"]), &["output", "bpe already holds"]);

    let model = place.copy("decoder");
    let model = format!("model={}", model.display());
    let add = |rest: &[&str]| run(&place, nobody, &[&["add-tokens", "--set", &model, "--set", "output=more"], rest].concat());
    refused(&add(&[]), &["tokens", "missing"]);
    refused(&add(&["--set", "tokens=[\"<a>\", \"<a>\"]"]), &["tokens", "\"<a>\" is named twice"]);
    refused(&add(&["--set", "tokens=[\"<a>\"]", "--set", "multiple_of=0"]), &["multiple_of", "found 0"]);
    assert!(!place.path("more").exists());
    let added = add(&["--set", "tokens=[\"<a>\", \"<b>\"]", "--set", "multiple_of=8"]);
    assert!(added.status.success(), "{}", said(&added));
    let generated = run(&place, nobody, &["generate", "--set", "model=more", "--set", "prompt=the <a>sea"]);
    assert!(generated.status.success(), "{}", said(&generated));
}
