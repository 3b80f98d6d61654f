//! `cargo xtask generate`: continue a prompt.

use crate::{MethodArgs, results_file, settings};
use burn::module::Module;
use kiln_core::config::ModelConfig;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter, device, files};
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;

/// The settings of a generation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// The folder of the model, in Hugging Face layout.
    model: PathBuf,
    /// The folder of an adapter for it, in PEFT's layout.
    adapter: Option<PathBuf>,
    /// The text to continue; empty starts from nothing.
    prompt: String,
    /// How many continuations. 0 is 1.
    n: usize,
    /// Seed of the sampling. Default 0.
    seed: u64,
    /// How tokens are chosen.
    sampling: Sampling,
}

/// Prints the prompt with each continuation; `--out` keeps them as `results.json`.
///
/// # Errors
/// If a setting, the model or the prompt is bad.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config: GenerateConfig = settings::read(args)?;
    if config.model.as_os_str().is_empty() {
        return Err(Error::config("model", "missing: the folder of the model that continues the prompt"));
    }
    config.sampling.validate()?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let device = device::by_name(&args.device)?;
    let shape = ModelConfig::from_folder(&config.model)?;
    // Before its weights are read: they may lack the head that a language model has.
    if !shape.causal {
        return Err(Error::config("model", "an encoder cannot continue a text; generation needs a decoder"));
    }
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let (mut model, _) = LanguageModel::load(&config.model, &device)?;
    if let Some(folder) = &config.adapter {
        model = adapter::load(model, folder, &device)?;
    }
    let prompt = tokenizer.encode(&config.prompt)?;
    if prompt.is_empty() {
        return Err(Error::config("prompt", "missing: this tokenizer has no start token to begin from nothing"));
    }
    let prompts = vec![prompt.clone(); config.n.max(1)];
    let end_ids = model.config().end_ids.clone();
    let continuations = generate(&model.valid(), &prompts, &config.sampling, &end_ids, Key::new(config.seed))?;
    let texts = continuations.iter().map(|new| tokenizer.decode(&[prompt.as_slice(), new].concat())).collect::<Result<Vec<String>>>()?;
    for text in &texts {
        println!("{text}");
    }
    match results {
        Some(path) => files::write_json(&path, &json!({ "prompt": config.prompt, "texts": texts })),
        None => Ok(()),
    }
}
