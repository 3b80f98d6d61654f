//! Layouts of rows: what their columns are for, recognised by their names.
//!
//! | layout | columns |
//! |---|---|
//! | prompt/completion | `prompt`, `completion` |
//! | messages | `messages`: a list of `{"role": "user", "content": "..."}` |
//! | sharegpt | `conversations`: a list of `{"from": "human", "value": "..."}` |
//! | alpaca | `instruction`, perhaps `input`, `output` |
//! | text | `text` |
//! | running text | the lines of a `.txt` file |
//! | preference pairs | `prompt`, `chosen`, `rejected`; without the prompt two conversations that begin alike |
//! | triplets, pairs, scored pairs | `anchor`, `positive` and `negative`, nothing, or `score` |
//! | classification | `text`, perhaps `text_b`, `label` |
//! | tagging | `tokens`, `tags` |
//!
//! Alpaca's is that of Taori et al., "Stanford Alpaca", 2023; sharegpt's that of FastChat's training files.

use crate::columns::ColumnsConfig;
use crate::rows::Table;
use kiln_core::{Error, Result};

const CONVERSATIONS: &str = "conversations";
const INSTRUCTION: &str = "instruction";
const INPUT: &str = "input";
const OUTPUT: &str = "output";

/// Rows that a decoder learns to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout<'a> {
    /// The columns of a prompt and of its completion.
    PromptCompletion([&'a str; 2]),
    /// The column of a conversation.
    Messages(&'a str),
    /// The columns of an instruction, of what it is about, if the file has one, and of the answer.
    Alpaca([&'a str; 3]),
    /// The column of a text.
    Text(&'a str),
    /// The column of a line.
    RunningText(&'a str),
}

impl<'a> Layout<'a> {
    /// The layout of a table, and the names of the others that fit, which come behind it in the order of the list above.
    ///
    /// # Errors
    /// [`Error::Data`] if none fits, with the columns found and what would fit.
    pub fn of(table: &Table, columns: &'a ColumnsConfig) -> Result<(Self, Vec<&'static str>)> {
        if table.is_running_text() {
            return Ok((Self::RunningText(&columns.text), Vec::new()));
        }
        let known = [
            Self::PromptCompletion([&columns.prompt, &columns.completion]),
            Self::Messages(&columns.messages),
            Self::Messages(CONVERSATIONS),
            Self::Alpaca([INSTRUCTION, INPUT, OUTPUT]),
            Self::Text(&columns.text),
        ];
        let mut fitting = known.into_iter().filter(|layout| layout.required().iter().all(|column| table.has(column)));
        match fitting.next() {
            Some(first) => Ok((first, fitting.map(|layout| layout.name()).collect())),
            None => {
                let wanted = known.map(|layout| format!("{} ({})", layout.name(), layout.required().join(", "))).join(", ");
                let found = table.columns.iter().map(|column| format!("{column:?}")).collect::<Vec<_>>().join(", ");
                let message = format!(
                    "the file has {found}, which fits no layout; known are {wanted}: name its columns with columns.prompt and columns.completion, or with columns.text"
                );
                Err(Error::data(&table.path, None, message))
            }
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PromptCompletion(_) => "prompt/completion",
            Self::Messages(CONVERSATIONS) => "sharegpt",
            Self::Messages(_) => "messages",
            Self::Alpaca(_) => "alpaca",
            Self::Text(_) => "text",
            Self::RunningText(_) => "running text",
        }
    }

    /// The columns that it must have.
    fn required(&self) -> Vec<&'a str> {
        match *self {
            Self::PromptCompletion(columns) => columns.to_vec(),
            Self::Alpaca([instruction, _, output]) => vec![instruction, output],
            Self::Messages(column) | Self::Text(column) | Self::RunningText(column) => vec![column],
        }
    }

    /// All that it may have.
    pub fn columns(&self) -> Vec<&'a str> {
        match *self {
            Self::Alpaca(columns) => columns.to_vec(),
            _ => self.required(),
        }
    }
}

/// What the columns of a training file are taken for, in one line for the user; of `columns` those that the file has.
pub fn note(table: &Table, name: &str, columns: &[&str], others: &[&str]) -> String {
    let others =
        if others.is_empty() { String::new() } else { format!(" (it could be {} too, which comes after it)", others.join(" or ")) };
    let columns: Vec<&str> = columns.iter().copied().filter(|column| table.has(column)).collect();
    format!("{}: {name}: {}{others}", table.path.display(), columns.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str]) -> Table {
        Table { path: "a.jsonl".into(), columns: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    fn named(columns: &[&str]) -> (&'static str, Vec<&'static str>) {
        let config = ColumnsConfig::default();
        let (layout, others) = Layout::of(&table(columns), &config).unwrap();
        (layout.name(), others)
    }

    #[test]
    fn layouts_are_known_by_their_columns() {
        assert_eq!(named(&["completion", "prompt"]), ("prompt/completion", vec![]));
        assert_eq!(named(&["id", "messages"]), ("messages", vec![]));
        assert_eq!(named(&["id", "conversations"]), ("sharegpt", vec![]));
        assert_eq!(named(&["instruction", "output"]), ("alpaca", vec![]));
        assert_eq!(named(&["text"]), ("text", vec![]));
        assert_eq!(named(&["text", "output", "input", "instruction", "messages"]), ("messages", vec!["alpaca", "text"]));
        let config = ColumnsConfig { prompt: "question".into(), completion: "answer".into(), ..ColumnsConfig::default() };
        let (layout, _) = Layout::of(&table(&["question", "answer"]), &config).unwrap();
        assert_eq!(layout, Layout::PromptCompletion(["question", "answer"]));
    }

    #[test]
    fn what_fits_none_is_told_what_would() {
        let error = Layout::of(&table(&["question", "answer"]), &ColumnsConfig::default()).unwrap_err().to_string();
        let start = r#"a.jsonl: the file has "question", "answer", which fits no layout; known are prompt/completion (prompt, completion), messages (messages), "#;
        assert!(error.starts_with(start), "{error}");
    }
}
