//! Conversations as token sequences, with a loss on what the assistant says.

use crate::examples::{Counts, Example, Limit};
use crate::rows::{Row, Table};
use kiln_core::Result;
use kiln_core::chat::{ChatTemplate, Rendered};
use kiln_core::tokenizer::{Tokenizer, Written};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;

/// How a model writes and reads a conversation.
#[derive(Debug)]
pub struct Chat<'a> {
    /// Its chat template.
    pub template: &'a ChatTemplate,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The tokens that end a generation.
    pub end_ids: &'a [u32],
}

/// Who speaks in the messages of sharegpt, and by which role chat templates know them.
const ROLES: [(&str, &str); 4] = [("human", "user"), ("gpt", "assistant"), ("chatgpt", "assistant"), ("bing", "assistant")];

/// The messages in a row's `column`. Those with `from` and `value`, as sharegpt's, become such with a role and a content.
///
/// # Errors
/// If the column is missing, or the field is not a list of messages with a role and a content.
pub fn messages(table: &Table, row: &Row, column: &str) -> Result<Vec<Value>> {
    const EXPECTED: &str = r#"expected a list of messages such as {"role": "user", "content": "..."}"#;
    let Value::Array(messages) = table.field(row, column)? else {
        return Err(table.error(row, format!("{column:?} is no list, {EXPECTED}")));
    };
    let message = |(index, message): (usize, &Value)| match (&message["role"], &message["content"], &message["from"], &message["value"]) {
        (Value::String(_), Value::String(_), ..) => Ok(message.clone()),
        (_, _, Value::String(from), Value::String(value)) => {
            let role = ROLES.iter().find(|(known, _)| known == from).map_or(from.as_str(), |(_, role)| role);
            Ok(json!({"role": role, "content": value}))
        }
        _ => Err(table.error(row, format!("message {} of {column:?} lacks a role or a content, {EXPECTED}", index + 1))),
    };
    messages.iter().enumerate().map(message).collect()
}

impl Chat<'_> {
    /// Rows of one conversation each, which `messages` takes from it. Every message of the assistant has a loss, with the end token behind it.
    ///
    /// # Errors
    /// Those of `messages`; if the template refuses a conversation, the assistant says nothing in one or nothing ends what it says, or a row
    /// is too long for `limit`.
    pub fn examples<'a>(
        &self,
        table: &'a Table,
        limit: Limit,
        messages: impl Fn(&'a Row) -> Result<Vec<Value>>,
    ) -> Result<(Vec<Example>, Counts)> {
        let conversation = |row| Ok((row, messages(row)?, 0));
        let conversations = table.rows.iter().map(conversation).collect::<Result<Vec<_>>>()?;
        let limit = Limit { n_end_tokens: 0, ..limit };
        let mut counts = Counts::default();
        let mut examples = Vec::with_capacity(table.rows.len());
        for (row, example) in table.rows.iter().zip(self.encode(table, &conversations)?) {
            examples.extend(limit.apply_example(example, table, row, &mut counts)?);
        }
        Ok((examples, counts))
    }

    /// Conversations, each with its row and the first message that may have a loss.
    ///
    /// # Errors
    /// As [`Self::examples`].
    pub fn encode(&self, table: &Table, conversations: &[(&Row, Vec<Value>, usize)]) -> Result<Vec<Example>> {
        let render = |(row, messages, first): &(&Row, Vec<Value>, usize)| {
            let rendered = self.template.conversation(messages, *first).map_err(|message| table.error(row, message))?;
            match rendered.assistant.iter().all(Range::is_empty) {
                true => Err(table.error(row, "no message with the role \"assistant\" says anything: nothing to learn")),
                false => Ok(rendered),
            }
        };
        let rendered = conversations.iter().map(render).collect::<Result<Vec<_>>>()?;
        let encoded = self.tokenizer.encode_written(rendered.iter().map(|rendered| rendered.text.clone()).collect())?;
        let special = self.tokenizer.special_ids();
        let example = |(((row, ..), rendered), written): ((&(&Row, _, _), &Rendered), Written)| {
            let supervised = rendered.assistant.iter().map(|part| tokens_of(part, &rendered.text, &written, &special));
            let supervised: Vec<Range<usize>> = supervised.filter(|part| !part.is_empty()).collect();
            let last = supervised.last().map(|part| written.ids[part.end - 1]);
            if last.is_none_or(|last| !self.end_ids.contains(&last)) {
                let message = format!(
                    "the chat template ends what the assistant says without a token of \"eos_token_id\" in config.json ({:?}): the model would never learn to stop; end it with one, or add the token that ends it to the key",
                    self.end_ids
                );
                return Err(table.error(row, message));
            }
            Ok(Example { ids: written.ids, supervised })
        };
        conversations.iter().zip(&rendered).zip(encoded).map(example).collect()
    }
}

/// The tokens that stand for a part of the text: all that share a byte with it, less white space behind the special token that ends it, and
/// less the first token of all, which nothing predicts.
fn tokens_of(part: &Range<usize>, text: &str, written: &Written, special: &BTreeSet<u32>) -> Range<usize> {
    let Written { ids, bytes } = written;
    let start = bytes.partition_point(|token| token.end <= part.start).max(1);
    let end = bytes.partition_point(|token| token.start < part.end).max(start);
    let last_special = ids[start..end].iter().rposition(|id| special.contains(id)).map(|token| start + token);
    match last_special {
        Some(token) if text[bytes[token].end.min(part.end)..part.end].trim().is_empty() => start..token + 1,
        _ => start..end,
    }
}
