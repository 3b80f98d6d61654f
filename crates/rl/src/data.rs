//! Rows of the user's files as prompts.

use crate::config::RlConfig;
use kiln_core::Result;
use kiln_core::chat::ChatTemplate;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::conversations::messages;
use kiln_data::examples::{Counts, Example, Limit, Overlong, end_id, prompt_completion};
use kiln_data::layout;
use kiln_data::rows::{Row, Table};
use kiln_data::source::{Read, Rows};
use kiln_data::store::encode::{Words, push_list, push_text};
use kiln_data::store::{Sequence, Store, Stored};
use kiln_data::text::{settings, template};
use serde_json::{Value, json};
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

impl Sequence for Prompt {
    fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Stored for Prompt {
    fn write(&self, words: &mut Vec<u32>) {
        push_list(words, &self.ids);
        push_text(words, &self.text);
        push_text(words, &self.line.to_string());
        push_text(words, &json!(self.fields).to_string());
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let (ids, text, line) = (words.list()?.to_vec(), words.text()?, words.text()?.parse().ok()?);
        let fields = serde_json::from_str(&words.text()?).ok()?;
        words.end().map(|()| Self { ids, text, line, fields })
    }
}

/// The prompts of a run.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// Those that train, and those that only evaluate.
    pub rows: Rows<Prompt>,
    /// The training rows with their completions, if there is a warm-up.
    pub warm_up: Store<Example>,
}

/// Prompts that train and that are held out, and the examples of a warm-up.
///
/// # Errors
/// If a file or column is missing or bad, or a prompt is too long.
pub fn prompts(config: &RlConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Prompts> {
    let columns = &config.columns;
    let files = config.data.open(&columns.names, config.draw())?;
    for (index, reward) in config.rewards.iter().enumerate() {
        if reward.reads_column() {
            for table in files.train().chain(files.aside()) {
                table.require_named(&[(&format!("rewards[{index}].column"), &reward.column)])?;
            }
        }
    }
    let limit = Limit::new(model.max_positions, Overlong::Refuse, tokenizer)?;
    let warm_up = if config.warm_up.epochs > 0 {
        let columns = [columns.prompt.as_str(), &columns.completion];
        let end_id = end_id(&model.end_ids, &config.model)?;
        let settings = || settings("warm-up", &columns, limit, tokenizer, &end_id);
        // What validates needs no completions.
        files.read_train_only(limit, &settings, |table| prompt_completion(table, columns, tokenizer, end_id, limit))?.rows
    } else {
        Store::default()
    };
    let notes = files.train().map(|table| layout::note(table, "prompts", &[&columns.prompt], &[])).collect();
    // What is left for a prompt beside its completion.
    let limit = Limit { max_tokens: model.max_positions.saturating_sub(config.sampling.max_new_tokens), ..limit };
    let settings = || settings("prompts", &columns.prompt, limit, tokenizer, &(config.overlong, template(&config.model)?));
    let rows = files.rows(limit, &settings, |table| of_table(config, model, tokenizer, table))?;
    Ok(Prompts { rows: Rows { notes, ..rows }, warm_up })
}

fn of_table(config: &RlConfig, model: &ModelConfig, tokenizer: &Tokenizer, table: &Table) -> Read<Prompt> {
    let column = &config.columns.prompt;
    table.require_named(&[("columns.prompt", column)])?;
    let is_chat = table.rows.first().is_some_and(|row| row.fields.get(column).is_some_and(Value::is_array));
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
                counts.add_line(row.line);
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
    Ok((prompts, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_on_disk_come_back_as_they_were() {
        let fields = [("answer", json!("72")), ("steps", json!([1, 2.5, null])), ("é", json!({"a": true}))];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let prompt = Prompt { ids: vec![5, 6, 7], text: "wie viel, «é»?".into(), line: 70_000, fields };
        let mut words = Vec::new();
        prompt.write(&mut words);
        assert_eq!(Prompt::read(&words), Some(prompt));
        assert!((0..words.len()).all(|n| Prompt::read(&words[..n]).is_none()));
    }
}
