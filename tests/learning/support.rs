//! What the learning tests share: tiny untrained models of the sample world, and runs of their own folders.

use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::world::{Domain, LabelledText, Question, TOPICS, World, write_jsonl};
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::train::{self, Summary};
use kiln_train::effort::Effort;
use kiln_train::run::read_metrics;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folder of real weights and data; `None`, with a word about it, where there is none.
pub fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("KILN_SHARED");
    if root.is_none() {
        println!("skipped: KILN_SHARED is not set");
    }
    root.map(PathBuf::from)
}

/// The device of all tests here.
pub fn flex() -> Device {
    device::by_name("flex").expect("a device")
}

fn scored(row: LabelledText) -> Value {
    json!({"text": row.text, "label": TOPICS.iter().position(|topic| *topic == row.label)})
}

/// A folder with the rows of a small world and two untrained models of it.
pub struct Place {
    folder: TempDir,
    /// The world of the rows.
    pub world: World,
}

impl Place {
    /// `decoder` and `encoder`, untrained.
    pub fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), world: World::new(3) };
        let documents = Domain::ALL.map(|domain| place.world.documents(domain, 200)).concat();
        let questions = place.world.question_rows(400);
        let texts =
            documents.iter().map(|row| row.text.as_str()).chain(questions.iter().flat_map(|row| [row.prompt.as_str(), &row.completion]));
        let tokenizer = Tokenizer::train(texts, 512).expect("a tokenizer");
        let vocab_size = tokenizer.vocab_size();
        for (name, keys) in [
            (
                "decoder",
                json!({
                    "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "hidden_act": "silu",
                    "tie_word_embeddings": true, "eos_token_id": 2,
                }),
            ),
            (
                "encoder",
                json!({
                    "model_type": "bert", "vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "max_position_embeddings": 128, "hidden_act": "gelu",
                }),
            ),
        ] {
            let Value::Object(keys) = keys else { panic!("an object") };
            let config = ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration");
            let model = LanguageModel::new(config, &flex(), Key::new(3)).expect("a model");
            model::save(&model, &tokenizer, &place.path(name)).expect("saved");
        }
        place
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `questions.jsonl`, the same with its completions dealt out at random as `questions-control.jsonl`, and
    /// `questions-held-out.jsonl`.
    pub fn questions(&self, n: usize, n_held_out: usize) {
        let give = |row: &mut Question, other: &Question| row.completion.clone_from(&other.completion);
        self.rows("questions", &self.world.question_rows(n), &self.world.held_out().question_rows(n_held_out), give);
    }

    /// The same for `topics`.
    pub fn topics(&self, n: usize, n_held_out: usize) {
        let give = |row: &mut LabelledText, other: &LabelledText| row.label.clone_from(&other.label);
        self.rows("topics", &self.world.topic_rows(n), &self.world.held_out().topic_rows(n_held_out), give);
    }

    /// The same for `preferences`: the answer to each question and that to another one.
    pub fn preferences(&self, n: usize, n_held_out: usize) {
        let pairs = |rows: Vec<Question>| {
            let others = Key::new(12).permutation(rows.len());
            let pair = |(row, other): (&Question, usize)| {
                let (chosen, rejected) = (&row.completion, &rows[other].completion);
                json!({"prompt": row.prompt, "chosen": format!(" {chosen}"), "rejected": format!(" {rejected}")})
            };
            rows.iter().zip(others).map(pair).filter(|pair| pair["chosen"] != pair["rejected"]).collect::<Vec<_>>()
        };
        let (rows, held_out) = (pairs(self.world.question_rows(n)), pairs(self.world.held_out().question_rows(n_held_out)));
        // In the control every other pair is the wrong way round.
        let mut dealt = rows.clone();
        for row in dealt.iter_mut().step_by(2) {
            let chosen = row["chosen"].take();
            row["chosen"] = std::mem::replace(&mut row["rejected"], chosen);
        }
        for (part, rows) in [("", rows), ("-control", dealt), ("-held-out", held_out)] {
            write_jsonl(&self.path(&format!("preferences{part}.jsonl")), &rows).expect("rows");
        }
    }

    /// The same for `chats`, for models whose folder has the chat template of [`Self::give_template`]: two questions and their answers.
    pub fn chats(&self, n: usize, n_held_out: usize) {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let chats = |rows: Vec<Question>| {
            let chat = |pair: &[Question]| {
                let turns = pair.iter().flat_map(|row| [turn("user", &row.prompt), turn("assistant", &row.completion)]);
                json!({"messages": turns.collect::<Vec<_>>()})
            };
            rows.chunks_exact(2).map(chat).collect::<Vec<_>>()
        };
        let give = |row: &mut Value, other: &Value| {
            for turn in [1, 3] {
                row["messages"][turn]["content"] = other["messages"][turn]["content"].clone();
            }
        };
        self.rows("chats", &chats(self.world.question_rows(2 * n)), &chats(self.world.held_out().question_rows(2 * n_held_out)), give);
    }

    /// Writes a chat template into a model's folder.
    pub fn give_template(&self, model: &Path) {
        let template = "{% for m in messages %}{{ bos_token if m.role == 'user' else ' ' }}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}{% if add_generation_prompt %} {% endif %}";
        std::fs::write(model.join("chat_template.jinja"), template).expect("a template");
    }

    /// The same for `entities`.
    pub fn entities(&self, n: usize, n_held_out: usize) {
        // Tags dealt out among sentences of one length would hardly be a control: the words of each sentence change places instead.
        let mut dealt = self.world.entity_rows(n);
        for (index, row) in dealt.iter_mut().enumerate() {
            let order = Key::new(11).fold(index as u64).permutation(row.tokens.len());
            row.tokens = order.into_iter().map(|word| row.tokens[word].clone()).collect();
        }
        let (rows, held_out) = (self.world.entity_rows(n), self.world.held_out().entity_rows(n_held_out));
        for (part, rows) in [("", rows), ("-control", dealt), ("-held-out", held_out)] {
            write_jsonl(&self.path(&format!("entities{part}.jsonl")), &rows).expect("rows");
        }
    }

    /// The same for `scores`: texts with the number of their topic, from 0.
    pub fn scores(&self, n: usize, n_held_out: usize) {
        let scored = |rows: Vec<LabelledText>| rows.into_iter().map(scored).collect::<Vec<_>>();
        let give = |row: &mut Value, other: &Value| row["label"] = other["label"].clone();
        self.rows("scores", &scored(self.world.topic_rows(n)), &scored(self.world.held_out().topic_rows(n_held_out)), give);
    }

    fn rows<T: Clone + serde::Serialize>(&self, name: &str, rows: &[T], held_out: &[T], give: impl Fn(&mut T, &T)) {
        let mut dealt = rows.to_vec();
        dealt.iter_mut().zip(Key::new(11).permutation(rows.len())).for_each(|(row, other)| give(row, &rows[other]));
        for (part, rows) in [("", rows), ("-control", &dealt), ("-held-out", held_out)] {
            write_jsonl(&self.path(&format!("{name}{part}.jsonl")), rows).expect("rows");
        }
    }

    /// Settings for the model and rows of these names, judged by `HELD-OUT-held-out.jsonl`.
    pub fn config(&self, task: Task, model: &str, rows: &str, held_out: &str) -> SftConfig {
        let mut config = SftConfig { model: self.path(model), task, seed: 5, ..SftConfig::default() };
        config.data.train = self.path(&format!("{rows}.jsonl")).into();
        config.data.held_out = Some(self.path(&format!("{held_out}-held-out.jsonl")));
        config
    }

    /// Trains into the folder `out`, and prints what came of it.
    pub fn train(&self, config: &SftConfig, out: &str) -> Summary {
        let summary = train::train(config, &flex(), &self.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"));
        let Summary { before, after, effort, .. } = &summary;
        let Effort { n_steps, train_seconds, tokens_per_second, .. } = effort;
        println!(
            "{out}: {} {:.4} -> {:.4}, loss {:.4} -> {:.4} on {} rows; {n_steps} steps in {train_seconds:.1} s, {tokens_per_second:.0} tokens/s",
            after.figure.metric, before.figure.value, after.figure.value, before.loss, after.loss, after.n_rows
        );
        summary
    }

    /// The bytes of the trained weights of a run.
    pub fn weights(&self, out: &str) -> Vec<u8> {
        std::fs::read(self.path(out).join("model/model.safetensors")).expect("weights")
    }

    /// The loss of every step of a run.
    pub fn losses(&self, out: &str) -> Vec<f64> {
        let lines = read_metrics(&self.path(out).join("metrics.jsonl")).expect("metrics");
        lines.iter().map(|line| line.values["loss"].as_f64().expect("a loss")).collect()
    }
}
