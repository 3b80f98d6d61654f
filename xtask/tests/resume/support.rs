//! What the cases share: tiny models and rows, and runs of every method that are started, stopped and compared.

use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const NOUNS: [&str; 8] = ["sea", "sun", "hill", "fire", "room", "snow", "wind", "road"];
const VERBS: [&str; 6] = ["warms", "hides", "meets", "leaves", "follows", "covers"];

/// A method with settings that make it carry all it can from step to step.
pub struct Case {
    /// What the case is called.
    pub name: &'static str,
    /// The command.
    pub command: &'static str,
    /// Its settings.
    pub sets: &'static [&'static str],
}

/// Every method; a new one joins by a line.
pub const CASES: [Case; 13] = [
    Case { name: "sft", command: "sft", sets: &["model=decoder", "data.train=pairs.jsonl", "batch_rows=8", "update.learning_rate=1e-2"] },
    Case {
        name: "sft of an adapter",
        command: "sft",
        sets: &["model=encoder", "task=classification", "data.train=topics.tsv", "batch_rows=8", "micro_batch_tokens=40", "adapter.rank=2"],
    },
    Case {
        name: "sft by validation",
        command: "sft",
        sets: &[
            "model=decoder",
            "data.train=pairs.jsonl",
            "batch_rows=8",
            "validation.share=0.2",
            "validation.every_steps=2",
            "regularization.mixout=0.2",
            "update.optimizer=adafactor",
            "update.schedule={name=\"plateau\", patience=0}",
            "update.ema_decay=0.9",
            "update.learning_rate=3e-2",
            "update.guard={action=\"roll-back\", loss_factor=1.3, window_steps=4}",
        ],
    },
    Case {
        name: "sft for the worst group",
        command: "sft",
        sets: &[
            "model=encoder",
            "task=classification",
            "data.train=people.tsv",
            "batch_rows=8",
            "validation.share=0.3",
            "mitigation.groups=[\"who\"]",
            "mitigation.method={name=\"group-dro\", step_size=0.5}",
            "mitigation.thresholds=equal-opportunity",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "sft with canaries",
        command: "sft",
        sets: &[
            "model=decoder",
            "data.train=pairs.jsonl",
            "batch_rows=8",
            "canaries.count=3",
            "canaries.repetitions=2",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "contrastive",
        command: "contrastive",
        sets: &[
            "model=encoder",
            "objective=mlm",
            "data.train=lines.txt",
            "block_tokens=16",
            "batch_rows=4",
            "validation.share=0.2",
            "validation.every_steps=2",
            "update.schedule={name=\"plateau\", patience=0}",
            "update.ema_decay=0.9",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "rl after a warm-up",
        command: "rl",
        sets: &[
            "model=decoder",
            "algorithm=reinforce",
            "data.train=pairs.jsonl",
            "rewards=[{kind=\"regex\", pattern=\"[aeiou]\"}]",
            "batch_prompts=8",
            "group_size=2",
            "sampling.max_new_tokens=4",
            "kl.coefficient=0.05",
            "warm_up.epochs=1",
            "warm_up.batch_rows=16",
            "validation.share=0.2",
            "validation.every_steps=2",
            "update.schedule=plateau",
            "update.learning_rate=1e-3",
        ],
    },
    Case {
        name: "rl with a value head",
        command: "rl",
        sets: &[
            "model=decoder",
            "algorithm=ppo",
            "data.train=pairs.jsonl",
            "rewards=[{kind=\"regex\", pattern=\"[aeiou]\"}]",
            "batch_prompts=8",
            "group_size=2",
            "passes=2",
            "sampling.max_new_tokens=4",
            "update.learning_rate=1e-3",
        ],
    },
    Case {
        name: "continual",
        command: "continual",
        sets: &[
            "model=decoder",
            "domains=[{train=\"lines.txt\"}, {train=\"more.txt\"}]",
            "general={train=\"general.txt\", held_out_share=0.5}",
            "block_tokens=8",
            "batch_rows=6",
            "replay.share=0.3",
            "ewc.strength=5.0",
            "ewc.rows=8",
            "l2_sp.strength=0.1",
            "lwf.strength=0.5",
            "evaluate_every=5",
            "budget=9.0",
            "validation.share=0.2",
            "validation.every_steps=3",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "continual with canaries",
        command: "continual",
        sets: &[
            "model=decoder",
            "domains=[{train=\"lines.txt\"}, {train=\"more.txt\"}]",
            "block_tokens=8",
            "batch_rows=6",
            "replay.share=0.3",
            "ewc.strength=5.0",
            "ewc.rows=8",
            "canaries.count=3",
            "canaries.repetitions=2",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "continual with adapters",
        command: "continual",
        sets: &[
            "model=encoder",
            "objective=mlm",
            "domains=[{train=\"lines.txt\"}, {train=\"more.txt\"}]",
            "block_tokens=8",
            "batch_rows=6",
            "adapter.rank=2",
            // A domain may end before its last step.
            "validation.share=0.2",
            "validation.every_steps=1",
            "validation.patience=2",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "multitask with each task alone",
        command: "multitask",
        sets: &[
            "model=encoder",
            "tasks.topics.data.train=topics.tsv",
            "tasks.texts.kind=masked-token",
            "tasks.texts.data.train=lines.txt",
            "tasks.texts.block_tokens=16",
            "weighting=uncertainty",
            "pcgrad=true",
            "batch_rows=8",
            "baselines=true",
            "validation.share=0.2",
            "validation.every_steps=2",
            "validation.patience=3",
            "update.learning_rate=1e-2",
        ],
    },
    Case {
        name: "multitask with learnt shares",
        command: "multitask",
        sets: &[
            "model=encoder",
            "tasks.topics.data.train=topics.tsv",
            "tasks.again.data.train=topics.tsv",
            "weighting=famo",
            "batch_rows=8",
            "cosine_steps=3",
        ],
    },
];

/// A folder with models and rows.
pub struct Place(TempDir);

impl Place {
    /// `decoder` and `encoder`, pairs, topics and texts.
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let sentence = |key: Key, index: u64| {
            let word = |words: &[&'static str], part: u64| words[key.fold(index).below(part, words.len() as u64) as usize];
            format!("the {} {} the {}", word(&NOUNS, 0), word(&VERBS, 1), word(&NOUNS, 2))
        };
        let sentences = |seed: u64, n: u64| (0..n).map(|index| sentence(Key::new(seed), index)).collect::<Vec<_>>();
        let tokenizer = Tokenizer::train(sentences(0, 100).iter().map(String::as_str), 300).expect("a tokenizer");
        let shape = json!({
            "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 64,
        });
        for (name, keys) in [
            ("decoder", json!({"model_type": "llama", "hidden_act": "silu", "eos_token_id": 2, "tie_word_embeddings": true})),
            ("encoder", json!({"model_type": "bert", "hidden_act": "gelu"})),
        ] {
            let (Value::Object(mut all), Value::Object(keys)) = (shape.clone(), keys) else { unreachable!("both are objects") };
            all.extend(keys);
            let config = ModelConfig::from_json(all, Path::new("config.json")).expect("a configuration");
            let model = LanguageModel::new(config, &device::by_name("flex").expect("a device"), Key::new(0)).expect("a model");
            model::save(&model, &tokenizer, &place.path(name)).expect("saved");
        }
        let pair = |text: &String| {
            let (prompt, completion) = text.split_at(text.len() / 2);
            format!("{}\n", json!({"prompt": prompt, "completion": completion}))
        };
        let topic = |text: &String| format!("{text}\t{}\n", if text.contains("sun") || text.contains("fire") { "warm" } else { "cold" });
        place.file("pairs.jsonl", sentences(1, 80).iter().map(pair).collect::<String>());
        place.file("topics.tsv", format!("text\tlabel\n{}", sentences(2, 80).iter().map(topic).collect::<String>()));
        let person = |(index, text): (usize, &String)| format!("{}\t{}", ["f", "m"][index * index % 3 % 2], topic(text));
        let people: String = sentences(6, 80).iter().enumerate().map(person).collect();
        place.file("people.tsv", format!("who\ttext\tlabel\n{people}"));
        for (seed, name, n) in [(3, "lines.txt", 60), (4, "more.txt", 60), (5, "general.txt", 160)] {
            place.file(name, sentences(seed, n).join("\n"));
        }
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file of it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("written");
    }

    /// The runner with these arguments, in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command that begins a run of `case`, with a checkpoint after every step.
    pub fn begin(&self, case: &Case, n_epochs: usize, out: &str) -> Command {
        let epochs = format!("epochs={n_epochs}");
        let sets = case.sets.iter().copied().chain([epochs.as_str(), "checkpoint.every_steps=1", "seed=3"]);
        let sets = sets.flat_map(|set| ["--set", set]);
        self.command(&[case.command, "--out", out].into_iter().chain(sets).collect::<Vec<_>>())
    }

    /// The command that goes on with a run.
    pub fn resume(&self, out: &str) -> Command {
        self.command(&["resume", out])
    }

    /// Everything that must not depend on how often a run was stopped: the files of models and adapters, and logs and results but for times.
    pub fn outcome(&self, out: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.path(out);
        let is_compared = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            !path.components().any(|part| part.as_os_str() == "checkpoints") && name != "report.html"
        };
        let mut outcome = BTreeMap::new();
        for path in files(&root).into_iter().filter(|path| is_compared(path)) {
            let content = fs::read(&path).expect("a file");
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let content = match name {
                "metrics.jsonl" | "results.json" => timeless(&String::from_utf8(content).expect("UTF-8")).into_bytes(),
                _ => content,
            };
            outcome.insert(path.strip_prefix(&root).expect("inside").to_owned(), content);
        }
        outcome
    }
}

/// The lines of a log or of indented JSON without what is a time.
fn timeless(text: &str) -> String {
    let part = |part: &&str| !part.contains("seconds\":") && !part.contains("_per_second\":");
    text.lines().map(|line| line.split(',').filter(part).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// Every file under `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The steps that a run and its parts have logged.
pub fn n_logged(folder: &Path) -> usize {
    let is_log = |path: &PathBuf| path.ends_with("metrics.jsonl");
    let lines = |path: PathBuf| fs::read(path).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
    files(folder).into_iter().filter(is_log).map(lines).sum()
}

/// What a run that must succeed says on stderr.
pub fn succeeded(command: &mut Command, case: &str) -> String {
    text(&finished(command.spawn().expect("the runner starts"), Some(0), case))
}

/// What came of a process, which must end with `code`.
pub fn finished(child: Child, code: Option<i32>, case: &str) -> Output {
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), code, "{case}\n{}", text(&output));
    output
}

/// What a process said on stderr.
pub fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}
