//! Conversations as the text a model was trained on, by its own chat template.
//!
//! A template is a Jinja program in `chat_template.jinja` or under `chat_template` in `tokenizer_config.json`, run as transformers'
//! `apply_chat_template` runs it, but for the date: `strftime_now` is not defined, so that the same conversation is the same text every day.

use crate::{Error, Result, files};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, Value as Field};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const FILE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";
const NAME: &str = "chat";
/// Set around what the template marks as the assistant's; no text may hold these code points, which are no characters.
const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];
const MARK_FILTER: &str = "kiln_assistant";

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by their name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
    /// Whether the template says itself which part is the assistant's.
    is_marked: bool,
}

/// A conversation as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text, special tokens written out.
    pub text: String,
    /// The bytes of each part that the assistant says, in order.
    pub assistant: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Reads the template of a model folder.
    ///
    /// # Errors
    /// If there is none, or it is not Jinja.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let config_path = folder.join(CONFIG);
        let config: Map<String, Value> = if config_path.exists() { files::read_json(&config_path)? } else { Map::new() };
        let (path, source) = source(folder, &config)?;
        let text_of = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        let tokens =
            config.iter().filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, value)| Some((key.clone(), text_of(value)?)));
        Self::new(&source, tokens.collect()).map_err(|message| Error::checkpoint(&path, message))
    }

    /// The template `source`, which may name special `tokens`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let (source, is_marked) = with_marks(source);
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("Jinja's own delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter(MARK_FILTER, |said: String| format!("{}{said}{}", MARKS[0], MARKS[1]));
        environment.add_function("raise_exception", |message: String, _: Rest<Field>| -> std::result::Result<Field, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(|error| format!("the chat template is broken: {}", one_line(&error)))?;
        Ok(Self { environment, tokens, is_marked })
    }

    /// The text of `messages`, and with `opens_reply` what the assistant's next message begins with.
    ///
    /// # Errors
    /// What the template refuses, in one line.
    pub fn text(&self, messages: &[Value], opens_reply: bool) -> std::result::Result<String, String> {
        Ok(self.render(messages, opens_reply)?.replace(MARKS, ""))
    }

    /// The text of `messages`, and which of it the assistant says from message `first` on: what the template marks with
    /// `{% generation %}` or, where it marks nothing, what it adds for a message to the opening of a reply.
    ///
    /// # Errors
    /// What the template refuses, in one line; or if it writes a message differently once others follow.
    pub fn conversation(&self, messages: &[Value], first: usize) -> std::result::Result<Rendered, String> {
        let marked = self.render(messages, false)?;
        if self.is_marked {
            // Not even nothing is rendered before the first message: many templates look at it.
            let before = if first > 0 { self.render(&messages[..first], false)?.matches(MARKS[0]).count() } else { 0 };
            let mut rendered = unmark(&marked);
            rendered.assistant.drain(..before.min(rendered.assistant.len()));
            return Ok(rendered);
        }
        let mut assistant = Vec::new();
        for (index, _) in messages.iter().enumerate().skip(first).filter(|(_, message)| message["role"] == "assistant") {
            let opening = self.text(&messages[..index], true)?;
            let whole = self.text(&messages[..=index], false)?;
            if !whole.starts_with(&opening) || !marked.starts_with(&whole) {
                return Err(format!(
                    "the chat template writes message {} differently once others follow: mark what the assistant says with {{% generation %}}",
                    index + 1
                ));
            }
            assistant.push(opening.len()..whole.len());
        }
        Ok(Rendered { text: marked, assistant })
    }

    fn render(&self, messages: &[Value], opens_reply: bool) -> std::result::Result<String, String> {
        let mut context: BTreeMap<&str, Field> =
            self.tokens.iter().map(|(name, token)| (name.as_str(), Field::from(token.as_str()))).collect();
        context.insert("messages", Field::from(Serde(messages)));
        context.insert("add_generation_prompt", Field::from(opens_reply));
        for name in ["tools", "documents"] {
            context.insert(name, Field::from(()));
        }
        let template = self.environment.get_template(NAME).expect("it was added");
        template.render(context).map_err(|error| format!("the chat template refuses it: {}", one_line(&error)))
    }
}

