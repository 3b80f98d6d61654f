//! Rows of the user's files as prompts.

use crate::config::RlConfig;
use kiln_core::chat::ChatTemplate;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::conversations::messages;
use kiln_data::examples::{Counts, Example, Limit, Overlong, end_id, prompt_completion};
use kiln_data::rows::{Row, Table};
use kiln_data::source::{Tables, Training, joined};
use serde_json::Value;
use std::collections::BTreeMap;

/// A prompt, and what its row says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Its text, of a conversation as the chat template writes it.
    pub text: String,
    /// The line of its row, counted from 1.
    pub line: usize,
    /// The fields of its row by column.
    pub fields: BTreeMap<String, Value>,
}

/// The prompts of a run.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// What trains.
    pub train: Vec<Prompt>,
    /// What validates.
    pub validation: Vec<Prompt>,
    /// What only evaluates.
    pub held_out: Vec<Prompt>,
    /// What became of the rows read: of the training files, of those held out, and of the file of validation rows.
    pub counts: [Counts; 3],
    /// The training rows with their completions, if there is a warm-up.
    pub warm_up: Vec<Example>,
}

/// Prompts that train and that are held out, and the examples of a warm-up.
///
/// # Errors
/// If a file or column is missing or bad, or a prompt is too long.
pub fn prompts(config: &RlConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Prompts> {
    let draw = config.draw();
    let tables = config.data.tables(&config.columns.names, draw)?;
    for (index, reward) in config.rewards.iter().enumerate() {
        if reward.reads_column() {
            for table in tables.train.iter().chain(&tables.held_out).chain(&tables.validation) {
                table.require_named(&[(&format!("rewards[{index}].column"), &reward.column)])?;
            }
        }
    }
    let limit = Limit::new(model.max_positions, Overlong::Refuse, tokenizer)?;
    let warm_up = if config.warm_up.epochs > 0 {
        let columns = [config.columns.prompt.as_str(), &config.columns.completion];
        let end_id = end_id(&model.end_ids, &config.model)?;
        // What validates needs no completions.
        let train = Tables { validation: None, ..tables.clone() };
        train.training(draw, limit, |table| prompt_completion(table, columns, tokenizer, end_id, limit))?.rows
    } else {
        Vec::new()
    };
    let of = |table: &Table| of_table(config, model, tokenizer, table);
    let Training { rows: train, validation, counts: [train_counts, validation_counts] } = tables.training(draw, limit, of)?;
    let (held_out, held_out_counts) = joined(&tables.held_out, limit, of)?;
    Ok(Prompts { train, validation, held_out, counts: [train_counts, held_out_counts, validation_counts], warm_up })
}

fn of_table(config: &RlConfig, model: &ModelConfig, tokenizer: &Tokenizer, table: &Table) -> Result<(Vec<Prompt>, Counts)> {
    let column = &config.columns.prompt;
    table.require_named(&[("columns.prompt", column)])?;
    let is_chat = table.rows[0].fields.get(column).is_some_and(Value::is_array);
    let (texts, ids) = if is_chat {
        let template = ChatTemplate::from_folder(&config.model)?;
        let render = |row: &Row| template.text(&messages(table, row, column)?, true).map_err(|message| table.error(row, message));
        let texts = table.rows.iter().map(render).collect::<Result<Vec<String>>>()?;
        let ids = tokenizer.encode_written(texts.clone())?.into_iter().map(|written| written.ids).collect();
        (texts, ids)
    } else {
        let texts = table.rows.iter().map(|row| Ok(table.text(row, column)?.to_owned())).collect::<Result<Vec<String>>>()?;
        (texts.clone(), tokenizer.encode_all(texts)?)
    };
    let most = model.max_positions.saturating_sub(config.sampling.max_new_tokens);
    let (mut prompts, mut counts) = (Vec::with_capacity(ids.len()), Counts::default());
    for ((row, text), ids) in table.rows.iter().zip(texts).zip(ids) {
        if ids.is_empty() {
            return Err(table.error(row, format!("{column:?} is empty, and this tokenizer has no start token to begin from nothing")));
        }
        if ids.len() > most {
            if config.overlong == Overlong::Drop {
                counts.n_dropped += 1;
                continue;
            }
            let message = format!(
                "{} tokens, of the model's {} positions {most} are left beside sampling.max_new_tokens = {}; shorten the prompt, lower that, or set overlong to \"drop\"",
                ids.len(),
                model.max_positions,
                config.sampling.max_new_tokens
            );
            return Err(table.error(row, message));
        }
        counts.n_rows += 1;
        counts.n_tokens += ids.len();
        prompts.push(Prompt { ids, text, line: row.line, fields: row.fields.clone() });
    }
    if prompts.is_empty() {
        return Err(Error::data(&table.path, None, format!("no prompt is left: all {} are too long", counts.n_dropped)));
    }
    Ok((prompts, counts))
}
