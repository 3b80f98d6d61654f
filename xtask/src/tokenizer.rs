//! `cargo xtask tokenizer`: train a tokenizer; `cargo xtask add-tokens`: give a model's tokenizer more tokens, and the model embeddings.

use crate::{MethodArgs, settings};
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::{Kind, Tokenizer};
use kiln_core::{Error, Result, device, model, vocabulary};
use kiln_data::rows::Table;
use kiln_data::source::required;
use kiln_data::texts::column_of;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The settings of a new tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Files of texts: `.txt`, or rows with a column of texts.
    data: Vec<PathBuf>,
    /// The column of texts. Default "text".
    column: String,
    /// How text is cut. Default byte-level BPE.
    kind: Kind,
    /// The most tokens, special ones and single characters included. Default 8192.
    vocab_size: usize,
    /// The folder to be written.
    output: PathBuf,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self { data: Vec::new(), column: "text".into(), kind: Kind::default(), vocab_size: 8192, output: PathBuf::new() }
    }
}

/// Trains a tokenizer and writes the files that transformers loads.
///
/// # Errors
/// If a setting or a file is bad, or the folder has a tokenizer.
pub fn train(args: &MethodArgs) -> Result<()> {
    let config: TokenizerConfig = settings::read(args)?;
    if config.data.is_empty() {
        return Err(Error::config("data", r#"missing: a list of files with texts, such as data=["notes.txt"]"#));
    }
    free_folder(&config.output, "tokenizer.json")?;
    let mut texts = Vec::new();
    for path in &config.data {
        let table = Table::read(path, &[])?;
        table.require_named(&[("column", &config.column)])?;
        texts.extend(column_of(&table, &config.column)?);
    }
    let tokenizer = Tokenizer::train_as(config.kind, texts.iter().map(String::as_str), config.vocab_size)?;
    tokenizer.save(&config.output)?;
    let n_characters: usize = texts.iter().map(|text| text.chars().count()).sum();
    let n_tokens: usize = tokenizer.encode_written(texts)?.iter().map(|text| text.ids.len()).sum();
    println!("tokens                {}", tokenizer.vocab_size());
    println!("characters per token  {:.2}", n_characters as f64 / n_tokens.max(1) as f64);
    println!("written to            {}", config.output.display());
    Ok(())
}

/// The settings of more tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddTokensConfig {
    /// The folder of the model, or its name on the hub.
    model: PathBuf,
    /// The tokens.
    tokens: Vec<String>,
    /// Whether they stand for no text, as those that begin and end a text. Default true.
    special: bool,
    /// The vocabulary is rounded up to a multiple of this. Default 1.
    multiple_of: usize,
    /// The folder to be written.
    output: PathBuf,
}

impl Default for AddTokensConfig {
    fn default() -> Self {
        Self { model: PathBuf::new(), tokens: Vec::new(), special: true, multiple_of: 1, output: PathBuf::new() }
    }
}

/// Writes the model with more tokens.
///
/// # Errors
/// If a setting or the model is bad, or the folder has a model.
pub fn add(args: &MethodArgs) -> Result<()> {
    let config: AddTokensConfig = settings::read(args)?;
    required("model", &config.model, "the folder of the model, or its name on the hub")?;
    if config.tokens.is_empty() {
        return Err(Error::config("tokens", r#"missing: a list, such as tokens=["<tool>", "</tool>"]"#));
    }
    if config.multiple_of == 0 {
        return Err(Error::config("multiple_of", "found 0, expected at least 1"));
    }
    free_folder(&config.output, "config.json")?;
    let mut tokenizer = Tokenizer::for_model(&config.model, &ModelConfig::from_folder(&config.model)?)?;
    let n_before = tokenizer.n_ids();
    let mut new = tokenizer.add(&config.tokens, config.special)?;
    new.retain(|&id| id as usize >= n_before);
    let (model, _) = LanguageModel::load(&config.model, &device::by_name(&args.device)?)?;
    let n_rows_before = model.config().vocab_size;
    let model = vocabulary::grow(model, &new, config.multiple_of);
    model::save(&model, &tokenizer, &config.output)?;
    println!("tokens      {n_before}, now {}", tokenizer.n_ids());
    println!("embeddings  {n_rows_before}, now {}", model.config().vocab_size);
    println!("written to  {}", config.output.display());
    Ok(())
}

/// Refuses to write over what is there.
fn free_folder(folder: &Path, file: &str) -> Result<()> {
    required("output", folder, "the folder to be written")?;
    match folder.join(file).exists() {
        true => Err(Error::config("output", format!("{} already holds {file}: choose another folder", folder.display()))),
        false => Ok(()),
    }
}
