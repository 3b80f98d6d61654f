//! `cargo xtask generate`: continue a prompt, or each prompt of a file.

use crate::{MethodArgs, results_file, settings};
use burn::module::Module;
use kiln_core::config::ModelConfig;
use kiln_core::generate::{Continuation, Growing, Sampling, continuations};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter, device, files};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::texts::filled;
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The settings of a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// The folder of the model, in Hugging Face layout.
    model: PathBuf,
    /// The folder of an adapter for it, in PEFT's layout.
    adapter: Option<PathBuf>,
    /// The text to continue; empty starts from nothing.
    prompt: String,
    /// A file of prompts instead: .jsonl, .csv, .tsv, or .txt with one on each line.
    data: Option<PathBuf>,
    /// The column of the prompts. Default prompt.
    column: String,
    /// The file to write instead of printing texts: .jsonl with a line for each continuation.
    output: Option<PathBuf>,
    /// How many continuations of each prompt. Default 1.
    n: usize,
    /// Seed of the sampling. Default 0.
    seed: u64,
    /// Strings that a continuation ends before.
    stop: Vec<String>,
    /// Tokens that a continuation ends with, beside those that the model's `config.json` names.
    stop_ids: Vec<u32>,
    /// How tokens are chosen.
    sampling: Sampling,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            adapter: None,
            prompt: String::new(),
            data: None,
            column: "prompt".into(),
            output: None,
            n: 1,
            seed: 0,
            stop: Vec::new(),
            stop_ids: Vec::new(),
            sampling: Sampling::default(),
        }
    }
}

/// Tokens that the caches of a batch hold at most; results do not depend on it.
const CACHE_TOKENS: usize = 64 * 1024;

/// A continuation, as it is written to a file.
#[derive(Debug, Serialize)]
struct Said<'a> {
    prompt: &'a str,
    text: String,
    ids: Vec<u32>,
    log_probabilities: Vec<f32>,
    ended: bool,
}

impl GenerateConfig {
    fn validate(&self) -> Result<()> {
        if self.model.as_os_str().is_empty() {
            return Err(Error::config("model", "missing: the folder of the model that continues the prompt"));
        }
        if self.data.is_some() && !self.prompt.is_empty() {
            return Err(Error::config("prompt", "found beside data: set one of the two"));
        }
        if self.n == 0 {
            return Err(Error::config("n", "found 0, expected at least 1"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::config("stop", "found an empty string, which every text begins with"));
        }
        if !self.stop.is_empty() && self.sampling.n_beams > 1 {
            return Err(Error::config("stop", "a beam search ends by tokens only: set stop_ids, or sampling.n_beams=1"));
        }
        if let Some(path) = self.output.as_ref().filter(|path| path.extension().is_none_or(|extension| extension != "jsonl")) {
            return Err(Error::config("output", format!("found {}, expected a .jsonl file", path.display())));
        }
        self.sampling.validate()
    }
}

/// Prints each prompt with its continuations, a single one as it grows, or writes them to a file; `--out` keeps them as `results.json`.
///
/// # Errors
/// If a setting, the model or a prompt is bad.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config: GenerateConfig = settings::read(args)?;
    config.validate()?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    if let Some(path) = &config.output {
        files::check_writable("output", path.parent().unwrap_or(Path::new("")))?;
    }
    let device = device::by_name(&args.device)?;
    let shape = ModelConfig::from_folder(&config.model)?;
    // Before its weights are read: they may lack the head that a language model has.
    if !shape.causal {
        return Err(Error::config("model", "an encoder cannot continue a text; generation needs a decoder"));
    }
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let texts = match &config.data {
        Some(path) => read_prompts(path, &config.column, &tokenizer, shape.max_positions)?,
        None => vec![config.prompt.clone()],
    };
    let prompts = tokenizer.encode_all(texts.clone())?;
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::config("prompt", "missing: this tokenizer has no start token to begin from nothing"));
    }
    let (mut model, _) = LanguageModel::load(&config.model, &device)?;
    if let Some(folder) = &config.adapter {
        model = adapter::load(model, folder, &device)?;
    }
    let generator = Generator { model: model.valid(), tokenizer: &tokenizer, config: &config };
    let start = Instant::now();
    let said = generator.run(&texts, &prompts)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &config.output {
        write_jsonl(path, &said)?;
        let n_tokens: usize = said.iter().map(|said| said.ids.len()).sum();
        println!("{} continuations of {} prompts, {n_tokens} tokens, {seconds:.1} s", said.len(), prompts.len());
        println!("{:<14} {}", "continuations", path.display());
    }
    match results {
        Some(path) => {
            let texts: Vec<String> = said.iter().map(|said| said.text.clone()).collect();
            files::write_json(&path, &json!({ "prompts": texts_of(&said), "texts": texts }))
        }
        None => Ok(()),
    }
}

