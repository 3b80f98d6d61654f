//! Audits of files and settings that are bad.

use crate::support::{Place, models};
use std::fs;

impl Place {
    fn audit_refused(&self, arguments: &[&str], words: &[&str]) {
        self.refused(&[&["audit"], arguments].concat(), words);
    }

    /// Settings of a fine-tuning of the encoder.
    fn training(&self, task: &str) {
        let model = models().join("encoder");
        self.file("sft.toml", format!("model = {:?}\ntask = {task:?}\n", model.display().to_string()));
    }
}

#[test]
fn of_data() {
    let place = Place::new();
    place.audit_refused(&["data", "none.tsv"], &["none.tsv", "no such file"]);
    place.audit_refused(&["data", "texts.tsv", "--set", "columns.text=body"], &["no column \"body\"", "columns.text"]);
    place.audit_refused(&["data", "texts.tsv", "--set", "wrong_from=2"], &["wrong_from", "found 2", "from 0 to 1"]);
    place.audit_refused(&["data", "texts.tsv", "--set", "remove=[\"order\"]"], &["remove", "order", "about the file"]);
    place.audit_refused(&["data", "texts.tsv", "--clean", "texts.tsv"], &["--clean", "the file that is read", "another name"]);
    place.audit_refused(&["data", "texts.tsv", "--model", "nowhere/here"], &["nowhere/here"]);
}

#[test]
fn of_the_rows_of_a_run() {
    let place = Place::new();
    place.audit_refused(&["data", "nowhere"], &["nowhere", "no run is there", "manifest.json"]);
    place.file("more.txt", "the hill is warm\nice on the hill\na fire on the sea\n");
    place.trained("decoder", &["data.train=[\"lines.txt\", \"more.txt\"]", "block_tokens=8", "force=true"]);
    fs::rename(place.path("out"), place.path("run")).expect("renamed");
    place.audit_refused(&["data", "run", "--clean", "clean.txt"], &["--clean", "run was trained on 2 files", "name the one to clean"]);
    place.audit_refused(&["data", "run", "--held-out", "none.txt"], &["none.txt", "no such file"]);
    place.audit_refused(&["data", "run", "--set", "columns.body=text"], &["columns.body"]);
    let output = place.run(&["audit", "data", "run", "--fail-if", "copies=0"]);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && line.contains("nothing named \"copies\" was measured"), "{line}");
    fs::remove_dir_all(place.path("out")).expect("removed");
    let output = place.run(&["audit", "data", "run", "--held-out", "more.txt", "--fail-if", "leakage=0"]);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && line.contains("more.txt: leakage is 3"), "{line}");
    fs::remove_dir_all(place.path("out")).expect("removed");
    fs::rename(place.path("run/results.json"), place.path("results.json")).expect("renamed");
    place.audit_refused(&["data", "run"], &["run", "not finished", "resume"]);
    fs::rename(place.path("results.json"), place.path("run/results.json")).expect("renamed");
    place.file("more.txt", "the hill is warm\n");
    place.audit_refused(&["data", "run"], &["more.txt was changed since the run began"]);
    fs::remove_file(place.path("more.txt")).expect("removed");
    place.audit_refused(&["data", "run"], &["a file of the run cannot be read", "more.txt"]);
}

#[test]
fn by_fine_tuning() {
    let place = Place::new();
    let audit = |words: &[&str]| place.audit_refused(&["data", "texts.tsv", "--fine-tune", "sft.toml"], words);
    audit(&["sft.toml", "No such file"]);
    place.training("next-token");
    audit(&["task", "no labels", "token-classification"]);
    place.training("classification");
    audit(&["texts.tsv", "6 rows are too few for 5 folds", "set folds"]);
    place.training("token-classification");
    place.audit_refused(&["data", "texts.tsv", "--fine-tune", "sft.toml", "--set", "folds=2"], &["no column \"tokens\"", "columns.tokens"]);
}

