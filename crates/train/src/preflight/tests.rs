//! Each finding on rows that have exactly that fault, and none on rows that have none.

use super::rows::{Fields, check};
use super::tokens::{cut, special, stop};
use super::*;
use crate::updater::{UpdateConfig, Updater};
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::{Counts, Example, pack};
use kiln_data::rows::{Row, Table};
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::path::Path;

fn finding(name: &'static str, severity: Severity) -> Finding {
    let examples = vec!["a.tsv:3".into(), "a.tsv:7".into()];
    Finding { name, severity, count: 2, found: "2 of 9 rows are odd (22 %, more than 5 %)".into(), examples, advice: "mend them".into() }
}

#[test]
fn a_note_is_told_and_a_stop_stops_unless_forced() {
    let note = finding("odd-rows", Severity::Note);
    let line = "odd-rows: 2 of 9 rows are odd (22 %, more than 5 %), such as a.tsv:3, a.tsv:7; mend them";
    assert_eq!(settle(vec![note.clone()], false).unwrap(), [line]);
    assert!(settle(Vec::new(), false).unwrap().is_empty());
    let both = || vec![note.clone(), finding("worse-rows", Severity::Stop)];
    let error = settle(both(), false).unwrap_err().to_string();
    assert!(error.starts_with("pre-flight: worse-rows: 2 of 9") && error.ends_with("; or go on with --force"), "{error}");
    assert_eq!(settle(both(), true).unwrap().len(), 2);
}

#[test]
fn percentages_have_few_digits() {
    assert_eq!([percent(0, 9), percent(1, 4000), percent(1, 30), percent(2, 9)], ["0.0 %", "0.03 %", "3.3 %", "22 %"]);
    assert!(exceeds(6, 100, 0.05) && !exceeds(5, 100, 0.05));
}

/// A table of these rows, each a text and a class.
fn table(path: &str, rows: &[(String, &str)]) -> Table {
    let row = |(line, (text, class)): (usize, &(String, &str))| Row {
        line: line + 1,
        fields: [("text".to_owned(), json!(text)), ("label".to_owned(), json!(class))].into(),
    };
    Table { path: path.into(), columns: vec!["text".into(), "label".into()], rows: rows.iter().enumerate().map(row).collect() }
}

const KINDS: [&str; 6] = ["storm", "harvest", "market", "harbour", "wedding", "election"];
const PLACES: [&str; 8] = ["Lisbon", "Oslo", "Quito", "Cairo", "Hanoi", "Perth", "Lima", "Riga"];
const ENDS: [&str; 7] = ["was late", "went well", "cost too much", "drew a crowd", "was called off", "ran for days", "surprised everyone"];

/// Rows that share words and no more, of two classes.
fn good(n: usize, from: usize) -> Vec<(String, &'static str)> {
    let row = |index: usize| {
        let (kind, place, end) = (KINDS[index % 6], PLACES[index / 6 % 8], ENDS[index / 48 % 7]);
        (format!("the {kind} of {place} in the year {} {end}", 1700 + index), if index.is_multiple_of(3) { "bad" } else { "good" })
    };
    (from..from + n).map(row).collect()
}

/// Rows of a text and a class.
fn of_class(_: &Table) -> Fields<'static> {
    Fields { texts: vec!["text"], class: Some("label") }
}

/// Rows of a text.
fn of_text(_: &Table) -> Fields<'static> {
    Fields { texts: vec!["text"], class: None }
}

/// The names and severities of what is found.
fn found(train: &[(String, &str)], held_out: &[(String, &str)]) -> Vec<(&'static str, Severity, usize)> {
    let [train, held_out] = [table("train.tsv", train), table("test.tsv", held_out)];
    let findings = check(&[train], &[held_out], &of_class).unwrap();
    findings.iter().for_each(|finding| println!("{finding}"));
    findings.into_iter().map(|finding| (finding.name, finding.severity, finding.count)).collect()
}

#[test]
fn good_rows_are_quiet() {
    assert_eq!(found(&good(300, 0), &good(36, 300)), []);
}

#[test]
fn empty_rows() {
    let (mut train, held_out) = (good(300, 0), good(36, 300));
    train[7].0 = " \t".into();
    assert_eq!(found(&train, &held_out), [("empty-rows", Severity::Note, 1)]);
    train.iter_mut().take(5).for_each(|row| row.0.clear());
    assert_eq!(found(&train, &held_out), [("empty-rows", Severity::Stop, 6)]);
}

