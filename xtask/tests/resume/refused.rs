//! Runs that cannot go on, each refused in one line.

use crate::support::{CASES, Place, succeeded};
use std::fs;
use std::path::Path;

/// What `resume` of this run says, which must be one line.
fn refusal(place: &Place, run: &str) -> String {
    let output = place.resume(run).output().expect("the runner starts");
    let line = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.starts_with("error: ") && line.matches('\n').count() == 1, "not one line: {line}");
    line
}

#[test]
fn what_is_no_run_or_a_finished_one() {
    let place = Place::new();
    assert!(refusal(&place, "nowhere").contains("nowhere: no run is there"));
    assert!(refusal(&place, "decoder").contains("decoder: no run is there"));
    succeeded(&mut place.begin(&CASES[0], 1, "out"), "sft");
    assert!(refusal(&place, "out").contains("out: the run is finished"));
    // The folder of a run is not taken for a new one.
    let output = place.begin(&CASES[0], 1, "out").output().expect("the runner starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--out: out already holds"), "{output:?}");
}

#[test]
fn what_was_changed_is_named() {
    let place = Place::new();
    succeeded(&mut place.begin(&CASES[0], 1, "out"), "sft");
    fs::remove_file(place.path("out/results.json")).expect("removed");
    let change = |path: &str, with: &dyn Fn(Vec<u8>) -> Vec<u8>, expected: &str| {
        let kept = fs::read(place.path(path)).expect("a file");
        place.file(path, with(kept.clone()));
        let line = refusal(&place, "out");
        assert!(line.contains(expected), "{path}: {line}");
        place.file(path, kept);
    };
    let appended = |mut bytes: Vec<u8>| {
        bytes.push(b'\n');
        bytes
    };
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    change("pairs.jsonl", &appended, "out: pairs.jsonl was changed since the run began");
    change("decoder/model.safetensors", &flipped, "out: decoder/model.safetensors was changed");
    change("decoder/tokenizer.json", &appended, "out: decoder/tokenizer.json was changed");
    change("out/config.toml", &|bytes| text(bytes).replace("0.01", "0.02").into(), "out: config.toml was changed");
    let older = |bytes| text(bytes).replace("\"checkpoint_format\": 2", "\"checkpoint_format\": 0").into();
    change("out/manifest.json", &older, "out: its checkpoints have version 0");
    change("out/manifest.json", &|bytes| text(bytes).replace("\"sft\"", "\"sfd\"").into(), "unknown method \"sfd\"");
    change("out/manifest.json", &|_| b"{}".to_vec(), "out/manifest.json");
    fs::rename(place.path("pairs.jsonl"), place.path("moved")).expect("moved");
    assert!(refusal(&place, "out").contains("pairs.jsonl: No such file"));
    fs::rename(place.path("moved"), place.path("pairs.jsonl")).expect("moved");
    for step in fs::read_dir(place.path("out/checkpoints")).expect("checkpoints") {
        damage(&step.expect("a checkpoint").path());
    }
    let line = refusal(&place, "out");
    assert!(line.contains("out/checkpoints: none can be used") && line.contains("weights.safetensors is damaged"), "{line}");
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_used() {
    let place = Place::new();
    succeeded(&mut place.begin(&CASES[0], 1, "out"), "sft");
    let expected = place.outcome("out");
    fs::remove_file(place.path("out/results.json")).expect("removed");
    damage(&place.path("out/checkpoints/step-000008"));
    let said = succeeded(&mut place.resume("out"), "sft");
    assert!(said.contains("out/checkpoints/step-000008: weights.safetensors is damaged"), "{said}");
    assert!(said.contains("going on after step 7 of 9"), "{said}");
    assert_eq!(place.outcome("out"), expected);
}

/// Cuts a file of a checkpoint.
fn damage(checkpoint: &Path) {
    let path = checkpoint.join("weights.safetensors");
    let bytes = fs::read(&path).expect("weights");
    fs::write(path, &bytes[..bytes.len() - 1]).expect("written");
}
