//! What the runner does with bad input: exit code 2, one line that says what and where, and nothing written.

mod audit;
mod continual;
mod findings;
mod fit;
mod forecasts;
mod hub;
mod mitigation;
mod multitask;
mod outputs;
mod preflight;
mod rewards;
mod support;
mod tasks;
mod verify;

use serde_json::{Value, json};
use std::fs;
use support::{Place, SENTENCES, arguments, files, models};

const CLASSIFICATION: &str = "task=classification";

#[test]
fn files_that_are_not_there() {
    let place = Place::new();
    place.decoder_refused(&["data.train=none.jsonl"], &["none.jsonl", "no such file"]);
    place.sft_refused(&place.path("nowhere"), &["data.train=pairs.jsonl"], &["nowhere", "no such model folder", "config.json"]);
    place.decoder_refused(&[], &["data.train", "missing"]);
    place.refused(&["sft", "--config", "none.toml"], &["none.toml", "No such file"]);
    place.decoder_refused(&["data.train=pairs.jsonl", "data.held_out=none.jsonl"], &["none.jsonl"]);
    place.decoder_refused(&["data.train=pairs.docx"], &["pairs.docx", "unknown extension", ".jsonl"]);
    let eval = arguments("eval", &models().join("decoder"), &["data=pairs.jsonl", "adapter=nowhere"]);
    place.refused(&eval, &["nowhere", "no such folder"]);
}

#[test]
fn damaged_rows() {
    let place = Place::new();
    place.file("latin1.txt", b"one\ntwo\ncaf\xe9\n");
    place.decoder_refused(&["data.train=latin1.txt"], &["latin1.txt:3", "not UTF-8", "0xe9"]);
    place.file("bad.jsonl", "{\"text\": \"one\"}\n{\"text\": \n");
    place.decoder_refused(&["data.train=bad.jsonl"], &["bad.jsonl:2", "not valid JSON"]);
    place.file("list.jsonl", "[1, 2]\n");
    place.decoder_refused(&["data.train=list.jsonl"], &["list.jsonl:1", "expected a JSON object", "array"]);
    place.file("few.csv", "text,label\none,cold\ntwo\n");
    place.sft_refused(&models().join("encoder"), &[CLASSIFICATION, "data.train=few.csv"], &["few.csv:3", "found 1 fields", "expected 2"]);
    place.file("empty.jsonl", "{\"prompt\": \"one\", \"completion\": \" two\"}\n{\"prompt\": \"three\", \"completion\": \"\"}\n");
    place.decoder_refused(&["data.train=empty.jsonl"], &["empty.jsonl:2", "completion", "empty"]);
    place.file("number.jsonl", "{\"text\": \"one\"}\n{\"text\": 2}\n");
    place.decoder_refused(&["data.train=number.jsonl"], &["number.jsonl:2", "\"text\" is 2", "expected text"]);
    place.file("null.jsonl", "{\"text\": \"one\"}\n{\"text\": null}\n");
    place.decoder_refused(&["data.train=null.jsonl"], &["null.jsonl:2", "null"]);
}

#[test]
fn files_without_enough_rows() {
    let place = Place::new();
    for (name, content) in [("empty.tsv", ""), ("header.tsv", "text\tlabel\n"), ("blank.jsonl", "\n\n"), ("blank.txt", " \n")] {
        place.file(name, content);
        place.decoder_refused(&[&format!("data.train={name}")], &[name, "no rows"]);
    }
    place.file("one.jsonl", "{\"text\": \"one\"}\n");
    place.decoder_refused(&["data.train=one.jsonl"], &["one.jsonl", "1 row", "at least 2", "data.held_out"]);
    place.file("short.txt", "a");
    place.decoder_refused(&["data.train=lines.txt", "data.held_out=short.txt", "block_tokens=2"], &["block_tokens", "found 2"]);
}

