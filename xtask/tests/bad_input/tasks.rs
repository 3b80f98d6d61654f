//! Rows that do not fit their task.

use crate::support::{Place, arguments, models};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const REGRESSION: &str = "task=regression";
const TAGS: &str = "task=token-classification";
const PREFERENCE: &str = "task=preference";

fn encoder() -> PathBuf {
    models().join("encoder")
}

#[test]
fn numbers_that_are_none() {
    let place = Place::new();
    let train = |name: &str| format!("data.train={name}");
    place.sft_refused(&encoder(), &[REGRESSION, &train("texts.tsv")], &["texts.tsv:", "\"label\" is \"", "expected a number"]);
    place.file("same.tsv", "text\tlabel\nthe sea\t2\nsnow\t2.0\n");
    place.sft_refused(&encoder(), &[REGRESSION, &train("same.tsv")], &["same.tsv", "only the number 2"]);
    place.file("numbers.tsv", "text\tlabel\nthe sea\t1\nsnow\t0.5\nice\t0\n");
    let classifier = models().join("classifier");
    place.sft_refused(&classifier, &[REGRESSION, &train("numbers.tsv")], &["into 2 classes", "a regression has one output"]);
}

#[test]
fn files_of_no_layout() {
    let place = Place::new();
    place.file("asked.json", "[\n {\"question\": \"2+3?\",\n  \"answer\": \"5\"}\n]\n");
    let words = ["asked.json", "\"question\", \"answer\"", "alpaca (instruction, output)", "columns.prompt"];
    place.decoder_refused(&["data.train=asked.json"], &words);
    place.file("asked.json.gz", "not compressed");
    place.decoder_refused(&["data.train=asked.json.gz"], &["asked.json.gz: cannot be unpacked"]);
    place.file("asked.parquet", "PAR1, but no more");
    place.decoder_refused(&["data.train=asked.parquet"], &["asked.parquet: cannot be read as Parquet"]);
    place.decoder_refused(&["data.train=[{path=\"pairs.jsonl\", weight=0}]"], &["data.train.weight: found 0"]);
    place.decoder_refused(&["data.train=[\"pairs.jsonl\", \"none.jsonl\"]"], &["none.jsonl: there is no such file"]);
    place.decoder_refused(&["data.train=pairs.jsonl", "data.held_out=org/none"], &["data.held_out: org/none names no split"]);
}

/// Every method has the same settings of validation, and says the same of those that make no sense.
#[test]
fn validations_that_make_no_sense() {
    let place = Place::new();
    place.file("lines.jsonl", "{\"text\": \"the sea\"}\n{\"text\": \"snow\"}\n{\"text\": \"ice\"}\n");
    let general = "general={train=\"lines.jsonl\", validation=\"lines.jsonl\"}";
    for (method, model, sets, key) in [
        ("sft", "decoder", vec!["data.train=pairs.jsonl"], "data"),
        ("contrastive", "encoder", vec!["objective=mlm", "data.train=lines.jsonl"], "data"),
        ("continual", "decoder", vec!["domains=[{train=\"lines.jsonl\"}]"], "domains"),
        ("multitask", "encoder", vec!["tasks.a.data.train=texts.tsv"], "tasks.a.data"),
        ("rl", "decoder", vec!["data.train=pairs.jsonl", "rewards=[{kind=\"regex\", pattern=\"a\"}]"], "data"),
    ] {
        let refused = |more: &[&str], words: &[&str]| {
            place.refused(&arguments(method, &models().join(model), &[sets.as_slice(), more].concat()), words);
        };
        refused(&["validation.patience=2"], &["validation.patience: found 2, but nothing is validated", "data.validation"]);
        refused(&["update.schedule=plateau"], &["update.schedule", "this run is not validated"]);
        refused(&["validation.share=nan"], &["validation.share: found NaN"]);
        if method != "continual" {
            let file = format!("{key}.validation=lines.jsonl");
            let both = format!("{key}.validation: found lines.jsonl, and validation.share = 0.5 too: leave one of them out");
            refused(&[&file, "validation.share=0.5"], &[&both]);
        }
    }
    let domains = "domains=[{train=\"lines.jsonl\", validation=\"lines.jsonl\"}, {name=\"b\", train=\"lines.jsonl\"}]";
    place.refused(&arguments("continual", &models().join("decoder"), &[domains]), &["domains.validation: missing", "name a file here too"]);
    let adapt = ["data.train=lines.jsonl", general];
    place.refused(&arguments("adapt", &models().join("decoder"), &adapt), &["general.validation", "leave it out"]);
}

#[test]
fn pairs_judged_by_single_texts() {
    let place = Place::new();
    place.file("pairs.tsv", "text\ttext_b\tlabel\nthe sea\tice\t1\nsnow\tthe sun\t0\n");
    place.file("single.tsv", "text\tlabel\nthe sea\t1\nsnow\t0\n");
    for (train, held_out) in [("pairs.tsv", "single.tsv"), ("single.tsv", "pairs.tsv")] {
        let sets = ["task=classification", &format!("data.train={train}"), &format!("data.held_out={held_out}")];
        place.sft_refused(&encoder(), &sets, &["single.tsv", "no column \"text_b\"", "name the right one with columns.text_b"]);
    }
}

