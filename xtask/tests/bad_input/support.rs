//! What the cases share: tiny models, a folder with data, and runs that must be refused.

use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Texts of all cases.
pub const SENTENCES: [&str; 6] = [
    "the sea is cold today",
    "the sun is warm today",
    "snow fell on the hill",
    "a fire burns in the room",
    "ice on the sea",
    "the sun is on the hill",
];
/// Positions of the models.
pub const POSITIONS: usize = 32;

/// The folders of the models all cases start from: `decoder`, `encoder` and `classifier` ("cold", "warm").
pub fn models() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad_input");
        let (device, key) = (device::by_name("flex").expect("a device"), Key::new(0));
        let tokenizer = Tokenizer::train(SENTENCES.into_iter(), 300).expect("a tokenizer");
        let vocab_size = tokenizer.vocab_size();
        let config = |keys: Value| {
            let Value::Object(mut keys) = keys else { panic!("an object") };
            for (key, value) in [
                ("vocab_size", vocab_size),
                ("hidden_size", 16),
                ("intermediate_size", 32),
                ("num_hidden_layers", 1),
                ("num_attention_heads", 2),
                ("max_position_embeddings", POSITIONS),
            ] {
                keys.insert(key.into(), value.into());
            }
            ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration")
        };
        let llama = config(json!({"model_type": "llama", "hidden_act": "silu", "eos_token_id": 2, "tie_word_embeddings": true}));
        let bert = config(json!({"model_type": "bert", "hidden_act": "gelu"}));
        let labels = ["cold", "warm"].map(str::to_owned);
        let decoder = LanguageModel::new(llama, &device, key).expect("a decoder");
        let encoder = LanguageModel::new(bert.clone(), &device, key).expect("an encoder");
        let classifier = SequenceClassifier::new(bert, &labels, &device, key).expect("a classifier");
        model::save(&decoder, &tokenizer, &folder.join("decoder")).expect("saved");
        model::save(&encoder, &tokenizer, &folder.join("encoder")).expect("saved");
        model::save(&classifier, &tokenizer, &folder.join("classifier")).expect("saved");
        folder
    })
}

/// A folder of one test's own, with good data in `texts.tsv`, `pairs.jsonl` and `lines.txt`, and `out` for what a run leaves.
pub struct Place(TempDir);

impl Place {
    /// With its data.
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let labelled =
            SENTENCES.map(|text| format!("{text}\t{}\n", if text.contains("sun") || text.contains("fire") { "warm" } else { "cold" }));
        place.file("texts.tsv", format!("text\tlabel\n{}", labelled.concat()));
        let pairs = SENTENCES.map(|text| format!("{}\n", json!({"prompt": text, "completion": " yes"})));
        place.file("pairs.jsonl", pairs.concat());
        place.file("lines.txt", SENTENCES.join("\n"));
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

    /// A copy of a model, to be damaged.
    pub fn copy(&self, model: &str) -> PathBuf {
        let to = self.path(model);
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).expect("a folder");
        for entry in fs::read_dir(models().join(model)).expect("a model") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
        to
    }

    /// Runs `cargo xtask`, in this folder and with `--out out`.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(self.0.path()).args(arguments.iter().map(AsRef::as_ref)).args(["--out", "out"]).env("RUST_BACKTRACE", "1");
        command.output().expect("the runner starts")
    }

    /// Runs what must be refused in a line that has all of `words`.
    pub fn refused<S: AsRef<str> + Debug>(&self, arguments: &[S], words: &[&str]) {
        let before = files(&self.path("out"));
        let output = self.run(arguments);
        let line = String::from_utf8(output.stderr).expect("UTF-8");
        let case = format!("{arguments:?}\n{line}");
        assert_eq!(output.status.code(), Some(2), "{case}");
        assert!(line.starts_with("error: ") && line.ends_with('\n') && line.matches('\n').count() == 1, "not one line: {case}");
        assert!(output.stdout.is_empty(), "{case}{}", String::from_utf8_lossy(&output.stdout));
        for word in words {
            assert!(line.contains(word), "no {word:?} in: {case}");
        }
        assert_eq!(files(&self.path("out")), before, "files changed: {case}");
        println!("{line}");
    }

    /// The same for fine-tuning `model` with these settings.
    pub fn sft_refused(&self, model: &Path, sets: &[&str], words: &[&str]) {
        self.refused(&arguments("sft", model, sets), words);
    }

    /// The same for the decoder.
    pub fn decoder_refused(&self, sets: &[&str], words: &[&str]) {
        self.sft_refused(&models().join("decoder"), sets, words);
    }

    /// Fine-tunes a decoder that must be.
    pub fn trained(&self, model: &str, sets: &[&str]) -> String {
        let arguments = arguments("sft", &models().join(model), sets);
        let output = self.run(&arguments);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}\n{text}");
        text
    }
}

/// The arguments of `command` for `model` with these settings.
pub fn arguments(command: &str, model: &Path, sets: &[&str]) -> Vec<String> {
    let model = format!("model={}", model.display());
    let sets = sets.iter().flat_map(|&set| ["--set".to_owned(), set.to_owned()]);
    [command.to_owned(), "--set".to_owned(), model].into_iter().chain(sets).collect()
}

/// Every file under `folder` with its content.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}
