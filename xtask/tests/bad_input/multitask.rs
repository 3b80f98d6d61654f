//! Several tasks that do not fit their rows, their model or each other.

use crate::support::{Place, models};
use serde_json::json;

/// Texts, numbers and words for an encoder, and a configuration of two tasks.
fn place() -> Place {
    let place = Place::new();
    place.file("numbers.tsv", "text\tlabel\nthe sea\t1\nsnow\t0.5\nice\t0\n");
    place.file("names.conll", "the O\nsea B-LOC\n\nice O\n");
    place
}

/// Runs a configuration: these lines, after the model's.
fn refused(place: &Place, model: &str, lines: &str, words: &[&str]) {
    place.file("tasks.toml", format!("model = {:?}\n{lines}", models().join(model).display().to_string()));
    place.refused(&["multitask", "--config", "tasks.toml"], words);
}

const WARM: &str = "[tasks.warm.data]\ntrain = \"texts.tsv\"\n";

#[test]
fn tasks_that_are_no_tasks() {
    let place = place();
    for (lines, words) in [
        ("", vec!["tasks", "missing", "[tasks.NAME]"]),
        ("[tasks.warm]\nkind = \"translation\"\n", vec!["tasks.toml:3", "unknown variant `translation`", "token-classification"]),
        (&format!("{WARM}[tasks.warm]\nweight = 2.0\n[tasks.warm]\nweight = 1.0\n"), vec!["tasks.toml:6", "duplicate key"]),
        ("[tasks.warm]\nwieght = 1.0\n", vec!["tasks.toml:3", "unknown field `wieght`", "weight"]),
        ("[tasks.warm]\n", vec!["tasks.warm.data.train", "missing"]),
        ("[tasks.\"a b\".data]\ntrain = \"texts.tsv\"\n", vec!["tasks.\"a b\"", "letters, digits"]),
        (&format!("{WARM}held_out_share = 1.0\n"), vec!["tasks.warm.data.held_out_share", "found 1"]),
        (&format!("{WARM}[tasks.warm]\nweight = 0.0\n"), vec!["tasks.warm.weight", "found 0", "more than 0"]),
        (&format!("weighting = \"famo\"\n{WARM}[tasks.warm]\nweight = 2.0\n"), vec!["tasks.warm.weight", "found 2", "learnt"]),
        (&format!("{WARM}[tasks.warm]\nmasking.share = 1.5\n"), vec!["tasks.warm.masking.share", "found 1.5", "less than 1"]),
        (&format!("batch_rows = 0\n{WARM}"), vec!["batch_rows", "found 0"]),
        (&format!("temperature = 0.0\n{WARM}"), vec!["temperature", "found 0"]),
        (&format!("sampling = \"often\"\n{WARM}"), vec!["tasks.toml:2", "unknown variant `often`"]),
        (&format!("update.learning_rate = -1.0\n{WARM}"), vec!["update.learning_rate", "found -1"]),
    ] {
        refused(&place, "encoder", lines, &words);
    }
}

#[test]
fn rows_that_do_not_fit_their_task() {
    let place = place();
    let of = |kind: &str, file: &str| format!("{WARM}[tasks.other]\nkind = {kind:?}\n[tasks.other.data]\ntrain = {file:?}\n");
    place.file("empty.tsv", "text\tlabel\n");
    place.file("blank.jsonl", "{\"text\": \"the sea\"}\n{\"text\": \" \"}\n");
    for (kind, file, words) in [
        ("classification", "empty.tsv", ["empty.tsv", "no rows"]),
        ("classification", "nowhere.tsv", ["nowhere.tsv", "no such file"]),
        ("classification", "pairs.jsonl", ["pairs.jsonl", "\"label\""]),
        ("regression", "texts.tsv", ["texts.tsv:", "expected a number"]),
        ("token-classification", "texts.tsv", ["texts.tsv", "no column \"tokens\""]),
        ("next-token", "pairs.jsonl", ["tasks.other.kind", "an encoder cannot predict the next token"]),
        ("masked-token", "blank.jsonl", ["blank.jsonl:2", "\"text\" is empty"]),
        ("masked-token", "names.conll", ["names.conll", "no column \"text\""]),
    ] {
        refused(&place, "encoder", &of(kind, file), &words);
    }
    refused(&place, "decoder", &of("masked-token", "texts.tsv"), &["tasks.other.kind", "a decoder cannot predict hidden tokens"]);
    let long = "the sea is cold today and ".repeat(20);
    place.file("long.tsv", format!("text\tlabel\n{long}\tcold\nthe sun\twarm\nice\tcold\n"));
    refused(&place, "encoder", &of("classification", "long.tsv"), &["long.tsv:2", "32 positions", "truncate"]);
    refused(&place, "encoder", &format!("overlong = \"drop\"\n{}", of("regression", "nothing.tsv")), &["nothing.tsv"]);
}

/// A model of a class and tags, then used in the wrong way.
#[test]
fn heads_that_are_not_there() {
    let place = place();
    let tags = "[tasks.names]\nkind = \"token-classification\"\n[tasks.names.data]\ntrain = \"names.conll\"\nheld_out = \"names.conll\"\n";
    place.file("tasks.toml", format!("model = {:?}\n{WARM}{tags}", models().join("encoder").display().to_string()));
    let output = place.run(&["multitask", "--config", "tasks.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.refused(&["multitask", "--config", "tasks.toml"], &["--out", "out already holds", "choose another"]);
    let model = place.path("out/model").display().to_string();
    std::fs::rename(place.path("out"), place.path("kept")).expect("moved");
    let model = model.replace("out/model", "kept/model");
    let with = |command: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        [command.to_owned(), "--set".to_owned(), format!("model={model}")].into_iter().chain(sets).collect::<Vec<_>>()
    };
    place.file("both.jsonl", format!("{}\n", json!({"text": "the sea", "text_b": "ice"})));
    for (command, sets, words) in [
        ("export", vec!["task=cold", "output=one"], ["task", "found \"cold\", the model has \"names\", \"warm\""]),
        ("export", vec!["task=warm"], ["output", "missing"]),
        ("export", vec!["task=warm", "output=kept/model"], ["output", "already holds a model"]),
        ("predict", vec!["data=texts.tsv"], ["output", "missing"]),
        ("predict", vec!["data=texts.tsv", "output=said.csv"], ["output", "expected a .jsonl file"]),
        ("predict", vec!["data=both.jsonl", "output=said.jsonl"], ["both.jsonl", "the rows are pairs of texts, and no task"]),
        ("predict", vec!["data=texts.tsv", "output=said.jsonl", "columns.text=txt"], ["texts.tsv", "no column \"txt\""]),
    ] {
        place.refused(&with(command, &sets), &words);
    }
    let plain = format!("model={}", models().join("encoder").display());
    place.refused(&["predict", "--set", &plain, "--set", "data=texts.tsv", "--set", "output=said.jsonl"], &["heads.json", "no such file"]);

    // What can be done with it.
    for arguments in [with("predict", &["data=texts.tsv", "output=said.jsonl"]), with("export", &["task=names", "output=one"])] {
        let output = place.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let said = std::fs::read_to_string(place.path("said.jsonl")).expect("predictions");
    assert!(said.lines().count() == 6 && said.lines().all(|line| line.contains("\"probability\"") && line.contains("\"tags\"")), "{said}");
    assert!(place.path("one/config.json").is_file());
}
