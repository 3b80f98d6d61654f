//! `cargo xtask demo`: every method on the built-in sample world, from nothing but this repository.
//!
//! It makes a small world, trains a tokenizer and a base decoder on its documents, fine-tunes, and judges each method on held-out rows
//! against the model before and against a control: the same training on rows whose right answers were dealt out at random.

use crate::sft::{number, range};
use crate::{out_folder, results_file};
use burn::tensor::Device;
use clap::Args;
use kiln_core::config::ModelConfig;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, device, files};
use kiln_data::world::{Domain, LabelledText, Question, World, write_jsonl};
use kiln_eval::bootstrap::{Bootstrap, Interval, mean};
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::train::{Summary, train};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the demo takes.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Seed of the world and of all training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for models, runs and results.json [default: the next free runs/demo-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: String,
}

/// One method's line.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    metric: &'static str,
    higher_is_better: bool,
    before: f64,
    after: f64,
    control: f64,
    /// 95 % interval of `after`.
    interval: Interval,
    /// Training of the method, its control left out.
    seconds: f64,
}

/// Rows of each kind: enough to learn the world, few enough for minutes.
const DOCUMENTS_PER_DOMAIN: usize = 2500;
const QUESTIONS: usize = 6000;
const TOPIC_TEXTS: usize = 3000;
const HELD_OUT_ROWS: usize = 400;
const VOCAB_SIZE: usize = 1024;

/// Streams of randomness that one seed feeds.
const WEIGHTS: u64 = 0;
const DEAL: u64 = 1;

struct Demo {
    seed: u64,
    out: PathBuf,
    device: Device,
    world: World,
}

/// Runs the demo.
///
/// # Errors
/// If the output folder is taken or cannot be written.
pub fn run(args: &DemoArgs) -> Result<()> {
    let out = out_folder(args.out.as_ref(), "demo")?;
    let results = results_file(&out)?;
    let start = Instant::now();
    let demo = Demo { seed: args.seed, out, device: device::by_name(&args.device)?, world: World::new(args.seed) };
    let base = demo.base()?;
    let lines = [demo.classification(&base)?, demo.completion(&base)?];
    let seconds = start.elapsed().as_secs_f64();
    println!("{:<20} {:<16} {:>8} {:>8} {:>8}  {:<18} {:>7}", "method", "metric", "before", "control", "after", "95 % interval", "seconds");
    for Line { name, metric, before, after, control, interval, seconds, .. } in &lines {
        let [before, control, after] = [before, control, after].map(|value| number(*value));
        println!("{name:<20} {metric:<16} {before:>8} {control:>8} {after:>8}  {:<18} {seconds:>7.1}", range(interval));
    }
    files::write_json(&results, &json!({ "seed": args.seed, "seconds": seconds, "methods": lines }))?;
    println!("\n{seconds:.0} s in all; models and runs are in {}", demo.out.display());
    Ok(())
}

impl Demo {
    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// A tokenizer and a decoder that has read the world's documents; the folder of the model.
    fn base(&self) -> Result<PathBuf> {
        let texts = |world: &World, n| Domain::ALL.into_iter().flat_map(|domain| world.documents(domain, n)).collect::<Vec<_>>();
        let documents = texts(&self.world, DOCUMENTS_PER_DOMAIN);
        let questions = self.world.question_rows(QUESTIONS);
        let tokenizer_texts = documents.iter().map(|document| document.text.as_str());
        let tokenizer_texts = tokenizer_texts.chain(questions.iter().flat_map(|row| [row.prompt.as_str(), row.completion.as_str()]));
        let tokenizer = Tokenizer::train(tokenizer_texts, VOCAB_SIZE)?;
        write_jsonl(&self.path("data/documents.jsonl"), &documents)?;
        write_jsonl(&self.path("data/documents-held-out.jsonl"), &texts(&self.world.held_out(), HELD_OUT_ROWS / 3))?;
        let untrained = self.path("untrained");
        let key = Key::new(self.seed).fold(WEIGHTS);
        let decoder = LanguageModel::new(decoder_config(&tokenizer)?, &self.device, key)?;
        model::save(&decoder, &tokenizer, &untrained)?;
        let mut config = self.config(Task::NextToken, &untrained, "documents");
        config.batch_tokens = 1024;
        config.batch_rows = 0;
        config.update.learning_rate = 3e-3;
        config.update.warmup_share = 0.05;
        let summary = self.train(&config, "base")?;
        println!(
            "base decoder: {} parameters, perplexity of held-out documents {} -> {} in {:.0} s\n",
            summary.n_parameters,
            number(summary.before.figure.value),
            number(summary.after.figure.value),
            summary.train_seconds
        );
        Ok(self.path("base/model"))
    }

