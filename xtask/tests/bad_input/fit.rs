//! Audits of runs that are none, are not finished, or cannot say what is asked.

use crate::support::{Place, models};
use std::fs;

#[test]
fn what_cannot_be_audited_for_fit() {
    let place = Place::new();
    place.refused(&["audit", "fit", "nowhere"], &["nowhere", "no run is there", "manifest.json"]);
    place.trained("decoder", &["data.train=pairs.jsonl"]);
    fs::rename(place.path("out"), place.path("run")).expect("renamed");
    place.refused(&["audit", "fit", "run", "--set", "rows=0"], &["rows", "at least 1"]);
    place.refused(&["audit", "fit", "run", "--set", "row=5"], &["row"]);
    place.refused(&["audit", "fit", "run", "run", "--learning-curve"], &["--learning-curve", "name one"]);
    // A run without canaries has no exposure, whatever else it has.
    let output = place.run(&["audit", "fit", "run", "--fail-if", "exposure=5"]);
    let line = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.contains("nothing named \"exposure\" was measured; there are gap, membership-auc"), "{line}");
    fs::remove_dir_all(place.path("out")).expect("removed");
    let output = place.run(&["audit", "fit", "run", "--fail-if", "membership-auc=0"]);
    assert_eq!(output.status.code(), Some(1), "a limit that is exceeded is no bad input");
    fs::remove_dir_all(place.path("out")).expect("removed");
    fs::rename(place.path("run/results.json"), place.path("results.json")).expect("renamed");
    place.refused(&["audit", "fit", "run"], &["run", "not finished", "resume"]);
    fs::rename(place.path("results.json"), place.path("run/results.json")).expect("renamed");
    // Rows that are not what was trained on would be strangers taken for members.
    place.file("pairs.jsonl", "{\"prompt\": \"one\", \"completion\": \" two\"}\n{\"prompt\": \"three\", \"completion\": \" four\"}\n");
    place.refused(&["audit", "fit", "run"], &["pairs.jsonl was changed"]);
}

#[test]
fn canaries_that_cannot_be_planted() {
    let place = Place::new();
    place.decoder_refused(&["data.train=pairs.jsonl", "canaries.count=2"], &["canaries.count", "positions", "leave them out"]);
    place.decoder_refused(
        &["data.train=pairs.jsonl", "canaries.count=2", "canaries.repetitions=0"],
        &["canaries.repetitions", "at least 1"],
    );
    let sets = ["task=classification", "data.train=texts.tsv", "canaries.count=2"];
    place.sft_refused(&models().join("encoder"), &sets, &["canaries.count", "next-token"]);
}
