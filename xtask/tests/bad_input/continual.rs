//! Settings and files that continual learning and merging refuse, and a promise that cannot be kept.

use crate::support::{Place, SENTENCES, arguments, models};
use serde_json::json;
use std::fs;
use std::path::Path;

fn refused(place: &Place, command: &str, sets: &[&str], words: &[&str]) {
    place.refused(&arguments(command, &models().join("decoder"), sets), words);
}

#[test]
fn streams_that_make_no_sense() {
    let place = Place::new();
    let train = "data.train=lines.txt";
    refused(&place, "adapt", &[], &["data.train", "missing"]);
    refused(&place, "continual", &[train], &["domains", "missing", "train="]);
    refused(&place, "adapt", &["domains=[{train=\"lines.txt\"}]"], &["domains", "data.train", "continual"]);
    refused(&place, "continual", &[train, "domains=[{train=\"lines.txt\"}]"], &["data.train", "domains already"]);
    refused(&place, "continual", &["domains=[{name=\"law\"}]"], &["domains.train", "missing"]);
    let twice = "domains=[{train=\"lines.txt\"}, {train=\"lines.txt\"}]";
    refused(&place, "continual", &[twice], &["domains.name", "\"lines\" is taken"]);
    refused(&place, "continual", &["domains=[{name=\"general\", train=\"lines.txt\"}]"], &["\"general\" is taken"]);
    refused(&place, "continual", &["domains=[{name=\"a/b\", train=\"lines.txt\"}]"], &["domains.name", "\"a/b\""]);
    refused(&place, "continual", &["domains=[{trian=\"lines.txt\"}]"], &["--set domains", "trian"]);
    for (set, words) in [
        ("replay.share=1.0", ["replay.share", "below 1"]),
        ("replay.share=0.5", ["replay.share", "general.train"]),
        ("ewc.strength=1.0", ["ewc.strength", "general.train"]),
        ("ewc.strength=-1.0", ["ewc.strength", "0 or more"]),
        ("ewc.decay=1.5", ["ewc.decay", "0 to 1"]),
        ("ewc.rows=0", ["ewc.rows", "at least 1"]),
        ("l2_sp.strength=-1.0", ["l2_sp.strength", "0 or more"]),
        ("lwf.strength=-1.0", ["lwf.strength", "0 or more"]),
        ("lwf.temperature=0.0", ["lwf.temperature", "more than 0"]),
        ("budget=0.02", ["budget", "general.train"]),
        ("masking.share=0.0", ["masking.share", "more than 0"]),
        ("objective=mlm", ["objective", "next-token"]),
        ("block_tokens=99", ["block_tokens", "32 positions"]),
    ] {
        refused(&place, "adapt", &[train, set], &words);
    }
    refused(&place, "adapt", &[train, "l2_sp.strength=1.0", "adapter.rank=2"], &["l2_sp.strength", "adapter"]);
    refused(&place, "adapt", &[train, "general.train=lines.txt", "budget=-0.1"], &["budget", "0 or more"]);
    refused(&place, "adapt", &[train, "general.train=lines.txt", "budget=0.1"], &["general", "held-out rows", "at least 40"]);
    refused(&place, "adapt", &[train, "canaries.count=2", "block_tokens=8"], &["canaries.count", "positions", "leave them out"]);
    refused(&place, "adapt", &[train, "canaries.count=2", "canaries.repetitions=0"], &["canaries.repetitions", "at least 1"]);
    let encoder = arguments("adapt", &models().join("encoder"), &[train]);
    place.refused(&encoder, &["objective", "mlm"]);
    let hidden = arguments("adapt", &models().join("encoder"), &[train, "objective=mlm", "canaries.count=2"]);
    place.refused(&hidden, &["canaries.count", "next-token"]);
}

#[test]
fn models_that_cannot_be_merged() {
    let place = Place::new();
    let [decoder, encoder] = ["decoder", "encoder"].map(|name| models().join(name).display().to_string());
    let merge = |sets: &[&str], words: &[&str]| {
        let sets = sets.iter().flat_map(|&set| ["--set".to_owned(), set.to_owned()]);
        place.refused(&std::iter::once("merge".to_owned()).chain(sets).collect::<Vec<_>>(), words);
    };
    let (base, output) = (format!("base={decoder}"), "output=merged");
    let models = |folders: &[&str]| format!("models={}", json!(folders));
    let one = models(&[&decoder]);
    merge(&[output, &one], &["base", "missing"]);
    merge(&[&base, &one], &["output", "missing"]);
    merge(&[&base, output], &["models", "missing"]);
    merge(&[&base, output, &models(&["nowhere"])], &["nowhere", "no such folder"]);
    merge(&[&base, output, &models(&[&decoder, &decoder]), "method=wise-ft"], &["models", "wise-ft takes one"]);
    merge(&[&base, output, &one, "density=2.0"], &["density", "0 to 1"]);
    merge(&[&base, output, &one, "adapters=[\"a\"]"], &["adapters", "beside models"]);
    merge(&[&base, output, "adapters=[\"nowhere\"]"], &["nowhere", "no such folder"]);
    merge(&[&base, output, &one, "alpha=-0.5"], &["alpha", "0 to 1"]);
    merge(&[&base, output, &one, "weights=[1.0, 2.0]"], &["weights", "2 for 1 models"]);
    merge(&[&base, output, &models(&[&encoder])], &["config.json", "another kind of model"]);
    merge(&[&base, &format!("output={decoder}"), &one], &["output", "already holds a model"]);
    assert!(!place.path("merged").exists());
}

#[test]
fn a_promise_that_cannot_be_kept() {
    let place = Place::new();
    let rows =
        |n: usize, text: &dyn Fn(usize) -> &'static str| (0..n).map(|row| format!("{}\n", json!({"text": text(row)}))).collect::<String>();
    place.file("general.jsonl", rows(90, &|row| SENTENCES[row % 6]));
    place.file("domain.jsonl", rows(12, &|row| ["xx qq zz", "zz xx qq xx"][row % 2]));
    let run = |model: &Path, sets: &[&str]| {
        // Six sentences repeat.
        let output = place.run(&arguments("adapt", model, &[sets, &["force=true"]].concat()));
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    // A model that has something to forget.
    let learn = ["data.train=general.jsonl", "epochs=20", "batch_rows=8", "update.learning_rate=0.01"];
    let (code, text) = run(&models().join("decoder"), &learn);
    assert_eq!(code, Some(0), "{text}");
    fs::rename(place.path("out"), place.path("base")).expect("renamed");

    let general = ["general.train=general.jsonl", "general.held_out_share=0.5", "budget=0.0"];
    let domain = ["data.train=domain.jsonl", "epochs=5", "batch_rows=2", "update.learning_rate=1.0"];
    let (code, text) = run(&place.path("base/model"), &[general.as_slice(), &domain].concat());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains("budget")), "{text}");
    assert!(!place.path("out/model").exists() && place.path("out/over-budget/config.json").exists());
    assert!(place.path("out/report.html").exists());
    // There is no model to be asked.
    fs::rename(place.path("out"), place.path("run")).expect("renamed");
    place.refused(&["audit", "fit", "run"], &["run/model", "no such folder"]);
}