#[test]
fn a_model_may_know_more_classes_than_the_file() {
    let place = Place::new();
    place.file("sft.toml", format!("model = {:?}\ntask = \"classification\"\n", models().join("classifier").display().to_string()));
    place.file("cold.tsv", "text\tlabel\nthe sea is cold\tcold\nice on the sea\tcold\nsnow on the hill\tcold\nthe hill is cold\tcold\n");
    let output = place.run(&["audit", "data", "cold.tsv", "--fine-tune", "sft.toml", "--set", "folds=2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn fine_tuning_in_folds_leaves_an_audit() {
    let place = Place::new();
    place.training("classification");
    let output = place.run(&["audit", "data", "texts.tsv", "--fine-tune", "sft.toml", "--set", "folds=2", "--clean", "clean.tsv"]);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{errors}");
    assert!(text.contains("label-errors") && !text.contains("not looked for   label-errors"), "{text}");
    let results = fs::read_to_string(place.path("out/results.json")).expect("results");
    assert!(results.contains("classifier_accuracy"), "{results}");
}

#[test]
fn benchmarks_that_cannot_be_asked() {
    let place = Place::new();
    let decoder = models().join("decoder").display().to_string();
    let asked = |benchmark: &str, words: &[&str]| place.refused(&["audit", "bias", &decoder, "--benchmark", benchmark], words);
    asked("crows", &["--benchmark crows", "expected NAME=PATH"]);
    asked("crows=x.csv", &["no such benchmark", "crows-pairs, stereoset, winobias, winogender, weat, bbq, bold"]);
    asked("crows-pairs=none.csv", &["none.csv", "no such file"]);
    asked("crows-pairs=texts.tsv", &["texts.tsv", "sent_more"]);
    place.file("pairs.csv", "sent_more,sent_less,stereo_antistereo,bias_type\na b,a c,neither,age\n");
    asked("crows-pairs=pairs.csv", &["pairs.csv:2", "stereo_antistereo", "\"neither\""]);
    let long = "the sea is cold ".repeat(30);
    place.file("pairs.csv", format!("sent_more,sent_less,stereo_antistereo,bias_type\n{long},a c,stereo,age\n"));
    asked("crows-pairs=pairs.csv", &["decoder", "tokens, the model at most 32"]);
    asked("winobias=none", &["--benchmark winobias", "pro_stereotyped_type1.txt.dev"]);
    asked("winogender=none", &["occupations-stats.tsv", "no such file"]);
    place.file("dev.json", r#"{"data": {"intrasentence": []}}"#);
    asked("stereoset=dev.json", &["dev.json", "no example"]);
    fs::create_dir(place.path("sets")).expect("a folder");
    asked("weat=sets", &["sets", "no .jsonl file"]);
    place.file(
        "weat.jsonl",
        r#"{"targ1": {"examples": ["a"]}, "targ2": {"examples": ["b", "c"]}, "attr1": {"examples": ["d"]}, "attr2": {"examples": ["e"]}}"#,
    );
    asked("weat=weat.jsonl", &["weat.jsonl", "targ1 has 1 examples, expected at least 2"]);

    place.file("bbq.jsonl", "{\"category\": \"Age\"}\n");
    asked("bbq=bbq.jsonl", &["bbq.jsonl:1", "no question of BBQ"]);
    asked("bold=none", &["none", "no such"]);
    asked(&format!("bold={decoder}"), &["is no classifier of texts"]);

    let classifier = models().join("classifier").display().to_string();
    place.file("pairs.csv", "sent_more,sent_less,stereo_antistereo,bias_type\na b,a c,stereo,age\n");
    place.refused(&["audit", "bias", &classifier, "--benchmark", "crows-pairs=pairs.csv"], &["classifier", "no head that predicts tokens"]);
    let both = ["audit", "bias", &decoder, "--benchmark", "crows-pairs=pairs.csv", "--before", &classifier];
    place.refused(&both, &["before", "cosine", "cannot be compared"]);
    place.refused(&["audit", "bias", "texts.tsv", "--before", &decoder], &["before", "there is no model to ask"]);
}

#[test]
fn templates_that_cannot_be_asked() {
    let place = Place::new();
    let classifier = models().join("classifier").display().to_string();
    let decoder = models().join("decoder").display().to_string();
    place.refused(&["audit", "bias", "texts.tsv", "--templates"], &["templates", "there is no model to ask"]);
    place.refused(&["audit", "bias", &decoder, "--templates"], &["is no classifier of texts"]);
    let file = |text: &str, words: &[&str]| {
        place.file("words.toml", text);
        place.refused(&["audit", "bias", &classifier, "--templates=words.toml"], words);
    };
    place.refused(&["audit", "bias", &classifier, "--templates=none.toml"], &["none.toml", "No such file"]);
    file("templates = [\"the man came\"]\n", &["words.toml", "\"the man came\"", "no {}"]);
    file("[groups.age]\nold = [\"a\", \"b\"]\nyoung = [\"c\"]\n", &["words.toml", "groups.age", "as many words"]);
    file("groups = 3\n", &["words.toml:1", "expected a map"]);
}