#[test]
fn columns_and_labels_that_do_not_exist() {
    let place = Place::new();
    let encoder = models().join("encoder");
    place.sft_refused(
        &encoder,
        &[CLASSIFICATION, "data.train=texts.tsv", "columns.text=txt"],
        &["texts.tsv", "no column \"txt\"", "\"text\", \"label\"", "did you mean"],
    );
    place.sft_refused(
        &encoder,
        &[CLASSIFICATION, "data.train=texts.tsv", "columns.label=class"],
        &["texts.tsv", "no column \"class\"", "\"text\", \"label\""],
    );
    place.file("other.jsonl", "{\"a\": \"one\"}\n{\"a\": \"two\"}\n");
    place.decoder_refused(&["data.train=other.jsonl"], &["other.jsonl", "fits no layout", "text (text)", "\"a\""]);
    place.file("labels.tsv", "text\tlabel\nthe sea\tcold\nthe sun\ttepid\n");
    let classifier = models().join("classifier");
    let eval = arguments("eval", &classifier, &["data=labels.tsv"]);
    place.refused(&eval, &["labels.tsv:3", "unknown label \"tepid\"", "\"cold\", \"warm\""]);
    place.sft_refused(
        &classifier,
        &[CLASSIFICATION, "data.train=labels.tsv"],
        &["labels.tsv:3", "unknown label \"tepid\"", "\"cold\", \"warm\""],
    );
    place.sft_refused(&encoder, &[CLASSIFICATION, "data.train=texts.tsv", "data.held_out=labels.tsv"], &["labels.tsv:3", "\"tepid\""]);
    place.file("same.tsv", "text\tlabel\nthe sea\tcold\nsnow\tcold\n");
    place.sft_refused(&encoder, &[CLASSIFICATION, "data.train=same.tsv"], &["same.tsv", "\"label\"", "only the label \"cold\""]);
    place.file("blank.tsv", "text\tlabel\nthe sea\tcold\nsnow\t\n");
    place.sft_refused(&encoder, &[CLASSIFICATION, "data.train=blank.tsv"], &["blank.tsv:3", "\"label\" is empty"]);
    let eval = arguments("eval", &encoder, &["data=texts.tsv"]);
    place.refused(&eval, &["config.json", "not a classifier"]);
}

#[test]
fn rows_longer_than_the_model() {
    let place = Place::new();
    let long = "the sea is cold today and ".repeat(20);
    let row = format!("{}\n", json!({"text": long}));
    place.file("long.jsonl", format!("{}{row}", SENTENCES.map(|text| format!("{}\n", json!({"text": text}))).concat()));
    place.file("short.jsonl", SENTENCES.map(|text| format!("{}\n", json!({"text": text}))).concat());
    let data = ["data.train=long.jsonl", "data.held_out=short.jsonl"];
    place.decoder_refused(&data, &["long.jsonl:7", "tokens", "32 positions", "truncate", "drop"]);
    place.file("all.jsonl", row.repeat(3));
    place.decoder_refused(&["data.train=all.jsonl", "overlong=drop"], &["all.jsonl", "no row is left", "32 positions"]);
    place.file("all.tsv", format!("text\tlabel\n{long}\tcold\n{long}\twarm\n{long}\twarm\n"));
    place.sft_refused(&models().join("encoder"), &[CLASSIFICATION, "data.train=all.tsv", "overlong=drop"], &["all.tsv", "no row is left"]);
    place.decoder_refused(&["data.train=lines.txt", "block_tokens=33"], &["block_tokens", "33", "32 positions"]);
    place.file("prompts.jsonl", format!("{}\n", json!({"prompt": long, "completion": " yes"})).repeat(2));
    place.decoder_refused(&["data.train=prompts.jsonl", "overlong=truncate"], &["prompts.jsonl:1", "no token of the completion"]);
    for (overlong, told, key) in [("truncate", "1 rows truncated", "n_truncated"), ("drop", "1 rows dropped as too long", "n_dropped")] {
        let text = place.trained("decoder", &[data[0], data[1], "force=true", &format!("overlong={overlong}")]);
        assert!(text.contains(told), "{text}");
        let results: Value = serde_json::from_slice(&fs::read(place.path("out/results.json")).expect("results")).expect("JSON");
        assert_eq!(results["train_rows"][key], 1, "{results}");
        fs::remove_dir_all(place.path("out")).expect("removed");
    }
}