/// The file and text of a folder's template.
fn source(folder: &Path, config: &Map<String, Value>) -> Result<(PathBuf, String)> {
    let path = folder.join(FILE);
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
        return Ok((path, text));
    }
    let text = match config.get("chat_template") {
        Some(Value::Array(templates)) => {
            templates.iter().find(|named| named["name"] == "default").and_then(|named| named["template"].as_str())
        }
        other => other.and_then(Value::as_str),
    };
    text.map(|text| (folder.join(CONFIG), text.to_owned())).ok_or_else(|| {
        let message = format!(
            "no chat template, under \"chat_template\" in {CONFIG} or in {FILE}: write one, take a model that has one, or give prompts and completions"
        );
        Error::checkpoint(folder, message)
    })
}

/// The source with `{% generation %}` as a filter that sets marks, and whether there was any.
fn with_marks(source: &str) -> (String, bool) {
    let (mut out, mut rest, mut is_marked) = (String::with_capacity(source.len()), source, false);
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, name) = (&rest[start..start + length], rest[start + 2..start + length].trim_matches(['-', '+', ' ', '\t', '\n']));
        out.push_str(&rest[..start]);
        match name {
            "generation" => out.push_str(&tag.replacen(name, &format!("filter {MARK_FILTER}"), 1)),
            "endgeneration" => out.push_str(&tag.replacen(name, "endfilter", 1)),
            _ => out.push_str(tag),
        }
        is_marked |= name == "generation";
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    (out, is_marked)
}

fn unmark(marked: &str) -> Rendered {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), assistant: Vec::new() };
    for (index, part) in marked.split(MARKS[0]).enumerate() {
        let (said, rest) = if index > 0 { part.split_once(MARKS[1]).unwrap_or((part, "")) } else { ("", part) };
        let start = rendered.text.len();
        rendered.text.push_str(said);
        if index > 0 {
            rendered.assistant.push(start..rendered.text.len());
        }
        rendered.text.push_str(rest);
    }
    rendered
}

fn one_line(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (line {line} of the template)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(turns: &[(&str, &str)]) -> Vec<Value> {
        turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, [("eos_token".to_owned(), "</s>".to_owned())].into()).unwrap()
    }

    /// What the assistant says.
    fn said(template: &ChatTemplate, turns: &[(&str, &str)], first: usize) -> Vec<String> {
        let rendered = template.conversation(&messages(turns), first).unwrap();
        rendered.assistant.into_iter().map(|part| rendered.text[part].to_owned()).collect()
    }

    const TURNS: [(&str, &str); 4] = [("user", "2+2?"), ("assistant", "4"), ("user", "sure?"), ("assistant", "yes")];
    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

    #[test]
    fn a_reply_is_what_a_message_adds_to_its_opening() {
        let plain = template(PLAIN);
        assert_eq!(plain.text(&messages(&TURNS[..1]), true).unwrap(), "<user>2+2?<assistant>");
        assert_eq!(said(&plain, &TURNS, 0), ["4</s>", "yes</s>"]);
        assert_eq!(said(&plain, &TURNS, 2), ["yes</s>"]);
    }

    #[test]
    fn a_marked_part_is_what_the_template_says() {
        let marked = template(
            "{% for m in messages %}\n{% if m.role == 'assistant' -%}\n  <a>{%- generation -%} {{ m.content }}{% endgeneration %}</a>\n{% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}",
        );
        let rendered = marked.conversation(&messages(&TURNS), 0).unwrap();
        assert_eq!(rendered.text, "2+2?\n<a>4</a>\nsure?\n<a>yes</a>\n");
        assert_eq!(said(&marked, &TURNS, 0), ["4", "yes"]);
        assert_eq!(said(&marked, &TURNS, 3), ["yes"]);
    }

    #[test]
    fn a_template_that_rewrites_the_past_is_refused() {
        let rewriting = "{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}";
        let message = template(rewriting).conversation(&messages(&TURNS), 0).unwrap_err();
        assert!(message.starts_with("the chat template writes message 2 differently once others follow"), "{message}");
    }

    #[test]
    fn what_a_template_refuses_is_one_line() {
        let strict = template("{% if messages[0].role != 'user' %}\n{{ raise_exception('begin with\\nthe user') }}{% endif %}");
        let message = strict.text(&messages(&TURNS[1..]), false).unwrap_err();
        assert_eq!(message, "the chat template refuses it: begin with the user (line 2 of the template)");
        let message = ChatTemplate::new("{% for %}", BTreeMap::new()).unwrap_err();
        assert!(message.starts_with("the chat template is broken: ") && !message.contains('\n'), "{message}");
    }
}