fn texts_of<'a>(said: &[Said<'a>]) -> Vec<&'a str> {
    said.iter().map(|said| said.prompt).collect()
}

fn read_prompts(path: &Path, column: &str, tokenizer: &Tokenizer, max_positions: usize) -> Result<Vec<String>> {
    let table = Table::read(path, &[])?;
    // A line of plain text has no column to be named.
    let column = if path.extension().is_some_and(|extension| extension == "txt") { "text" } else { column };
    table.require_named(&[("column", column)])?;
    let prompt = |row| {
        let text = filled(&table, row, column, table.text(row, column)?)?;
        let n_tokens = tokenizer.encode(&text)?.len();
        if n_tokens >= max_positions {
            return Err(table.error(row, format!("the prompt has {n_tokens} tokens, expected 1 to {} for this model", max_positions - 1)));
        }
        Ok(text)
    };
    table.rows.iter().map(prompt).collect()
}

struct Generator<'a> {
    model: LanguageModel,
    tokenizer: &'a Tokenizer,
    config: &'a GenerateConfig,
}

impl Generator<'_> {
    /// The continuations of all prompts, in batches whose caches stay small; printed, unless they go to a file.
    fn run<'a>(&self, texts: &'a [String], prompts: &[Vec<u32>]) -> Result<Vec<Said<'a>>> {
        let Sampling { max_new_tokens, n_beams, .. } = self.config.sampling;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let n_together = CACHE_TOKENS / (self.config.n.max(n_beams) * (longest + max_new_tokens));
        let prints = self.config.output.is_none();
        let streams = prints && prompts.len() * self.config.n == 1 && n_beams == 1;
        let mut said = Vec::with_capacity(prompts.len() * self.config.n);
        for (batch, prompts) in prompts.chunks(n_together.max(1)).enumerate() {
            let first = batch * n_together.max(1);
            let key = |prompt: usize| Key::new(self.config.seed).fold((first + prompt) as u64);
            let keys: Vec<Vec<Key>> =
                (0..prompts.len()).map(|prompt| (0..self.config.n as u64).map(|index| key(prompt).fold(index)).collect()).collect();
            for (prompt, (continuation, text)) in self.batch(prompts, &keys, streams)? {
                if streams {
                    println!();
                } else if prints {
                    println!("{}{text}", self.tokenizer.decode(&prompts[prompt])?);
                }
                let Continuation { ids, log_probabilities, ended, .. } = continuation;
                said.push(Said { prompt: &texts[first + prompt], text, ids, log_probabilities, ended });
            }
        }
        Ok(said)
    }

    /// Each continuation of a batch with the number of its prompt and its text; a single one is printed as it grows.
    fn batch(&self, prompts: &[Vec<u32>], keys: &[Vec<Key>], streams: bool) -> Result<Vec<(usize, (Continuation, String))>> {
        let Self { model, tokenizer, config } = self;
        let end_ids = [model.config().end_ids.as_slice(), &config.stop_ids].concat();
        let of_prompt = |index: usize| (0..config.n).map(move |_| index);
        let mut texts: Vec<Growing<'_>> =
            (0..prompts.len()).flat_map(of_prompt).map(|prompt| Growing::new(tokenizer, &prompts[prompt], &config.stop)).collect();
        let mut before = if streams { tokenizer.decode(&prompts[0])? } else { String::new() };
        let mut show = |text: &mut Growing<'_>, goes_on: bool| {
            if streams {
                print!("{}{}", std::mem::take(&mut before), text.news(goes_on));
                // Who closed the pipe does not want the rest.
                let _ = stdout().flush();
            }
        };
        let mut outcome = Ok(());
        let mut watch = |sequence: usize, continuation: &Continuation| {
            let text = &mut texts[sequence];
            if let (Some(&id), Ok(())) = (continuation.ids.last(), &outcome) {
                outcome = text.push(id);
            }
            let goes_on = outcome.is_ok() && !text.is_stopped();
            show(text, goes_on);
            goes_on
        };
        let groups = continuations(model, prompts, keys, &config.sampling, &end_ids, &mut watch)?;
        outcome?;
        let all = groups.into_iter().enumerate().flat_map(|(prompt, group)| group.into_iter().map(move |each| (prompt, each)));
        all.zip(&mut texts)
            .map(|((prompt, continuation), text)| {
                if config.sampling.n_beams > 1 {
                    continuation.ids.iter().try_for_each(|&id| text.push(id))?;
                }
                text.finish()?;
                show(text, false);
                Ok((prompt, (continuation, text.text().to_owned())))
            })
            .collect()
    }
}