#[test]
fn tags_that_do_not_fit() {
    let place = Place::new();
    let refused = |content: &str, words: &[&str]| {
        place.file("tags.conll", content);
        place.sft_refused(&encoder(), &[TAGS, "data.train=tags.conll"], words);
    };
    refused("the O\nsea\n", &["tags.conll:2", "expected a token and its tag"]);
    refused("the O\n\nice O\nYs I-LOC\n", &["tags.conll:3", "tag \"I-LOC\" of \"Ys\"", "not IOB2", "B-"]);
    refused("the O\nsea O\n\nice O\n", &["tags.conll", "only the tag \"O\""]);
    place.file("lists.jsonl", format!("{}\n", json!({"tokens": ["the", "sea"], "tags": ["O"]})));
    place.sft_refused(&encoder(), &[TAGS, "data.train=lists.jsonl"], &["lists.jsonl:1", "2 words", "1 tags"]);
    place.file("lists.jsonl", format!("{}\n", json!({"tokens": "the sea", "tags": ["O", "O"]})));
    place.sft_refused(
        &encoder(),
        &[TAGS, "data.train=lists.jsonl"],
        &["lists.jsonl:1", "\"tokens\" is \"the sea\"", "an array of strings"],
    );
    place.file("good.conll", "the O\nsea B-LOC\n\nice O\n");
    place.file("other.conll", "the O\n\nsun B-STAR\n");
    let sets = [TAGS, "data.train=good.conll", "data.held_out=other.conll"];
    place.sft_refused(&encoder(), &sets, &["other.conll:3", "unknown label \"B-STAR\"", "\"B-LOC\""]);
    place.sft_refused(&encoder(), &[TAGS, "data.train=texts.tsv"], &["texts.tsv", "no column \"tokens\""]);

    // A token classifier whose classes are not IOB2.
    place.trained("encoder", &[TAGS, "data.train=good.conll", "data.held_out=good.conll"]);
    let model = place.path("out/model");
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a configuration")).expect("JSON");
    config["id2label"]["1"] = json!("LOC");
    fs::write(&path, config.to_string()).expect("changed");
    fs::remove_file(place.path("out/results.json")).expect("removed");
    fs::remove_file(place.path("out/metrics.jsonl")).expect("removed");
    place.refused(&arguments("eval", &model, &["data=good.conll"]), &["config.json", "\"id2label\"", "\"LOC\"", "IOB2"]);
}

/// A copy of the decoder with this chat template.
fn with_template(place: &Place, template: &str) -> PathBuf {
    let model = place.copy("decoder");
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template});
    fs::write(model.join("tokenizer_config.json"), config.to_string()).expect("written");
    model
}

const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

fn chat(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

#[test]
fn conversations_that_do_not_fit() {
    let place = Place::new();
    let row = |messages: Value| format!("{}\n", json!({"messages": messages}));
    let good = row(chat(&[("user", "cold?"), ("assistant", "the sea is")]));
    let train = "data.train=chats.jsonl";
    place.file("chats.jsonl", good.repeat(2));
    let bare = place.copy("decoder");
    let _ = fs::remove_file(bare.join("tokenizer_config.json"));
    place.sft_refused(&bare, &[train], &["decoder", "no chat template", "tokenizer_config.json", "chat_template.jinja"]);
    let endless = with_template(&place, &TEMPLATE.replace("{{ eos_token }}", ""));
    place.sft_refused(&endless, &[train], &["chats.jsonl:1", "eos_token_id", "never learn to stop"]);
    let broken = with_template(&place, "{% for %}");
    place.sft_refused(&broken, &[train], &["tokenizer_config.json", "the chat template is broken"]);
    let strict = with_template(&place, "{{ raise_exception('no roles at all') }}");
    place.sft_refused(&strict, &[train], &["chats.jsonl:1", "the chat template refuses it: no roles at all"]);

    let model = with_template(&place, TEMPLATE);
    for (messages, words) in [
        (json!("hello"), ["\"messages\" is no list", "\"role\""]),
        (json!([{"role": "user"}]), ["message 1", "lacks a role or a content"]),
        (chat(&[("user", "cold?")]), ["\"assistant\"", "nothing to learn"]),
    ] {
        place.file("chats.jsonl", format!("{good}{}", row(messages)));
        place.sft_refused(&model, &[train], &["chats.jsonl:2", words[0], words[1]]);
    }
    let long = "the sea is cold and ".repeat(9);
    place.file("chats.jsonl", format!("{good}{}", row(chat(&[("user", &long), ("assistant", "ice")]))));
    place.sft_refused(&model, &[train], &["chats.jsonl:2", "32 positions"]);
    place.sft_refused(&model, &[train, "overlong=truncate"], &["chats.jsonl:2", "no token of the completion"]);
}

#[test]
fn preferences_that_do_not_fit() {
    let place = Place::new();
    let row =
        |prompt: &str, chosen: &str, rejected: &str| format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}));
    let good = row("the sea is", " cold", " warm") + &row("the sun is", " warm", " cold");
    let train = "data.train=pairs.jsonl";
    place.decoder_refused(&[PREFERENCE, train], &["pairs.jsonl", "no column \"chosen\""]);
    for (bad, words) in [
        (row("ice is", " cold", " cold"), ["the same", "nothing to prefer"]),
        (row("ice is", " cold", ""), ["\"rejected\" is empty", "nothing to learn"]),
    ] {
        place.file("pairs.jsonl", format!("{good}{bad}"));
        place.decoder_refused(&[PREFERENCE, train], &["pairs.jsonl:3", words[0], words[1]]);
    }
    place.file("pairs.jsonl", &good);
    place.sft_refused(&encoder(), &[PREFERENCE, train], &["task", "encoder"]);
    place.decoder_refused(&[PREFERENCE, train, "preference.beta=0.0"], &["preference.beta", "found 0", "more than 0"]);
    let smoothing = "preference.label_smoothing=0.5";
    place.decoder_refused(&[PREFERENCE, train, smoothing], &["preference.label_smoothing", "found 0.5", "below 0.5"]);
    let eval = arguments("eval", &models().join("decoder"), &["data=pairs.jsonl"]);
    place.refused(&eval, &["reference", "missing", "the folder of the model before training"]);
}
