//! Conversations as the text a model was trained on, by its own chat template.
//!
//! A template is a Jinja program in `chat_template.jinja` or under `chat_template` in `tokenizer_config.json`, run as transformers'
//! `apply_chat_template` runs it, but for the date: templates that ask for it get a fixed one, so that the same conversation is the same
//! text every day.
//!
//! Which part the assistant says is read off the text, by rendering parts of the conversation: `{% generation %}`, which most published
//! templates lack, is passed over.

mod functions;

use crate::{Error, Result, files, hub};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Field};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const FILE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";
/// Where older versions of transformers name the special tokens too.
const TOKENS: &str = "special_tokens_map.json";
const NAME: &str = "chat";
/// Set behind what the assistant says, to find it again; no text may hold this code point, which is no character.
const MARK: char = '\u{FDD0}';

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by their name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
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
    /// Reads the template of a model folder, or of a model by its name on the hub.
    ///
    /// # Errors
    /// If there is none, or it is not Jinja.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::find(folder)?.ok_or_else(|| {
            let message = format!(
                "no chat template, under \"chat_template\" in {CONFIG} or in {FILE}: write one, take a model that has one, or give prompts and completions"
            );
            Error::checkpoint(folder, message)
        })
    }

    /// The same where a model may have none.
    ///
    /// # Errors
    /// If it is not Jinja, or a file cannot be read.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let folder = &hub::folder(folder)?;
        let read = |name: &str| -> Result<Map<String, Value>> {
            let path = folder.join(name);
            if path.exists() { files::read_json(&path) } else { Ok(Map::new()) }
        };
        let (tokens, config) = (read(TOKENS)?, read(CONFIG)?);
        let Some((path, source)) = source(folder, &config)? else { return Ok(None) };
        let text_of = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        // The configuration comes last and wins.
        let tokens = tokens.iter().chain(&config).filter(|(key, _)| key.ends_with("_token"));
        let tokens = tokens.filter_map(|(key, value)| Some((key.clone(), text_of(value)?)));
        Self::new(&source, tokens.collect()).map(Some).map_err(|message| Error::checkpoint(&path, message))
    }

    /// The template `source`, which may name special `tokens`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("Jinja's own delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        functions::add_to(&mut environment);
        let source = without_generation(source);
        environment.add_template_owned(NAME, source).map_err(|error| format!("the chat template is broken: {}", one_line(&error)))?;
        Ok(Self { environment, tokens })
    }

    /// The text of `messages`, and with `opens_reply` what the assistant's next message begins with.
    ///
    /// # Errors
    /// What the template refuses, in one line.
    pub fn text(&self, messages: &[Value], opens_reply: bool) -> std::result::Result<String, String> {
        self.render(messages, opens_reply)
    }

    /// The text of `messages`, and which of it the assistant says from message `first` on: what the template adds for a message to the
    /// opening of a reply.
    ///
    /// # Errors
    /// What the template refuses, in one line; or if it cannot be told what it writes for a message, because that depends on what follows.
    pub fn conversation(&self, messages: &[Value], first: usize) -> std::result::Result<Rendered, String> {
        let text = self.text(messages, false)?;
        let mut assistant = Vec::new();
        for (index, _) in messages.iter().enumerate().skip(first).filter(|(_, message)| message["role"] == "assistant") {
            let opening = self.text(&messages[..index], true)?;
            let whole = self.text(&messages[..=index], false)?;
            let part = match whole.starts_with(&opening) {
                true if text.starts_with(&whole) => Some(opening.len()..whole.len()),
                true if text.starts_with(&opening) => self.rewritten(messages, index, &text)?.map(|end| opening.len()..end),
                _ => None,
            };
            assistant.push(part.ok_or_else(|| {
                let number = index + 1;
                format!("the chat template writes message {number} so differently once others follow that it cannot be told from them")
            })?);
        }
        Ok(Rendered { text, assistant })
    }

    /// Where the reply `index` ends in the `text` of all messages, which has it otherwise than the text of those up to it: templates leave
    /// out the thoughts before earlier answers. What follows the answer's last word is the same in both.
    fn rewritten(&self, messages: &[Value], index: usize, text: &str) -> std::result::Result<Option<usize>, String> {
        let mut marked = messages.to_vec();
        marked[index]["content"] = format!("{}{MARK}", messages[index]["content"].as_str().unwrap_or_default().trim_end()).into();
        let (all, whole) = (self.text(&marked, false)?, self.text(&marked[..=index], false)?);
        let after = |text: &str| text.split_once(MARK).filter(|(_, after)| !after.contains(MARK)).map(|(_, after)| after.to_owned());
        let (Some(rest), Some(end)) = (after(&all), after(&whole)) else { return Ok(None) };
        let n_common = rest.bytes().zip(end.bytes()).take_while(|(a, b)| a == b).count();
        let is_told = text.ends_with(&rest) && rest.is_char_boundary(n_common) && (n_common > 0 || end.is_empty());
        Ok(is_told.then(|| text.len() - rest.len() + n_common))
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
fn source(folder: &Path, config: &Map<String, Value>) -> Result<Option<(PathBuf, String)>> {
    let path = folder.join(FILE);
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
        return Ok(Some((path, text)));
    }
    let text = match config.get("chat_template") {
        Some(Value::Array(templates)) => {
            templates.iter().find(|named| named["name"] == "default").and_then(|named| named["template"].as_str())
        }
        other => other.and_then(Value::as_str),
    };
    Ok(text.map(|text| (folder.join(CONFIG), text.to_owned())))
}

/// The source with `{% generation %}` as a block that changes nothing, whatever white space it takes away.
fn without_generation(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, name) = (&rest[start..start + length], rest[start + 2..start + length].trim_matches(['-', '+', ' ', '\t', '\n']));
        out.push_str(&rest[..start]);
        match name {
            "generation" => out.push_str(&tag.replacen(name, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(name, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
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
    fn marks_of_the_template_change_nothing() {
        let marked = template(
            "{% for m in messages %}\n{% if m.role == 'assistant' -%}\n  <a>{%- generation -%} {{ m.content }}{% endgeneration %}</a>\n{% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
        );
        let rendered = marked.conversation(&messages(&TURNS), 0).unwrap();
        assert_eq!(rendered.text, "2+2?\n<a>4</a>\nsure?\n<a>yes</a>\n");
        assert_eq!(said(&marked, &TURNS, 0), ["4</a>\n", "yes</a>\n"]);
        assert_eq!(said(&marked, &TURNS, 3), ["yes</a>\n"]);
    }

    /// Thoughts are shown before the last answer only, as of models that reason.
    #[test]
    fn earlier_replies_may_lose_their_thoughts() {
        let thinking = template(
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% if loop.last %}<think></think>{% endif %}{{ m.content.split('</think>')[-1].strip() }}</s>\n{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
        );
        assert_eq!(said(&thinking, &TURNS, 0), ["4</s>\n", "<think></think>yes</s>\n"]);
        let turns = [("user", "2+2?"), ("assistant", "two twice</think>\n4 \n"), ("user", "4?"), ("assistant", "yes")];
        assert_eq!(said(&thinking, &turns, 0), ["4</s>\n", "<think></think>yes</s>\n"]);
    }

    #[test]
    fn a_template_that_rewrites_the_past_is_refused() {
        let rewriting = "{% for m in messages %}{{ m.content }}{% if loop.last %}!{% else %}?{% endif %}{% endfor %}";
        let message = template(rewriting).conversation(&messages(&TURNS), 0).unwrap_err();
        assert!(message.starts_with("the chat template writes message 2 so differently once others follow"), "{message}");
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
