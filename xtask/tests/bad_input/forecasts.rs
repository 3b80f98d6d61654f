//! The memory forecast of every method beside what its updates held: published models on published rows, with `KILN_SHARED`.

use super::support::{Place, arguments};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// MiB of a line such as `446.0 MiB in the largest update` or `1.2 GiB (held ...`.
fn mib(line: &str) -> f64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| ["MiB", "GiB"].contains(word)).expect("a size");
    words[unit - 1].parse::<f64>().expect("a number") * if words[unit] == "GiB" { 1024.0 } else { 1.0 }
}

const MINILM: &str = "all-MiniLM-L6-v2";
const STORIES: &str = "stories260K";

/// A run: its command, its model and its settings.
const RUNS: [(&str, &str, &[&str]); 7] = [
    ("sft", MINILM, &["task=classification", "data.train=sst2.tsv", "columns.names=[\"text\", \"label\"]"]),
    ("sft", MINILM, &["task=classification", "data.train=sst2.tsv", "columns.names=[\"text\", \"label\"]", "update.optimizer=adafactor"]),
    ("sft", STORIES, &["data.train=sums.jsonl", "columns.prompt=question", "columns.completion=answer", "overlong=drop", "force=true"]),
    ("contrastive", MINILM, &["data.train=pairs.jsonl", "columns.anchor=premise", "columns.positive=hypothesis"]),
    (
        "rl",
        STORIES,
        &[
            "data.train=sums.jsonl",
            "columns.prompt=question",
            "overlong=drop",
            "rewards=[{kind=\"regex\", pattern=\"e\"}]",
            "batch_prompts=4",
            "group_size=8",
            "sampling.max_new_tokens=64",
        ],
    ),
    ("adapt", MINILM, &["objective=mlm", "data.train=lines.txt", "block_tokens=128", "batch_rows=16"]),
    (
        "multitask",
        MINILM,
        &[
            "tasks.mood.data.train=sst2.tsv",
            "tasks.mood.columns.names=[\"text\", \"label\"]",
            "tasks.text.kind=masked-token",
            "tasks.text.data.train=lines.txt",
            "tasks.text.block_tokens=128",
            "cosine_steps=0",
        ],
    ),
];

/// The first `n` lines of a file of `data/`, of which `keep` says which count.
fn head(shared: &Path, file: &str, n: usize, keep: impl Fn(&str) -> bool) -> String {
    let text = fs::read_to_string(shared.join("data").join(file)).expect("rows");
    text.lines().filter(|line| keep(line)).take(n).map(|line| format!("{line}\n")).collect()
}

#[test]
fn memory_is_near_what_updates_held() {
    let Some(shared) = std::env::var_os("KILN_SHARED").map(PathBuf::from) else {
        return println!("skipped: KILN_SHARED is not set");
    };
    let place = Place::new();
    place.file("sst2.tsv", head(&shared, "sst2/train.tsv", 1500, |_| true));
    let entailed = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|row| row["label"] == json!("entailment"));
    place.file("pairs.jsonl", head(&shared, "snli_dev/snli_dev.jsonl", 640, entailed));
    place.file("sums.jsonl", head(&shared, "gsm8k/train.jsonl", 300, |_| true));
    place.file("lines.txt", head(&shared, "wikitext2/valid.txt", 500, |_| true));
    let mut far = Vec::new();
    for (command, model, sets) in RUNS {
        let mut plan = arguments(command, &shared.join("models").join(model), sets);
        plan.insert(0, "plan".to_owned());
        let output = place.run(&plan);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{plan:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let line = |words: &str| text.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words:?}: {text}"));
        let (forecast, held) = (mib(line("memory ")), mib(line("in the largest update")));
        println!("{command} {model} {sets:?}\n{text}\n{:+.0} %\n", 100.0 * (forecast / held - 1.0));
        if (forecast / held - 1.0).abs() > 0.2 {
            far.push(format!("{command} {model}: {forecast} MiB forecast, {held} MiB held"));
        }
        // The beginnings of the corpora, of which few rows are held out, have no other fault.
        let told = text.lines().skip_while(|line| !line.starts_with("time ")).skip(1);
        let odd: Vec<&str> = told.filter(|line| *line != "findings       none" && !line.starts_with("few-held-out-rows")).collect();
        assert!(odd.is_empty() || sets.contains(&"force=true"), "{command} {model}: {odd:#?}");
    }
    assert!(far.is_empty(), "{far:#?}");
}