#[test]
fn damaged_weights() {
    let place = Place::new();
    let model = place.copy("decoder");
    let weights = model.join("model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    let header = u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let data = ["data.train=pairs.jsonl"];
    for (length, words) in [
        (0, ["not a safetensors file", "0 bytes"]),
        (4, ["not a safetensors file", "4 bytes"]),
        (8, ["truncated", "8"]),
        (8 + header / 2, ["truncated", "header"]),
        (8 + header, ["truncated", "promises"]),
        (whole.len() / 2, ["truncated", "promises"]),
        (whole.len() - 1, ["truncated", "promises"]),
    ] {
        fs::write(&weights, &whole[..length]).expect("cut");
        place.sft_refused(&model, &data, &["model.safetensors", words[0], words[1]]);
    }
    let mut garbled = whole.clone();
    garbled[8..8 + header].fill(b'x');
    fs::write(&weights, &garbled).expect("garbled");
    place.sft_refused(&model, &data, &["model.safetensors", "header is damaged"]);
    // Of the same length, so that only the name is wrong.
    let text = String::from_utf8_lossy(&whole[8..8 + header]).replace("model.norm.weight", "model.nrom.weight");
    let renamed = [&whole[..8], text.as_bytes(), &whole[8 + header..]].concat();
    fs::write(&weights, renamed).expect("renamed");
    place.sft_refused(&model, &data, &["model.safetensors", "\"model.norm.weight\" is missing", "[16]"]);
    // Offsets that do not fit the shape.
    let text = String::from_utf8_lossy(&whole[8..8 + header]).replace("[16,32]", "[16,31]");
    fs::write(&weights, [&whole[..8], text.as_bytes(), &whole[8 + header..]].concat()).expect("reshaped");
    place.sft_refused(&model, &data, &["model.safetensors", "header is damaged"]);
    fs::remove_file(&weights).expect("removed");
    place.sft_refused(&model, &data, &["model.safetensors", "No such file"]);
}

#[test]
fn configurations_that_do_not_fit() {
    let place = Place::new();
    let model = place.copy("decoder");
    let path = model.join("config.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).expect("a configuration")).expect("JSON");
    let data = ["data.train=pairs.jsonl"];
    for (key, value, words) in [
        ("hidden_size", json!(24), ["model.embed_tokens.weight", ", 16]", ", 24]"]),
        ("vocab_size", json!(310), ["model.embed_tokens.weight", "[310, 16]", "shape"]),
        ("num_hidden_layers", json!(2), ["model.layers.1.", "missing", "model.safetensors"]),
        ("num_attention_heads", json!(0), ["config.json", "0 attention heads", "divide"]),
        ("head_dim", json!(5), ["config.json", "\"head_dim\"", "found 5"]),
        ("hidden_size", json!("16"), ["config.json", "\"hidden_size\"", "expected a whole number, found \"16\""]),
        ("hidden_size", Value::Null, ["config.json", "\"hidden_size\"", "missing"]),
        ("model_type", json!("mamba"), ["config.json", "\"model_type\"", "\"mamba\""]),
        ("hidden_act", json!("relu6"), ["config.json", "\"hidden_act\"", "\"relu6\""]),
        ("eos_token_id", json!(5000), ["config.json", "\"eos_token_id\"", "found 5000"]),
        ("eos_token_id", Value::Null, ["config.json", "\"eos_token_id\"", "missing"]),
        ("max_position_embeddings", json!(0), ["config.json", "\"max_position_embeddings\"", "found 0"]),
        ("attention_dropout", json!(1.5), ["config.json", "\"attention_dropout\"", "found 1.5"]),
        ("rope_scaling", json!({"rope_type": "longrope"}), ["config.json", "\"rope_scaling\"", "\"longrope\""]),
    ] {
        let mut changed = whole.clone();
        changed[key] = value;
        fs::write(&path, changed.to_string()).expect("changed");
        place.sft_refused(&model, &data, &words);
    }
    for (text, words) in [("{\"model_type\": ", ["config.json:1", "EOF"]), ("[]", ["config.json:1", "expected a map"])] {
        fs::write(&path, text).expect("changed");
        place.sft_refused(&model, &data, &words);
    }
    fs::remove_file(&path).expect("removed");
    place.sft_refused(&model, &data, &["config.json", "No such file"]);
}

#[test]
fn damaged_tokenizers() {
    let place = Place::new();
    let model = place.copy("decoder");
    let path = model.join("tokenizer.json");
    let whole = fs::read_to_string(&path).expect("a tokenizer");
    let data = ["data.train=pairs.jsonl"];
    for text in [&whole[..whole.len() / 2], "", "{}", "{\n\"model\": {\"type\": \"none\"}\n}"] {
        fs::write(&path, text).expect("changed");
        place.sft_refused(&model, &data, &["tokenizer.json", "not a tokenizer"]);
    }
    // A word of its own beyond the model's vocabulary.
    let mut larger: Value = serde_json::from_str(&whole).expect("JSON");
    let added =
        json!({"id": 700, "content": "sea", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false});
    larger["added_tokens"].as_array_mut().expect("a list").push(added);
    fs::write(&path, larger.to_string()).expect("changed");
    place.sft_refused(&model, &data, &["tokenizer.json", "\"sea\"", "the model has 2", "another model's"]);
    fs::remove_file(&path).expect("removed");
    place.sft_refused(&model, &data, &["tokenizer.json", "no such file"]);
}

#[test]
fn settings_that_are_wrong() {
    let place = Place::new();
    place.file("key.toml", "epochs = 1\n\n[update]\nlerning_rate = 1e-3\n");
    place.refused(&["sft", "--config", "key.toml"], &["key.toml:4", "unknown field `lerning_rate`", "learning_rate"]);
    place.file("type.toml", "\nepochs = \"two\"\n");
    place.refused(&["sft", "--config", "type.toml"], &["type.toml:2", "expected usize", "\"two\""]);
    place.file("broken.toml", "epochs = 1\nmodel = \n");
    place.refused(&["sft", "--config", "broken.toml"], &["broken.toml:2"]);
    let pairs = "data.train=pairs.jsonl";
    for (set, words) in [
        ("epoch=2", ["--set epoch=2", "unknown field `epoch`"]),
        ("epochs=two", ["--set epochs=two", "expected usize"]),
        ("epochs", ["--set epochs", "expected KEY=VALUE"]),
        ("epochs=-1", ["--set epochs=-1", "expected usize"]),
        ("task=translation", ["--set task=translation", "unknown variant `translation`"]),
        ("overlong=shorten", ["--set overlong=shorten", "unknown variant"]),
        ("epochs.n=1", ["--set epochs.n=1", "expected usize"]),
        ("epochs=0", ["epochs", "found 0, expected at least 1"]),
        ("batch_rows=0", ["batch_rows", "found 0"]),
        ("update.learning_rate=-1e-3", ["update.learning_rate", "found -0.001, expected 0 or more"]),
        ("update.weight_decay=inf", ["update.weight_decay", "found inf, expected 0 or more"]),
        ("update.learning_rate=nan", ["update.learning_rate", "expected 0 or more"]),
        ("update.ema_decay=1.0", ["update.ema_decay", "found 1, expected at least 0 and below 1"]),
        ("update.optimizer=adam", ["--set update.optimizer=adam", "unknown variant `adam`"]),
        ("update.optimizer={name=\"sgd\",momentum=1.5}", ["update.optimizer.momentum", "found 1.5, expected at least 0 and below 1"]),
        ("update.schedule={name=\"cosine\",floor=2.0}", ["update.schedule.floor", "found 2, expected 0 to 1"]),
        ("update.schedule=plateau", ["update.schedule", "this run is not validated"]),
        (
            "update.groups=[{pattern=\"layers.7\",frozen=true}]",
            ["update.groups[0].pattern", "finds none of the parameters that train, such as"],
        ),
        ("update.groups=[{pattern=\"[\"}]", ["update.groups[0].pattern", "is no regular expression"]),
        ("update.guard.loss_factor=0.5", ["update.guard.loss_factor", "found 0.5, expected 0, or more than 1"]),
        ("update.guard.action=roll-back", ["update.guard.action", "set checkpoint.every_steps"]),
        ("validation.patience=2", ["validation.patience", "found 2, but nothing is validated"]),
        ("validation.share=1.0", ["validation.share", "found 1, expected at least 0 and below 1"]),
        ("data.validation=none.jsonl", ["none.jsonl", "no such file"]),
        ("data.validation=org/none", ["data.validation", "org/none names no split"]),
        ("regularization.r_drop=1.0", ["regularization.r_drop", "has a meaning for classes and tags only"]),
        ("regularization.mixout=nan", ["regularization.mixout", "found NaN, expected 0 to 1"]),
        ("data.held_out_share=1.0", ["data.held_out_share", "found 1, expected more than 0 and less than 1"]),
        ("adapter.rank=0", ["adapter.rank", "found 0, expected at least 1"]),
        ("adapter.alpha=nan", ["adapter.alpha", "found NaN, expected a finite number"]),
        ("adapter.alpha=1e300", ["adapter.alpha", "expected a finite number"]),
        ("preference.beta=1e39", ["preference.beta", "found 1e39, expected at most 3.4028235e38"]),
        ("adapter.dropout=1.0", ["adapter.dropout", "found 1, expected at least 0 and below 1"]),
        ("adapter.target_modules=q_proj", ["adapter.target_modules", "no layer's whole path matches \"q_proj\""]),
        ("adapter.target_modules=3", ["adapter.target_modules", "3"]),
        ("adapter.modules_to_save=[\"embd\"]", ["adapter.modules_to_save", "\"embd\" names no layer; there are"]),
        ("adapter.target_modules=[\"q_prj\"]", ["adapter.target_modules", "\"q_prj\" names no layer; there are down_proj"]),
    ] {
        place.decoder_refused(&[pairs, set], &words);
    }
    let decoder = format!("model={}", models().join("decoder").display());
    place.refused(&["sft", "--set", &decoder, "--set", pairs, "--device", "nope"], &["--device", "unknown device \"nope\"", "flex"]);
    place.refused(&["eval", "--set", &decoder, "--set", "dta=pairs.jsonl"], &["--set dta=pairs.jsonl", "unknown field `dta`"]);
    place.refused(&["eval", "--set", &decoder], &["data", "missing"]);
}

#[test]
fn tasks_the_model_cannot_do() {
    let place = Place::new();
    let place_of = |model: &str| models().join(model);
    for model in ["encoder", "classifier"] {
        place.sft_refused(&place_of(model), &["data.train=pairs.jsonl"], &["task", "encoder", "classification"]);
        let generate = arguments("generate", &place_of(model), &["prompt=the sea"]);
        place.refused(&generate, &["model", "encoder", "needs a decoder"]);
    }
    let long = format!("prompt={}", "the sea ".repeat(60));
    for (set, words) in [
        (long.as_str(), ["prompt", "expected 1 to 31"]),
        ("sampling.temperature=-1.0", ["sampling.temperature", "found -1"]),
        ("sampling.top_p=0.0", ["sampling.top_p", "found 0"]),
        ("sampling.max_new_tokens=0", ["sampling.max_new_tokens", "found 0"]),
        ("sampling.min_p=2.0", ["sampling.min_p", "found 2"]),
        ("sampling.repetition_penalty=0.0", ["sampling.repetition_penalty", "found 0"]),
        ("sampling.n_beams=0", ["sampling.n_beams", "found 0"]),
        ("sampling.n_beams=1000", ["sampling.n_beams", "too many"]),
        ("n=0", ["n: found 0", "at least 1"]),
        ("stop=[\"\"]", ["stop", "empty string"]),
        ("output=said.txt", ["output", ".jsonl"]),
        ("data=nowhere.jsonl", ["nowhere.jsonl", "no such file"]),
    ] {
        let generate = arguments("generate", &place_of("decoder"), &[set]);
        place.refused(&generate, &words);
    }
    place.file("long.txt", format!("the sea\n{}\n", "the sea ".repeat(60)));
    let generate = arguments("generate", &place_of("decoder"), &["data=long.txt"]);
    place.refused(&generate, &["long.txt:2", "expected 1 to 31"]);
    for (sets, words) in [
        (["sampling.n_beams=2", "sampling.temperature=1.0"], ["sampling.n_beams", "with a temperature"]),
        (["sampling.n_beams=2", "n=3"], ["sampling.n_beams", "found 2 for 3"]),
        (["sampling.n_beams=2", "stop=[\"x\"]"], ["stop", "beam search"]),
        (["prompt=the sea", "data=pairs.jsonl"], ["prompt", "beside data"]),
    ] {
        place.refused(&arguments("generate", &place_of("decoder"), &sets), &words);
    }
    place.refused(&["generate"], &["model", "missing"]);
}

#[test]
fn embedding_objectives_with_bad_rows_or_settings() {
    let place = Place::new();
    place.file("anchors.jsonl", SENTENCES.map(|text| format!("{}\n", json!({"anchor": text, "positive": text, "score": 1}))).concat());
    place.file("texts.jsonl", SENTENCES.map(|text| format!("{}\n", json!({"text": text}))).concat());
    let scored = |(score, text): (usize, &str)| format!("{}\n", json!({"anchor": text, "positive": "ice", "score": score}));
    place.file("scored.jsonl", SENTENCES.into_iter().enumerate().map(scored).collect::<String>());
    place.file("blank.jsonl", "{\"anchor\": \"one\", \"positive\": \"two\"}\n{\"anchor\": \"one\", \"positive\": \" \"}\n");
    place.file("many.jsonl", format!("{}\n", json!({"anchor": "a", "positive": "b", "negative": ["c", "d"]})).repeat(2));
    for (sets, words) in [
        (&["data.train=anchors.jsonl"][..], &["anchors.jsonl", "every \"score\" is 1", "nothing to rank"][..]),
        (&["data.train=texts.jsonl"], &["texts.jsonl", "no column \"anchor\"", "\"text\""]),
        (&["data.train=blank.jsonl"], &["blank.jsonl:2", "\"positive\" is empty"]),
        (&["data.train=texts.jsonl", "objective=mlm", "masking.share=1.5"], &["masking.share", "found 1.5"]),
        (
            &["data.train=texts.jsonl", "objective=mlm", "block_tokens=33", "data.held_out=lines.txt"],
            &["block_tokens", "33", "32 positions"],
        ),
        (&["data.train=texts.jsonl", "objective=simcse"], &["data.held_out", "texts alone cannot judge"]),
        (&["data.train=texts.jsonl", "objective=simcse", "dropout=false"], &["dropout", "two dropouts"]),
        (&["data.train=many.jsonl", "objective=triplet"], &["many.jsonl:", "2 negatives, triplet takes one"]),
        (&["data.train=anchors.jsonl", "objective=ranking"], &["--set objective=ranking", "unknown variant `ranking`"]),
        (&["data.train=anchors.jsonl", "batch_rows=1"], &["batch_rows", "found 1, expected at least 2"]),
        (&["data.train=anchors.jsonl", "scale=0.0"], &["scale", "found 0, expected more than 0"]),
        (&["data.train=anchors.jsonl", "data.held_out=."], &["corpus.jsonl", "no such file"]),
        (
            &["data.train=anchors.jsonl", "columns.positive=positives"],
            &["no column \"positives\"", "did you mean columns.positive=\"positive\"?"],
        ),
        (&["data.train=scored.jsonl", "data.held_out=scored.jsonl", "adapter.rank=0"], &["adapter.rank", "found 0, expected at least 1"]),
        (
            &["data.train=scored.jsonl", "data.held_out=scored.jsonl", "adapter.target_modules=[\"q_proj\"]"],
            &["adapter.target_modules", "there are dense, key, query, value"],
        ),
        (
            &["data.train=scored.jsonl", "data.held_out=scored.jsonl", "gradient_checkpointing=2"],
            &["--set gradient_checkpointing=2", "expected a boolean"],
        ),
    ] {
        place.refused(&arguments("contrastive", &models().join("encoder"), sets), words);
    }
    let decoder = arguments("contrastive", &models().join("decoder"), &["data.train=texts.jsonl", "objective=mlm"]);
    place.refused(&decoder, &["objective", "a decoder cannot predict hidden tokens"]);
    for (command, sets, words) in [
        ("embed", &["data=texts.jsonl"][..], ["output", "missing"]),
        ("embed", &["data=texts.jsonl", "output=vectors.csv"], ["output", "found .csv, expected .npy, .safetensors or .jsonl"]),
        ("embed", &["output=vectors.npy"], ["data", "missing"]),
        ("search", &["data=texts.jsonl"], ["query", "missing"]),
        ("search", &["data=anchors.jsonl", "query=sea"], ["anchors.jsonl", "no column \"text\""]),
    ] {
        place.refused(&arguments(command, &models().join("encoder"), sets), &words);
    }
}

/// An encoder is judged by what its data holds, and its settings are its own.
#[test]
fn encoders_judged_by_bad_data() {
    let place = Place::new();
    let scored = |(score, text): (usize, &str)| format!("{score}\t{text}\tice\n");
    place.file("scored.tsv", SENTENCES.into_iter().enumerate().map(scored).collect::<String>());
    let model = place.copy("encoder");
    fs::write(model.join("modules.json"), "[]").expect("written");
    let names = "columns.names=[\"score\", \"anchor\", \"positive\"]";
    for (sets, words) in [
        (
            &["data=scored.tsv"][..],
            &["scored.tsv", "no column \"anchor\"", "columns.anchor", "columns.names if the first row is no header"][..],
        ),
        (&["data=nowhere"], &["nowhere", "unknown extension"]),
        (&["data=."], &["corpus.jsonl", "no such file"]),
        (&[], &["data", "missing", "judged queries"]),
        (&["data=scored.tsv", "reference=encoder"], &["--set reference=encoder", "unknown field `reference`"]),
        (&["data=scored.tsv", names, "adapter=nowhere"], &["nowhere", "no such folder"]),
    ] {
        place.refused(&arguments("eval", &model, sets), words);
    }
    place.refused(&arguments("eval", &place.path("nowhere"), &["data=scored.tsv"]), &["nowhere", "no such model folder"]);
    let output = place.run(&arguments("eval", &model, &["data=scored.tsv", names]));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success() && text.starts_with("spearman "), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("] on 6 pairs\n"), "{text}");
}

/// A decoder is judged by perplexity: not an error.
#[test]
fn a_decoder_is_evaluated() {
    let place = Place::new();
    let eval = arguments("eval", &models().join("decoder"), &["data=pairs.jsonl"]);
    let output = place.run(&eval);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success() && text.starts_with("perplexity "), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_folder_that_holds_a_run_is_kept() {
    let place = Place::new();
    place.trained("decoder", &["data.train=pairs.jsonl"]);
    let kept = files(&place.path("out"));
    for file in ["results.json", "metrics.jsonl", "config.toml", "report.html", "model/config.json", "model/model.safetensors"] {
        assert!(kept.contains_key(&place.path("out").join(file)), "{file} of {:?}", kept.keys());
    }
    let words = ["--out", "out already holds results.json", "choose another"];
    place.decoder_refused(&["data.train=pairs.jsonl"], &words);
    for (command, set) in [("eval", "data=pairs.jsonl"), ("generate", "prompt=the sea")] {
        let again = arguments(command, &models().join("decoder"), &[set]);
        place.refused(&again, &words);
    }
    fs::remove_file(place.path("out/results.json")).expect("removed");
    fs::remove_file(place.path("out/metrics.jsonl")).expect("removed");
    place.sft_refused(&place.path("out/model"), &["data.train=pairs.jsonl"], &["--out", "out already holds model"]);
}