#[test]
fn rows_that_are_there_twice() {
    let (mut train, held_out) = (good(300, 0), good(36, 300));
    train.extend(good(10, 0));
    assert_eq!(found(&train, &held_out), [], "3 % are natural");
    train.extend(good(10, 50).into_iter().map(|(text, class)| (text.to_uppercase() + "!", class)));
    assert_eq!(found(&train, &held_out), [("duplicate-rows", Severity::Note, 20)]);
    train.extend(good(270, 20));
    assert_eq!(found(&train, &held_out), [("duplicate-rows", Severity::Stop, 290)]);
}

#[test]
fn rows_that_are_there_nearly_twice() {
    let (mut train, held_out) = (good(300, 0), good(36, 300));
    train.extend(good(60, 0).into_iter().map(|(text, class)| (text + " x", class)));
    assert_eq!(found(&train, &held_out), [("near-duplicate-rows", Severity::Note, 60)]);
}

#[test]
fn held_out_rows_that_train() {
    let (mut train, held_out) = (good(300, 0), good(100, 300));
    train.extend(good(1, 300));
    assert_eq!(found(&train, &held_out), [], "1 % is natural");
    train.extend(good(3, 310));
    assert_eq!(found(&train, &held_out), [("leaked-rows", Severity::Note, 4)]);
    train.extend(good(8, 320));
    assert_eq!(found(&train, &held_out), [("leaked-rows", Severity::Stop, 12)]);
}

#[test]
fn held_out_rows_that_nearly_train() {
    let (mut train, held_out) = (good(900, 0), good(100, 900));
    let near = |n| good(n, 900).into_iter().map(|(text, class)| (text + " x", class));
    train.extend(near(6));
    assert_eq!(found(&train, &held_out), [("near-leaked-rows", Severity::Note, 6)]);
    train.extend(near(30).skip(6));
    assert_eq!(found(&train, &held_out), [("near-leaked-rows", Severity::Stop, 30)]);
}

#[test]
fn labels_against_each_other() {
    let (mut train, held_out) = (good(300, 0), good(36, 300));
    let turned = |n| good(n, 0).into_iter().map(|(text, class)| (text, if class == "bad" { "good" } else { "bad" }));
    train.extend(turned(6));
    assert_eq!(found(&train, &held_out), [("conflicting-labels", Severity::Note, 6)]);
    train.extend(turned(60).skip(6));
    assert_eq!(found(&train, &held_out), [("conflicting-labels", Severity::Stop, 60)]);
}

#[test]
fn classes_that_cannot_be_learnt() {
    let (mut train, mut held_out) = (good(300, 0), good(36, 300));
    held_out[4].1 = "neutral";
    assert_eq!(found(&train, &held_out), [("untrained-classes", Severity::Stop, 1)]);
    held_out[4].1 = "good";
    train.iter_mut().skip(10).for_each(|row| row.1 = "good");
    assert_eq!(found(&train, &held_out), [("one-sided-labels", Severity::Note, 296)]);
}

#[test]
fn findings_name_at_most_three_places() {
    let (mut train, held_out) = (good(300, 0), good(36, 300));
    train.iter_mut().take(9).for_each(|row| row.0.clear());
    let [train, held_out] = [table("train.tsv", &train), table("test.tsv", &held_out)];
    let findings = check(&[train], &[held_out], &of_class).unwrap();
    assert_eq!(
        findings[0].to_string(),
        "empty-rows: 9 of 336 rows have no text (2.7 %; the limit is 1 %), such as train.tsv:1, train.tsv:2, train.tsv:3; fill them or leave them out"
    );
}

#[test]
fn held_out_rows_of_other_columns_are_not_compared() {
    let scored = Row { line: 1, fields: [("anchor".to_owned(), json!("a")), ("score".to_owned(), json!(1))].into() };
    let judge = Table { path: "scored.jsonl".into(), columns: vec!["anchor".into(), "score".into()], rows: vec![scored; 30] };
    let texts = table("texts.tsv", &good(300, 0));
    assert_eq!(check(&[texts], &[judge], &of_text).unwrap(), []);
}

