//! How the rows of files become token sequences of one model; and prompts and completions, conversations, documents and running text for
//! next-token training.

use crate::columns::ColumnsConfig;
use crate::conversations::Chat;
use crate::examples::{Counts, Example, Limit, block_length, blocks, documents, end_id, prompt_completion};
use crate::rows::Table;
use crate::source::{DataConfig, Rows};
use kiln_core::Result;
use kiln_core::chat::ChatTemplate;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use std::path::Path;

/// Rows for next-token training; `seed` draws those held out.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long.
pub fn examples(data: &DataConfig, source: &TextSource<'_>, seed: u64) -> Result<Rows<Example>> {
    let (train, held_out) = data.read(&source.columns.names)?;
    Rows::of(data.separate(train, held_out, seed)?, |table| source.examples(table))
}

/// How the rows of a table become token sequences of a model.
#[derive(Clone, Copy, Debug)]
pub struct TextSource<'a> {
    /// What the columns mean.
    pub columns: &'a ColumnsConfig,
    /// Tokens per block of running text, 0 for the default.
    pub block_tokens: usize,
    /// The model's folder, to be named in errors.
    pub folder: &'a Path,
    /// The model's shape.
    pub model: &'a ModelConfig,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How long a sequence may be.
    pub limit: Limit,
}

impl TextSource<'_> {
    /// Prompts and completions if the table has both columns, conversations if it has that of messages, blocks of running text if it is a text
    /// file, else one document per row.
    ///
    /// # Errors
    /// If a column is missing, a row is too long, or the model has no chat template for conversations.
    pub fn examples(&self, table: &Table) -> Result<(Vec<Example>, Counts)> {
        let Self { columns, tokenizer, limit, .. } = self;
        let has = |column: &String| table.columns.contains(column);
        if has(&columns.prompt) && has(&columns.completion) {
            let end_id = end_id(&self.model.end_ids, self.folder)?;
            return prompt_completion(table, [&columns.prompt, &columns.completion], tokenizer, end_id, *limit);
        }
        if has(&columns.messages) {
            let template = ChatTemplate::from_folder(self.folder)?;
            let chat = Chat { template: &template, tokenizer, end_ids: &self.model.end_ids };
            return chat.examples(table, &columns.messages, *limit);
        }
        if table.is_running_text() {
            return blocks(table, &columns.text, tokenizer, block_length(self.block_tokens, limit.max_tokens)?);
        }
        documents(table, &columns.text, tokenizer, end_id(&self.model.end_ids, self.folder)?, *limit)
    }
}
