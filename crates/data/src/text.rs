//! How the rows of files become token sequences of one model; and prompts and completions, conversations, documents and running text for
//! next-token training.

use crate::columns::ColumnsConfig;
use crate::conversations::{Chat, messages};
use crate::examples::{Counts, Example, Limit, block_length, blocks, completion, completions_within, documents, end_id, prompt_completion};
use crate::layout::{self, Layout};
use crate::rows::{Row, Table};
use crate::source::{DataConfig, Draw, Rows};
use kiln_core::chat::ChatTemplate;
use kiln_core::config::ModelConfig;
use kiln_core::files::{sha256, sha256_of};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, hub};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// Rows for next-token training; `draw` says which train.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long.
pub fn examples(data: &DataConfig, source: &TextSource<'_>, draw: Draw<'_>) -> Result<Rows<Example>> {
    let files = data.open(&source.columns.names, draw)?;
    let note = |table| {
        let (layout, others) = Layout::of(table, source.columns)?;
        Ok(layout::note(table, layout.name(), &layout.columns(), &others))
    };
    let notes = files.train().map(note).collect::<Result<_>>()?;
    let rows = files.rows(source.limit, &|| source.settings("examples", &[]), |table| source.examples(table))?;
    Ok(Rows { notes, ..rows })
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
    /// The rows of a table, by its [`Layout`]. Conversations are written by the model's chat template; instructions too, if it has one, and
    /// else as a prompt of the instruction, its input and an empty line.
    ///
    /// # Errors
    /// If no layout fits, a row is too long, or the model has no chat template for conversations.
    pub fn examples(&self, table: &Table) -> Result<(Vec<Example>, Counts)> {
        let Self { columns, tokenizer, limit, folder, .. } = *self;
        let chat = |template| Chat { template, tokenizer, end_ids: &self.model.end_ids };
        match Layout::of(table, columns)?.0 {
            Layout::PromptCompletion(columns) => prompt_completion(table, columns, tokenizer, end_id(&self.model.end_ids, folder)?, limit),
            Layout::Messages(column) => {
                let template = ChatTemplate::from_folder(folder)?;
                chat(&template).examples(table, limit, |row| messages(table, row, column))
            }
            Layout::Alpaca(columns) => {
                let parts = |row| instruction(table, row, columns);
                match ChatTemplate::find(folder)? {
                    Some(template) => chat(&template).examples(table, limit, |row| {
                        let (prompt, output) = parts(row)?;
                        Ok(vec![json!({"role": "user", "content": prompt}), json!({"role": "assistant", "content": output})])
                    }),
                    None => {
                        let texts = |row| parts(row).map(|(prompt, output)| [prompt + "\n\n", output]);
                        completions_within(table, texts, tokenizer, end_id(&self.model.end_ids, folder)?, limit)
                    }
                }
            }
            Layout::RunningText(column) => blocks(table, column, tokenizer, block_length(self.block_tokens, limit.max_tokens)?),
            Layout::Text(column) => documents(table, column, tokenizer, end_id(&self.model.end_ids, folder)?, limit),
        }
    }

    /// All that rows of `kind` depend on beside the rows of the file.
    ///
    /// # Errors
    /// If the model's files cannot be read.
    pub fn settings(&self, kind: &str, labels: &[String]) -> Result<Value> {
        let Self { block_tokens, folder, .. } = *self;
        let more = json!({"labels": labels, "block_tokens": block_tokens, "end_ids": self.model.end_ids, "template": template(folder)?});
        settings(kind, self.columns, self.limit, self.tokenizer, &more)
    }
}

/// All that rows of `kind` depend on beside the rows of the file, `more` among it: what they are kept under on disk.
///
/// # Errors
/// If the tokenizer cannot be written.
pub fn settings(kind: &str, columns: &impl Serialize, limit: Limit, tokenizer: &Tokenizer, more: &impl Serialize) -> Result<Value> {
    let tokenizer = sha256_of(tokenizer.to_json()?.as_bytes());
    Ok(json!({"kind": kind, "columns": columns, "limit": limit, "tokenizer": tokenizer, "more": more}))
}

/// What says how the model in `folder` writes conversations.
///
/// # Errors
/// If a file cannot be read.
pub fn template(folder: &Path) -> Result<Vec<String>> {
    let folder = hub::folder(folder)?;
    TEMPLATE_FILES.iter().map(|file| folder.join(file)).filter(|path| path.exists()).map(|path| sha256(&path)).collect()
}

/// Where chat templates and the tokens they name are.
const TEMPLATE_FILES: [&str; 3] = ["chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"];

/// What is asked in a row, the input below the instruction if there is one, and the answer.
fn instruction(table: &Table, row: &Row, [instruction, input, output]: [&str; 3]) -> Result<(String, String)> {
    let mut prompt = table.text(row, instruction)?.to_owned();
    if row.fields.get(input).is_some_and(|input| !input.is_null()) {
        let input = table.text(row, input)?;
        if !input.is_empty() {
            prompt = format!("{prompt}\n\n{input}");
        }
    }
    Ok((prompt, completion(table, row, output)?.to_owned()))
}