/// Names of speakers repeat in a play; its lines do not.
#[test]
fn short_lines_of_running_text_may_repeat() {
    let lines: Vec<(String, &str)> = good(100, 0).into_iter().flat_map(|row| [("KING RICHARD:".to_owned(), "x"), row]).collect();
    let play = table("play.txt", &lines);
    let rows = Table { path: "play.jsonl".into(), ..play.clone() };
    assert_eq!(check(&[play], &[], &of_text).unwrap(), []);
    assert_eq!(check(&[rows], &[], &of_text).unwrap()[0].name, "duplicate-rows");
}

#[test]
fn conversations_and_words_are_texts() {
    let row = |line, value: Value| Row { line, fields: [("messages".to_owned(), value)].into() };
    let said = |text: &str| json!([{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]);
    let text = |row: &Row| kiln_data::rows::text_of(row, &["messages", "missing"]);
    assert_eq!(text(&row(1, said("is it?"))), "is it? yes");
    assert_eq!(text(&row(2, json!(["in", "Ys"]))), "in Ys");
}

#[test]
fn what_a_limit_cuts() {
    let counts = Counts {
        n_rows: 100,
        n_truncated: 2,
        n_tokens: 1000,
        n_tokens_cut: 5,
        n_targets_cut: 5,
        lines_cut: [4, 9, 0],
        ..Counts::default()
    };
    let path = Path::new("train.jsonl");
    let of = |counts: &Counts, n_targets| cut(path, &Counts { n_targets, ..*counts }).map(|finding| (finding.severity, finding.count));
    assert_eq!(of(&counts, 995), None, "half a percent");
    assert_eq!(of(&counts, 300), Some((Severity::Note, 2)), "of the targets 1.6 %");
    assert_eq!(of(&counts, 30), Some((Severity::Stop, 2)), "of the targets 14 %");
    let line = cut(path, &Counts { n_targets: 30, ..counts }).unwrap().to_string();
    let expected = "cut-tokens: 2 of 100 rows are cut: 5 of 1005 tokens (0.5 %), 5 of 35 targets (14 %) (the limit is 10 %), such as train.jsonl:4, train.jsonl:9; ";
    assert!(line.starts_with(expected), "{line}");
    let dropped = Counts { n_dropped: 30, n_truncated: 0, n_tokens_cut: 0, n_targets_cut: 0, ..counts };
    assert_eq!(of(&dropped, 0), Some((Severity::Stop, 30)));
}

#[test]
fn a_stop_token_that_is_never_learnt() {
    let row = |ends: bool| Example::from(vec![5, 6, 7, if ends { 2 } else { 8 }], 2);
    let of = |n_ending: usize, n_others: usize| {
        let rows: Vec<Example> = (0..n_ending + n_others).map(|index| row(index < n_ending)).collect();
        stop(Path::new("train.jsonl"), &rows, &[2, 3]).map(|finding| (finding.severity, finding.count))
    };
    assert_eq!(of(10, 1), None);
    assert_eq!(of(10, 5), Some((Severity::Note, 5)));
    assert_eq!(of(0, 5), Some((Severity::Stop, 5)));
    // Before the loss begins it teaches nothing.
    let early = Example::from(vec![5, 2, 7, 8], 2);
    assert!(stop(Path::new("train.jsonl"), [&early], &[2]).is_some());
}

/// 300 rows of 40 bytes and one that nearly repeats the last: among the first 4 000 bytes it is not looked for.
#[test]
fn rows_beyond_the_limit_are_not_compared() {
    let mut rows = good(300, 0);
    rows.extend(good(60, 240).into_iter().map(|(text, class)| (text + " x", class)));
    let train = [table("train.tsv", &rows)];
    let names = |near_bytes| {
        let findings = rows::check_within(&train, &[], &of_text, near_bytes).unwrap();
        findings.iter().map(|finding| (finding.name, finding.count)).collect::<Vec<_>>()
    };
    assert_eq!(names([1 << 20, 1 << 20]), [("near-duplicate-rows", 60)]);
    let left = match names([4000, 4000])[..] {
        [("rows-not-compared", left)] => left,
        ref others => panic!("{others:?}"),
    };
    assert!((240..280).contains(&left), "{left} of 360 rows are not compared");
    let line = rows::check_within(&train, &[], &of_text, [4000, 2048]).unwrap()[0].to_string();
    assert!(
        line.ends_with(" training and 0 held-out rows only (the limits are 3.9 KiB and 2.0 KiB of text); the others were compared exactly"),
        "{line}"
    );
}

/// A fault between two files, or in the second alone, is found as one within a file.
#[test]
fn every_training_file_is_looked_at() {
    let halves = [table("a.tsv", &good(150, 0)), table("b.tsv", &good(150, 0))];
    let findings = check(&halves, &[], &of_class).unwrap();
    assert_eq!(findings.iter().map(|finding| (finding.name, finding.count)).collect::<Vec<_>>(), [("duplicate-rows", 150)]);
    assert_eq!(findings[0].examples[0], "b.tsv:1 (a.tsv:1)");
    // What is text is said for each file.
    let mut asked = table("asked.jsonl", &good(150, 150));
    asked.columns[0] = "prompt".into();
    asked.rows.iter_mut().for_each(|row| {
        let text = row.fields.remove("text").unwrap();
        row.fields.insert("prompt".into(), text);
    });
    asked.rows[7].fields.insert("prompt".into(), json!(""));
    let of_either = |table: &Table| Fields { texts: vec![if table.has("prompt") { "prompt" } else { "text" }], class: None };
    let findings = check(&[table("a.tsv", &good(150, 0)), asked], &[], &of_either).unwrap();
    assert_eq!(
        findings.iter().map(|finding| (finding.name, finding.examples[0].as_str())).collect::<Vec<_>>(),
        [("empty-rows", "asked.jsonl:8")]
    );
}

#[test]
fn special_tokens_in_a_text() {
    let texts: Vec<String> = good(300, 0).into_iter().map(|row| row.0).collect();
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 400).unwrap();
    let name = tokenizer.special_ids().iter().find_map(|&id| tokenizer.token(id)).unwrap();
    let find = |rows: &[(String, &str)]| special(&[&table("train.tsv", rows)], &of_text, &tokenizer).unwrap();
    let mut rows = good(300, 0);
    assert_eq!(find(&rows), None);
    rows[4].0 += &format!(" {name} and more");
    rows[9].0.insert_str(0, &name);
    let finding = find(&rows).unwrap();
    assert_eq!((finding.name, finding.severity, finding.count), ("special-tokens", Severity::Note, 2));
    let expected = format!(
        "special-tokens: 2 of 300 rows write special tokens of the tokenizer in their text (0.7 %; the limit is 0), such as {name:?} (train.tsv:5), {name:?} (train.tsv:10); "
    );
    assert!(finding.to_string().starts_with(&expected), "{finding}");
}

