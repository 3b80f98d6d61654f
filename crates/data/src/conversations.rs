//! Conversations as token sequences, with a loss on what the assistant says.

use crate::examples::{Counts, Example, Limit};
use crate::rows::{Row, Table};
use kiln_core::Result;
use kiln_core::chat::{ChatTemplate, Rendered};
use kiln_core::tokenizer::{Tokenizer, Written};
use serde_json::Value;
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

/// The messages in a row's `column`.
///
/// # Errors
/// If the column is missing, or the field is not a list of messages with a role and a content.
pub fn messages<'a>(table: &Table, row: &'a Row, column: &str) -> Result<&'a [Value]> {
    const EXPECTED: &str = r#"expected a list of messages such as {"role": "user", "content": "..."}"#;
    let Value::Array(messages) = table.field(row, column)? else {
        return Err(table.error(row, format!("{column:?} is no list, {EXPECTED}")));
    };
    match messages.iter().position(|message| !message["role"].is_string() || !message["content"].is_string()) {
        Some(index) => Err(table.error(row, format!("message {} of {column:?} lacks a role or a content, {EXPECTED}", index + 1))),
        None => Ok(messages),
    }
}

impl Chat<'_> {
    /// Rows of one conversation each. Every message of the assistant has a loss, with the end token behind it.
    ///
    /// # Errors
    /// If the column is missing, the template refuses a conversation, the assistant says nothing in one or nothing ends what it says, or a
    /// row or all rows are too long for `limit`.
    pub fn examples(&self, table: &Table, column: &str, limit: Limit) -> Result<(Vec<Example>, Counts)> {
        table.require_named(&[("columns.messages", column)])?;
        let conversation = |row| Ok((row, messages(table, row, column)?.to_vec(), 0));
        let conversations = table.rows.iter().map(conversation).collect::<Result<Vec<_>>>()?;
        let limit = Limit { n_end_tokens: 0, ..limit };
        let mut counts = Counts::default();
        let mut examples = Vec::with_capacity(table.rows.len());
        for (row, example) in table.rows.iter().zip(self.encode(table, &conversations)?) {
            examples.extend(limit.apply_example(example, table, row, &mut counts)?);
        }
        limit.check_left(table, &counts)?;
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
