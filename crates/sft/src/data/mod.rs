//! Rows of the user's files as token sequences of one task, split into what trains and what is held out.

pub mod preferences;

use crate::config::SftConfig;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::Limit;
use kiln_data::labels::Labels;
use kiln_data::text::TextSource;

/// How the rows of a run become token sequences.
///
/// # Errors
/// If the tokenizer cannot say what it puts after a text.
pub fn source<'a>(config: &'a SftConfig, model: &'a ModelConfig, tokenizer: &'a Tokenizer) -> Result<TextSource<'a>> {
    let limit = Limit::new(model.max_positions, config.overlong, tokenizer)?;
    Ok(TextSource { columns: &config.columns, block_tokens: config.block_tokens, folder: &config.model, model, tokenizer, limit })
}

/// The classes a model of the Hugging Face class `class` was trained for, in their order; placeholders such as LABEL_0 are not classes of
/// anything.
pub(crate) fn labels_of_model(model: &ModelConfig, class: &str) -> Option<Labels> {
    let names = model.label_names();
    let is_trained = !names.is_empty() && !names.iter().any(|name| name.starts_with("LABEL_"));
    (is_trained && model.class_name() == Some(class)).then(|| Labels::in_order(names))
}
