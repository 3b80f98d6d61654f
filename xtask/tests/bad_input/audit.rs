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
