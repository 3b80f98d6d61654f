//! What the columns of a file mean.

use serde::{Deserialize, Serialize};

/// What the columns of a file mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnsConfig {
    /// Names of the columns of a file without a header, in order. Default: the file has a header.
    pub names: Vec<String>,
    /// The column of texts. Default "text".
    pub text: String,
    /// The column of second texts, of pairs; used if the file has it. Default "text_b".
    pub text_b: String,
    /// The column of labels, and of the numbers of a regression. Default "label".
    pub label: String,
    /// The column of words. Default "tokens".
    pub tokens: String,
    /// The column of their tags. Default "tags".
    pub tags: String,
    /// The column of prompts, used if the file has it and completions; of a preference also a conversation. Default "prompt".
    pub prompt: String,
    /// The column of completions. Default "completion".
    pub completion: String,
    /// The column of conversations, lists of messages with a role and a content. Default "messages".
    pub messages: String,
    /// The column of better completions, texts or messages. Default "chosen".
    pub chosen: String,
    /// The column of worse completions, texts or messages. Default "rejected".
    pub rejected: String,
}

impl Default for ColumnsConfig {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            text: "text".into(),
            text_b: "text_b".into(),
            label: "label".into(),
            tokens: "tokens".into(),
            tags: "tags".into(),
            prompt: "prompt".into(),
            completion: "completion".into(),
            messages: "messages".into(),
            chosen: "chosen".into(),
            rejected: "rejected".into(),
        }
    }
}

impl ColumnsConfig {
    /// The columns of texts, of second ones, and of what is right for them.
    pub fn sequence(&self) -> [&str; 3] {
        [&self.text, &self.text_b, &self.label]
    }

    /// The columns of tagged words.
    pub fn tagged(&self) -> [&str; 2] {
        [&self.tokens, &self.tags]
    }

    /// The columns of a prompt, its better completion and the other one.
    pub fn preference(&self) -> [&str; 3] {
        [&self.prompt, &self.chosen, &self.rejected]
    }
}
