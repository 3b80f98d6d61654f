//! A run on a file of rows that is larger than what the run holds: 1 GiB with `cargo xtask test --long`, else 24 MiB.

use crate::is_long;
use crate::support::{Place, finished, text};
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::files::read_json;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

const ONSETS: [&str; 16] = ["b", "br", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t"];
const RHYMES: [&str; 12] = ["a", "ane", "ar", "e", "en", "ill", "o", "ond", "or", "u", "une", "y"];
/// Words of a prompt and of its completion.
const WORDS: [usize; 2] = [40, 120];

/// Word number `index` of those that `key` makes up: as in a language, a few come often.
fn word(key: Key, index: u64, text: &mut String) {
    let rank = (4000.0 * f64::from(key.uniform(index)).powi(3)) as usize;
    let syllable = |number: usize| (ONSETS[number % ONSETS.len()], RHYMES[number / ONSETS.len() % RHYMES.len()]);
    for number in [rank, rank / 192 * 7 + rank] {
        let (onset, rhyme) = syllable(number);
        text.push_str(onset);
        text.push_str(rhyme);
    }
}

/// The prompt and the completion of a row.
fn row(index: u64) -> [String; 2] {
    let key = Key::new(11).fold(index);
    let mut part = 0;
    WORDS.map(|n_words| {
        part += 1;
        let mut text = String::new();
        for index in 0..n_words as u64 {
            if part > 1 || index > 0 {
                text.push(' ');
            }
            word(key.fold(part), index, &mut text);
        }
        text
    })
}

/// Writes rows until the file has `n_bytes`. Returns how many.
fn write(path: &Path, n_bytes: usize) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file"));
    let (mut n_rows, mut n_written) = (0, 0);
    while n_written < n_bytes {
        let [prompt, completion] = row(n_rows);
        let line = format!("{}\n", json!({"prompt": prompt, "completion": completion}));
        file.write_all(line.as_bytes()).expect("written");
        n_written += line.len();
        n_rows += 1;
    }
    file.flush().expect("written");
    n_rows
}

/// Waits for a process; the most memory it held at once, in MiB.
fn watch(child: &mut Child) -> f64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    while child.try_wait().expect("a process").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next());
        peak = line.and_then(|kib| kib.parse::<f64>().ok()).map_or(peak, |kib| kib / 1024.0);
        sleep(Duration::from_millis(20));
    }
    peak
}

#[test]
fn a_run_holds_little_of_a_large_file() {
    let [mib, most_mib] = if is_long() { [1024, 512] } else { [24, 160] };
    let place = Place::new();
    let tokenizer = Tokenizer::train((0..200).map(|index| row(index).concat()).collect::<Vec<_>>().iter().map(String::as_str), 2000);
    let tokenizer = tokenizer.expect("a tokenizer");
    let Value::Object(keys) = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2,
        "num_attention_heads": 4, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2, "max_position_embeddings": 1024,
    }) else {
        unreachable!("an object")
    };
    let shape = ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration");
    let untrained = LanguageModel::new(shape, &device::by_name("flex").expect("a device"), Key::new(0)).expect("a model");
    model::save(&untrained, &tokenizer, &place.path("model")).expect("saved");

    let n_rows = write(&place.path("large.jsonl"), mib << 20);
    place.file(
        "held-out.jsonl",
        (0..120)
            .map(|index| {
                let [prompt, completion] = row(1 << 40 | index);
                format!("{}\n", json!({"prompt": prompt, "completion": completion}))
            })
            .collect::<String>(),
    );
    // A hundred updates, or twenty.
    let n_seen = if is_long() { 1600.0 } else { 320.0 };
    let train = format!("data.train=[{{path=\"large.jsonl\", weight={:e}}}]", n_seen / n_rows as f64);
    let begin = |out: &str| {
        let sets = ["model=model", train.as_str(), "data.held_out=held-out.jsonl", "batch_rows=16"].map(|set| ["--set", set]).concat();
        let mut command = place.command(&[&["sft", "--out", out], &sets[..]].concat());
        command.env("KILN_CACHE", place.path("cache"));
        if !is_long() {
            command.env("KILN_CACHE_ABOVE_MIB", "1");
        }
        command
    };
    let mut weights = Vec::new();
    for out in ["first", "second"] {
        let start = Instant::now();
        let mut child = begin(out).spawn().expect("the runner starts");
        let peak = watch(&mut child);
        let said = text(&finished(child, Some(0), out));
        // The second run finds the tokens of the first.
        assert_eq!(said.contains(&format!("{n_rows} rows become tokens")), out == "first", "{said}");
        let results: Value = read_json(&place.path(out).join("results.json")).expect("results");
        let [waited, trained] = ["data_seconds", "train_seconds"].map(|key| results[key].as_f64().expect("seconds"));
        println!(
            "{out}: {mib} MiB, {n_rows} rows; {peak:.0} MiB held, {:.1} s, of which {trained:.1} s training, {:.2} % of it waiting for rows",
            start.elapsed().as_secs_f64(),
            100.0 * waited / trained
        );
        assert!(peak > 1.0 && peak < most_mib as f64, "{out}: {peak:.0} MiB held of {mib} MiB rows");
        assert!(waited < 0.05 * trained, "{out}: {waited:.2} of {trained:.2} s waiting for rows");
        weights.push(fs::read(place.path(out).join("model/model.safetensors")).expect("weights"));
    }
    assert_eq!(weights[0], weights[1]);
}