/// What the forecast says an optimizer remembers is what it holds after a step.
#[test]
fn every_optimizer_remembers_what_is_forecast() {
    let Value::Object(keys) = json!({
        "model_type": "llama", "vocab_size": 60, "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 2, "hidden_act": "silu", "tie_word_embeddings": true,
    }) else {
        unreachable!()
    };
    let shape = ModelConfig::from_json(keys, Path::new("config.json")).unwrap();
    let device = kiln_core::device::by_name("flex").unwrap().autodiff();
    let mut found = Vec::new();
    for name in ["adamw", "adafactor", "lion", "muon", "sgd"] {
        let config: UpdateConfig = toml::from_str(&format!("optimizer = {{name = \"{name}\"}}")).unwrap();
        let model = LanguageModel::new(shape.clone(), &device, Key::new(0)).unwrap();
        let forecast = config.optimizer.n_remembered(&model);
        let mut updater = Updater::new(config, 1);
        let (packed, supervised) = pack(&[&Example::from((3..20).collect(), 1)]);
        updater.add(&model, model.loss(&packed, &supervised, None).backward(), 16.0);
        updater.step(model, 1.0).unwrap();
        let held: usize = updater.state().moments.values().flat_map(|(_, moments)| moments).map(|tensor| tensor.dims()[0]).sum();
        assert_eq!(held, forecast, "{name}");
        found.push(forecast);
    }
    let n = found[2];
    assert!(found[0] == 2 * n && found[1] < n / 4 && n < found[3] && found[3] < 2 * n && found[4] == n, "{found:?}");
}
