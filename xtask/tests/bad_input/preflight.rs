//! Rows and settings that are readable, but probably not what was meant: the pre-flight stops, and `--force` goes on.

use super::support::{Place, SENTENCES, arguments, models};
use serde_json::json;
use std::fs;

const CLASSIFICATION: &str = "task=classification";

/// Rows that have nothing in common, of two classes.
pub fn rows(from: usize, n: usize) -> Vec<(String, &'static str)> {
    let words =
        |seed: usize| (0..4).map(|word| format!("{:x}", (seed * 4 + word + 7) * 2_654_435_761 % 1_048_573)).collect::<Vec<_>>().join(" ");
    (from..from + n).map(|row| (words(row), if row.is_multiple_of(3) { "cold" } else { "warm" })).collect()
}

fn tsv(rows: &[(String, &str)]) -> String {
    let lines: Vec<String> = rows.iter().map(|(text, label)| format!("{text}\t{label}\n")).collect();
    format!("text\tlabel\n{}", lines.concat())
}

impl Place {
    /// Fine-tuning on `train`, judged by 100 other rows or by `held_out`, is refused with these words, and goes on when forced.
    fn stopped(&self, train: &[(String, &str)], held_out: Option<&[(String, &str)]>, words: &[&str]) {
        self.file("train.tsv", tsv(train));
        self.file("test.tsv", held_out.map_or_else(|| tsv(&rows(5000, 100)), tsv));
        let sets = [CLASSIFICATION, "data.train=train.tsv", "data.held_out=test.tsv"];
        let all: Vec<&str> = ["pre-flight", "--force"].iter().chain(words).copied().collect();
        self.sft_refused(&models().join("encoder"), &sets, &all);
        let mut forced = arguments("sft", &models().join("encoder"), &sets);
        forced.push("--force".to_owned());
        let output = self.run(&forced);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(text.contains(words[0]), "still told: {text}");
        fs::remove_dir_all(self.path("out")).expect("removed");
    }
}

#[test]
fn good_rows_say_nothing() {
    let place = Place::new();
    place.file("train.tsv", tsv(&rows(0, 200)));
    place.file("test.tsv", tsv(&rows(5000, 100)));
    let text = place.trained("encoder", &[CLASSIFICATION, "data.train=train.tsv", "data.held_out=test.tsv"]);
    let names = ["-rows:", "-labels:", "-classes:", "-tokens:", "learning-rate:", "memory:"];
    assert!(names.iter().all(|name| !text.contains(name)), "{text}");
}

#[test]
fn held_out_rows_that_train() {
    let place = Place::new();
    let train = rows(0, 200);
    let held_out: Vec<_> = rows(5000, 90).into_iter().chain(rows(50, 12)).collect();
    place.stopped(&train, Some(&held_out), &["leaked-rows", "12 of 102 held-out rows", "5 %", "test.tsv:92 (train.tsv:52)"]);
}

#[test]
fn a_file_joined_to_itself() {
    let train: Vec<_> = rows(0, 150).into_iter().chain(rows(0, 150)).collect();
    Place::new().stopped(&train, None, &["duplicate-rows", "150 of 300 training rows", "45 %", "train.tsv:152 (train.tsv:2)"]);
}

#[test]
fn rows_without_text() {
    let mut train = rows(0, 200);
    train.iter_mut().take(5).for_each(|row| row.0.clear());
    Place::new().stopped(&train, None, &["empty-rows", "5 of 300 rows", "1 %", "train.tsv:2"]);
}

#[test]
fn labels_against_each_other() {
    let turned = |row: (String, &'static str)| (row.0, if row.1 == "cold" { "warm" } else { "cold" });
    let train: Vec<_> = rows(0, 200).into_iter().chain(rows(0, 40).into_iter().map(turned)).collect();
    Place::new().stopped(&train, None, &["conflicting-labels", "40 of 240 training rows", "10 %", "train.tsv:202 (train.tsv:2)"]);
}

#[test]
fn a_class_that_is_only_held_out() {
    let place = Place::new();
    let (train, held_out): (Vec<_>, Vec<_>) = (rows(0, 200), rows(5000, 100));
    let train: Vec<_> = train.into_iter().map(|(text, _)| (text, "warm")).collect();
    // The classifier knows both.
    place.file("train.tsv", tsv(&train));
    place.file("test.tsv", tsv(&held_out));
    let sets = [CLASSIFICATION, "data.train=train.tsv", "data.held_out=test.tsv"];
    let output = place.run(&arguments("sft", &models().join("classifier"), &sets));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("one-sided-labels: 200 of 200") && lines[1].starts_with("error: pre-flight: untrained-classes:"),
        "{text}"
    );
    assert!(!place.path("out").exists());
}

#[test]
fn completions_that_are_cut() {
    let place = Place::new();
    let long = "the sea is cold today and ".repeat(8);
    let row = |completion: &str| format!("{}\n", json!({"prompt": "the sun", "completion": completion}));
    place.file("long.jsonl", (0..10).map(|_| row(&long)).collect::<String>());
    place.file("short.jsonl", SENTENCES.map(&row).concat());
    let sets = ["data.train=long.jsonl", "data.held_out=short.jsonl", "overlong=truncate"];
    let output = place.run(&arguments("sft", &models().join("decoder"), &sets));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        ["cut-tokens: 10 of 10 rows are cut", "long.jsonl:1", "stop-token-untrained: in 10 of 10 rows"]
            .iter()
            .all(|words| text.contains(words)),
        "{text}"
    );
}

#[test]
fn plans_find_the_same_and_write_nothing() {
    let place = Place::new();
    place.file("train.tsv", tsv(&rows(0, 200)));
    place.file("test.tsv", tsv(&rows(0, 100)));
    let mut plan = arguments("sft", &models().join("encoder"), &[CLASSIFICATION, "data.train=train.tsv", "data.held_out=test.tsv"]);
    plan.insert(0, "plan".to_owned());
    let before = super::files(&place.path(""));
    let output = place.run(&plan);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["200 train, 100 held out", "memory ", "time ", "leaked-rows: 100 of 100 held-out rows"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(super::files(&place.path("")), before);
}

#[test]
fn plans_know_what_is_frozen() {
    let place = Place::new();
    place.file("train.tsv", tsv(&rows(0, 200)));
    let planned = |groups: &str| {
        let mut plan = arguments("sft", &models().join("encoder"), &[CLASSIFICATION, "data.train=train.tsv", groups]);
        plan.insert(0, "plan".to_owned());
        let output = place.run(&plan);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().find(|line| line.starts_with("trains")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let frozen = planned("update.groups=[{pattern=\"embeddings\", frozen=true}]");
    assert_ne!(frozen, planned("update.groups=[]"), "fewer train");
}

#[test]
fn settings_of_another_kind_of_training_are_told() {
    let place = Place::new();
    let text = place.trained("decoder", &["data.train=pairs.jsonl", "update.learning_rate=0.1"]);
    assert!(text.contains("learning-rate: update.learning_rate is 1e-1; all weights are usually trained with 1e-7 to 2e-3"), "{text}");
    assert!(text.contains("few-held-out-rows: 1 rows are held out"), "{text}");
}
