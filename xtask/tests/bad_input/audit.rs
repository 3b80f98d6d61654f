//! Audits that cannot be made.

use crate::support::{Place, models};
use std::fs;

#[test]
fn benchmarks_that_cannot_be_asked() {
    let place = Place::new();
    let decoder = models().join("decoder").display().to_string();
    let asked = |benchmark: &str, words: &[&str]| place.refused(&["audit", "bias", &decoder, "--benchmark", benchmark], words);
    asked("crows", &["--benchmark crows", "expected NAME=PATH"]);
    asked("crows=x.csv", &["no such benchmark", "crows-pairs, stereoset, winobias, winogender, weat"]);
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

    let classifier = models().join("classifier").display().to_string();
    place.file("pairs.csv", "sent_more,sent_less,stereo_antistereo,bias_type\na b,a c,stereo,age\n");
    place.refused(&["audit", "bias", &classifier, "--benchmark", "crows-pairs=pairs.csv"], &["classifier", "no head that predicts tokens"]);
    let both = ["audit", "bias", &decoder, "--benchmark", "crows-pairs=pairs.csv", "--before", &classifier];
    place.refused(&both, &["before", "cosine", "cannot be compared"]);
    place.refused(&["audit", "bias", "texts.tsv", "--before", &decoder], &["before", "there is no model to ask"]);
}
