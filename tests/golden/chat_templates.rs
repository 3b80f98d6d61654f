//! Conversations against transformers' `apply_chat_template`: text, tokens, and which of them the assistant says.

use crate::support::fixture;
use kiln_core::chat::ChatTemplate;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::conversations::{Chat, messages};
use kiln_data::rows::{Row, Table};
use serde_json::{Value, json};

#[test]
fn text_tokens_and_replies() {
    let folder = fixture("chat_templates");
    let path = folder.join("cases.json");
    let cases: Value = kiln_core::files::read_json(&path).expect("cases");
    let tokenizer = Tokenizer::from_folder(&folder).expect("a tokenizer");
    let special = |token: &str| tokenizer.id(token).expect("a special token");
    let end_ids = ["</s>", "<|end|>"].map(special);
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.to_owned(), token.to_owned()));
    for case in cases["cases"].as_array().expect("a list") {
        let source = cases["templates"][case["template"].as_str().expect("a name")].as_str().expect("a template");
        let template = ChatTemplate::new(source, tokens.clone().into()).expect("a template");
        let row = Row { line: 1, fields: case.as_object().expect("an object").clone().into_iter().collect() };
        let table = Table { path: path.clone(), columns: row.fields.keys().cloned().collect(), rows: vec![row.clone()] };
        let messages = messages(&table, &row, "messages").expect("messages");
        let (text, opened) = (template.text(&messages, false).expect("a text"), template.text(&messages[..messages.len() - 1], true));
        assert_eq!(json!(text), case["text"]);
        assert_eq!(json!(opened.clone().expect("a text")), case["opened"]);

        let chat = Chat { template: &template, tokenizer: &tokenizer, end_ids: &end_ids };
        let example = chat.encode(&table, &[(&row, messages.to_vec(), 0)]).expect("an example").remove(0);
        assert_eq!(json!(example.ids), case["input_ids"]);
        let is_supervised = |token: usize| u8::from(example.supervised.iter().any(|part| part.contains(&token)));
        let supervised: Vec<u8> = (0..example.ids.len()).map(is_supervised).collect();
        // What transformers' own marks say, where the template has them or a form of it.
        if !case["assistant"].is_null() {
            assert_eq!(json!(supervised), case["assistant"], "{text}");
        }
        let n_replies = messages.iter().filter(|message| message["role"] == "assistant").count();
        assert_eq!(example.supervised.len(), n_replies);
        // The last reply is what follows its opening, less what follows its end token.
        let reply = text[opened.expect("a text").len()..].trim_end_matches('\n');
        let ids = tokenizer.encode_written(vec![reply.to_owned()]).expect("tokens").remove(0).ids;
        assert_eq!(example.ids[example.supervised[n_replies - 1].clone()], ids, "{text}");
        // Only the last reply, as of a preference.
        let last = chat.encode(&table, &[(&row, messages.to_vec(), messages.len() - 1)]).expect("an example").remove(0);
        assert_eq!(last.supervised, example.supervised[n_replies - 1..]);
    }
}

#[test]
fn json_of_tools() {
    let cases: Value = kiln_core::files::read_json(&fixture("chat_templates").join("cases.json")).expect("cases");
    let cases = cases["json"].as_array().expect("a list");
    assert_eq!(cases.len(), 3);
    for case in cases {
        // The messages are the only data of a template here.
        let source = format!("{{% set tools = messages %}}{}", case["template"].as_str().expect("a template"));
        let template = ChatTemplate::new(&source, [].into()).expect("a template");
        let tools: Vec<Value> = serde_json::from_str(case["tools"].as_str().expect("tools")).expect("a list");
        assert_eq!(json!(template.text(&tools, false).expect("a text")), case["text"]);
    }
}