    /// Topics of texts, by a small encoder.
    fn classification(&self, base: &Path) -> Result<Line> {
        let rows = self.world.topic_rows(TOPIC_TEXTS);
        let dealt = self.deal(&rows, |row: &mut LabelledText, other| row.label.clone_from(&other.label));
        self.write_rows("topics", &rows, &dealt, &self.world.held_out().topic_rows(HELD_OUT_ROWS))?;
        let tokenizer = Tokenizer::from_folder(base)?;
        let untrained = self.path("untrained-encoder");
        let key = Key::new(self.seed).fold(WEIGHTS);
        model::save(&LanguageModel::new(encoder_config(&tokenizer)?, &self.device, key)?, &tokenizer, &untrained)?;
        let run = |rows: &str, out: &str| {
            let mut config = self.config(Task::Classification, &untrained, rows);
            config.data.held_out = Some(self.path("data/topics-held-out.jsonl"));
            config.epochs = 4;
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            self.train(&config, out)
        };
        let control = run("topics-control", "sft-classification-control")?;
        let summary = run("topics", "sft-classification")?;
        Ok(Line {
            name: "sft classification",
            metric: summary.after.figure.metric,
            higher_is_better: summary.after.figure.higher_is_better,
            before: summary.before.figure.value,
            after: summary.after.figure.value,
            control: control.after.figure.value,
            interval: summary.after.figure.interval,
            seconds: summary.train_seconds,
        })
    }

    /// Answers to questions on sums and on the world's people, by the base decoder.
    fn completion(&self, base: &Path) -> Result<Line> {
        let spaced = |rows: Vec<Question>| {
            rows.into_iter().map(|row| Question { completion: format!(" {}", row.completion), ..row }).collect::<Vec<_>>()
        };
        let rows = spaced(self.world.question_rows(QUESTIONS));
        let dealt = self.deal(&rows, |row: &mut Question, other| row.completion.clone_from(&other.completion));
        let held_out = spaced(self.world.held_out().question_rows(HELD_OUT_ROWS));
        self.write_rows("questions", &rows, &dealt, &held_out)?;
        let run = |rows: &str, out: &str| {
            let mut config = self.config(Task::NextToken, base, rows);
            config.data.held_out = Some(self.path("data/questions-held-out.jsonl"));
            config.epochs = 2;
            config.update.learning_rate = 2e-3;
            config.update.warmup_share = 0.05;
            let summary = self.train(&config, out)?;
            Ok::<_, Error>((summary, self.answers(&self.path(out).join("model"), &held_out)?))
        };
        let (_, control) = run("questions-control", "sft-completion-control")?;
        let (summary, after) = run("questions", "sft-completion")?;
        Ok(Line {
            name: "sft completion",
            metric: "right answers",
            higher_is_better: true,
            before: mean(&self.answers(base, &held_out)?),
            after: mean(&after),
            control: mean(&control),
            interval: Bootstrap::new(self.seed).interval(&after, mean),
            seconds: summary.train_seconds,
        })
    }

    /// 1 for each question whose greedy completion ends in the answer's words, else 0.
    fn answers(&self, folder: &Path, questions: &[Question]) -> Result<Vec<f64>> {
        let tokenizer = Tokenizer::from_folder(folder)?;
        let (model, _) = LanguageModel::load(folder, &self.device)?;
        let prompts = tokenizer.encode_all(questions.iter().map(|row| row.prompt.clone()).collect())?;
        let sampling = Sampling { max_new_tokens: 40, ..Sampling::default() };
        let continuations = generate(&model, &prompts, &sampling, &model.config().end_ids, Key::new(self.seed))?;
        let right = |(row, new): (&Question, Vec<u32>)| Ok(f64::from(u8::from(tokenizer.decode(&new)?.trim() == row.completion.trim())));
        questions.iter().zip(continuations).map(right).collect()
    }

    fn config(&self, task: Task, model: &Path, rows: &str) -> SftConfig {
        let mut config = SftConfig { model: model.to_owned(), task, seed: self.seed, ..SftConfig::default() };
        config.data.train = self.path(&format!("data/{rows}.jsonl"));
        config.data.held_out = Some(self.path(&format!("data/{rows}-held-out.jsonl")));
        config
    }

    fn train(&self, config: &SftConfig, out: &str) -> Result<Summary> {
        eprintln!("{out}");
        train(config, &self.device, &self.path(out))
    }

    fn write_rows<T: Serialize>(&self, name: &str, rows: &[T], dealt: &[T], held_out: &[T]) -> Result<()> {
        write_jsonl(&self.path(&format!("data/{name}.jsonl")), rows)?;
        write_jsonl(&self.path(&format!("data/{name}-control.jsonl")), dealt)?;
        write_jsonl(&self.path(&format!("data/{name}-held-out.jsonl")), held_out)
    }

    /// The rows with their right answers dealt out at random: what the control learns from.
    fn deal<T: Clone>(&self, rows: &[T], give: impl Fn(&mut T, &T)) -> Vec<T> {
        let order = Key::new(self.seed).fold(DEAL).permutation(rows.len());
        let mut dealt = rows.to_vec();
        dealt.iter_mut().zip(order).for_each(|(row, other)| give(row, &rows[other]));
        dealt
    }
}

/// A Llama of about a million parameters.
fn decoder_config(tokenizer: &Tokenizer) -> Result<ModelConfig> {
    config(json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "pad_token_id": tokenizer.id("<pad>"), "bos_token_id": tokenizer.id("<s>"),
        "eos_token_id": tokenizer.id("</s>"),
    }))
}

/// A BERT of about half a million parameters.
fn encoder_config(tokenizer: &Tokenizer) -> Result<ModelConfig> {
    config(json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": tokenizer.id("<pad>"),
    }))
}

fn config(keys: Value) -> Result<ModelConfig> {
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    ModelConfig::from_json(keys, Path::new("config.json"))
}
