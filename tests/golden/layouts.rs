//! Layouts are other ways to write the same rows: they become the same tokens. On a real decoder and real conversations, so with `KILN_SHARED` only.

use crate::support::shared;
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Example, Limit, Overlong};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::text::TextSource;
use kiln_sft::data::preferences::pair_table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TEMPLATE: &str = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}";

/// A folder with the files of the decoder, and a chat template if it is to have one.
fn model(place: &Path, has_template: bool) -> Option<PathBuf> {
    let from = shared("models")?.join("stories260K");
    let folder = place.join(if has_template { "chat" } else { "plain" });
    std::fs::create_dir(&folder).expect("a folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.join(file)).expect("copied");
    }
    if has_template {
        std::fs::write(folder.join("chat_template.jinja"), TEMPLATE).expect("written");
        std::fs::write(folder.join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#).expect("written");
    }
    Some(folder)
}

fn with_source<T>(folder: &Path, use_it: impl FnOnce(&TextSource<'_>) -> T) -> T {
    let config = ModelConfig::from_folder(folder).expect("a configuration");
    let tokenizer = Tokenizer::for_model(folder, &config).expect("a tokenizer");
    let limit = Limit::new(config.max_positions, Overlong::Truncate, &tokenizer).expect("a limit");
    use_it(&TextSource { columns: &ColumnsConfig::default(), block_tokens: 0, folder, model: &config, tokenizer: &tokenizer, limit })
}

fn table(place: &Path, rows: &[Value]) -> Table {
    let path = place.join("rows.jsonl");
    write_jsonl(&path, rows).expect("rows");
    Table::read(&path, &[]).expect("rows")
}

fn examples(place: &Path, model: &Path, rows: &[Value]) -> Vec<Example> {
    with_source(model, |source| source.examples(&table(place, rows)).expect("examples").0)
}

#[test]
fn conversations_of_sharegpt_are_messages() {
    let place = tempfile::tempdir().expect("a folder");
    let Some(model) = model(place.path(), true) else { return };
    let file = shared("data").expect("data").join("mt_bench/dummy_conversation.json");
    let found = with_source(&model, |source| source.examples(&Table::read(&file, &[]).expect("rows")).expect("examples").0);
    let conversations: Vec<Value> = kiln_core::files::read_json(&file).expect("JSON");
    let message = |turn: &Value| {
        let role = if turn["from"] == "human" { "user" } else { "assistant" };
        json!({"role": role, "content": turn["value"]})
    };
    let messages =
        |row: &Value| json!({"messages": row["conversations"].as_array().expect("a list").iter().map(message).collect::<Vec<_>>()});
    let rows: Vec<Value> = conversations.iter().map(messages).collect();
    assert_eq!(found.len(), 500);
    assert_eq!(found, examples(place.path(), &model, &rows));
}

#[test]
fn instructions_are_conversations_or_prompts() {
    let place = tempfile::tempdir().expect("a folder");
    let (Some(chat), Some(plain)) = (model(place.path(), true), model(place.path(), false)) else { return };
    let parts = [("Add.", "2 and 3", "5"), ("Say hello.", "", "hello")];
    let instructions: Vec<Value> =
        parts.iter().map(|(instruction, input, output)| json!({"instruction": instruction, "input": input, "output": output})).collect();
    let asked = ["Add.\n\n2 and 3", "Say hello."];
    let messages = asked
        .iter()
        .zip(parts)
        .map(|(asked, (_, _, output))| json!({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]}));
    let prompts = asked.iter().zip(parts).map(|(asked, (_, _, output))| json!({"prompt": format!("{asked}\n\n"), "completion": output}));
    let of = |model: &Path, rows: &[Value]| examples(place.path(), model, rows);
    assert_eq!(of(&chat, &instructions), of(&chat, &messages.collect::<Vec<_>>()));
    assert_eq!(of(&plain, &instructions), of(&plain, &prompts.collect::<Vec<_>>()));
}

#[test]
fn preferences_are_texts_or_conversations_with_or_without_a_prompt() {
    let place = tempfile::tempdir().expect("a folder");
    let Some(folder) = model(place.path(), true) else { return };
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let (asked, good, bad) = (said("user", "2+3?"), said("assistant", "5"), said("assistant", "6"));
    let device = device::by_name("flex").expect("a device");
    let (reference, _) = LanguageModel::load(&folder, &device).expect("a model");
    let pairs = |row: Value| with_source(&folder, |source| pair_table(source, &table(place.path(), &[row]), &reference).expect("pairs").0);
    let expected = pairs(json!({"prompt": [asked], "chosen": [good], "rejected": [bad]}));
    assert_eq!(pairs(json!({"chosen": [asked, good], "rejected": [asked, bad]})), expected);
    assert_eq!(pairs(json!({"prompt": "2+3?", "chosen": [asked, good], "rejected": [asked, bad]})), expected);
    assert_eq!(pairs(json!({"prompt": "2+3?", "chosen": [good], "rejected": [bad]})), expected);
    let text = pairs(json!({"prompt": "<s>", "chosen": "5", "rejected": "6"}));
    assert_ne!(text, expected);
}
