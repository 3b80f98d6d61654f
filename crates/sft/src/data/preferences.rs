//! Pairs of completions of one prompt, of which one is preferred.

use crate::config::SftConfig;
use crate::evaluate::log_probabilities;
use kiln_core::chat::ChatTemplate;
use kiln_core::files::sha256;
use kiln_core::language_model::LanguageModel;
use kiln_core::{Result, checkpoint, hub};
use kiln_data::conversations::{Chat, messages};
use kiln_data::examples::{Counts, Example, Limit, completion, completions, end_id};
use kiln_data::layout;
use kiln_data::rows::{Row, Table};
use kiln_data::source::Rows;
use kiln_data::store::encode::{Words, push_float, push_row};
use kiln_data::store::{Sequence, Stored};
use kiln_data::text::TextSource;
use serde_json::{Value, json};

/// Two completions of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The prompt and the better completion.
    pub chosen: Example,
    /// The prompt and the other completion.
    pub rejected: Example,
    /// By how much the chosen completion is likelier under the reference model, in nats.
    pub reference_margin: f64,
}

impl Sequence for Pair {
    /// Tokens of both.
    fn n_tokens(&self) -> usize {
        self.chosen.ids.len() + self.rejected.ids.len()
    }
}

impl Stored for Pair {
    fn write(&self, words: &mut Vec<u32>) {
        push_row(words, &self.chosen);
        push_row(words, &self.rejected);
        push_float(words, self.reference_margin);
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let pair = Self { chosen: words.row()?, rejected: words.row()?, reference_margin: words.float()? };
        words.end().map(|()| pair)
    }
}

/// By how much the chosen completion of each pair is likelier than the rejected one, in nats.
pub fn margins(model: &LanguageModel, pairs: &[Pair]) -> Vec<f64> {
    let completions: Vec<&Example> = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect();
    log_probabilities(model, &completions).chunks_exact(2).map(|pair| pair[0] - pair[1]).collect()
}

/// Pairs, with `reference` for the model they are compared to.
///
/// # Errors
/// If a file or column is missing or bad, or a row is too long.
pub fn pairs(config: &SftConfig, source: &TextSource<'_>, reference: &LanguageModel) -> Result<Rows<Pair>> {
    let files = config.data.open(&config.columns.names, config.draw())?;
    let notes = files.train().map(|table| layout::note(table, "preference pairs", &config.columns.preference(), &[])).collect();
    let settings = || {
        // The margins are the model's.
        let weights = checkpoint::files(&hub::folder(source.folder)?)?.iter().map(|path| sha256(path)).collect::<Result<Vec<_>>>()?;
        source.settings("preferences", &weights)
    };
    let rows = files.rows(source.limit, &settings, |table| pair_table(source, table, reference))?;
    Ok(Rows { notes, ..rows })
}

/// The pairs of one table: texts, or conversations and their last messages.
///
/// # Errors
/// If a column is missing, both completions of a row are the same, or a row is too long.
pub fn pair_table(source: &TextSource<'_>, table: &Table, reference: &LanguageModel) -> Result<(Vec<Pair>, Counts)> {
    let [prompt, chosen, rejected] = source.columns.preference();
    let is_chat = table.rows.first().is_some_and(|row| row.fields.get(chosen).is_some_and(Value::is_array));
    let wanted = [("columns.prompt", prompt), ("columns.chosen", chosen), ("columns.rejected", rejected)];
    // Conversations hold what was said before.
    table.require_named(&wanted[usize::from(is_chat && !table.has(prompt))..])?;
    if let Some(row) = table.rows.iter().find(|row| row.fields.get(chosen).is_some_and(|text| Some(text) == row.fields.get(rejected))) {
        return Err(table.error(row, format!("{chosen:?} and {rejected:?} are the same: nothing to prefer")));
    }
    let (examples, limit) = if is_chat {
        let template = ChatTemplate::from_folder(source.folder)?;
        let chat = Chat { template: &template, tokenizer: source.tokenizer, end_ids: &source.model.end_ids };
        let mut both = Vec::with_capacity(2 * table.rows.len());
        for row in &table.rows {
            let (before, ends) = conversations(table, row, [prompt, chosen, rejected])?;
            both.extend(ends.map(|end| (row, [before.clone(), end].concat(), before.len())));
        }
        (chat.encode(table, &both)?, Limit { n_end_tokens: 0, ..source.limit })
    } else {
        let end_id = end_id(&source.model.end_ids, source.folder)?;
        let texts = |row, column| Ok([table.text(row, prompt)?.to_owned(), completion(table, row, column)?.to_owned()]);
        let both = table.rows.iter().flat_map(|row| [texts(row, chosen), texts(row, rejected)]);
        (completions(both.collect::<Result<_>>()?, source.tokenizer, end_id)?, source.limit)
    };
    let mut counts = Counts::default();
    let mut pairs = Vec::with_capacity(table.rows.len());
    let mut examples = examples.into_iter();
    for (row, (chosen, rejected)) in table.rows.iter().zip(std::iter::from_fn(|| Some((examples.next()?, examples.next()?)))) {
        pairs.extend(limited(limit, [chosen, rejected], table, row, &mut counts)?);
    }
    let reference_margins = margins(reference, &pairs);
    pairs.iter_mut().zip(reference_margins).for_each(|(pair, margin)| pair.reference_margin = margin);
    Ok((pairs, counts))
}

/// What was said before, and how it goes on in each of two conversations. What was said is the prompt, as messages or as the text that a user
/// says; or else the messages that both conversations begin with.
fn conversations(table: &Table, row: &Row, [prompt, chosen, rejected]: [&str; 3]) -> Result<(Vec<Value>, [Vec<Value>; 2])> {
    let ends = [messages(table, row, chosen)?, messages(table, row, rejected)?];
    match row.fields.get(prompt) {
        Some(Value::Array(_)) => Ok((messages(table, row, prompt)?, ends)),
        Some(Value::String(text)) if ends[0].first().is_some_and(|message| message["role"] == "assistant") => {
            Ok((vec![json!({"role": "user", "content": text})], ends))
        }
        _ => {
            let n_same = ends[0].iter().zip(&ends[1]).take_while(|(a, b)| a == b).count();
            Ok((ends[0][..n_same].to_vec(), ends.map(|messages| messages[n_same..].to_vec())))
        }
    }
}

/// A pair within the limit, counted as one row; `None` if either completion is to be left out.
fn limited(limit: Limit, examples: [Example; 2], table: &Table, row: &Row, counts: &mut Counts) -> Result<Option<Pair>> {
    let mut of_row = Counts::default();
    let [chosen, rejected] = examples.map(|example| limit.apply_example(example, table, row, &mut of_row));
    counts.add_cuts(&of_row);
    let pair = chosen?.zip(rejected?).map(|(chosen, rejected)| Pair { chosen, rejected, reference_margin: 0.0 });
    match &pair {
        Some(pair) => {
            counts.n_rows += 1;
            counts.n_truncated += of_row.n_truncated.min(1);
            counts.n_tokens += pair.n_tokens();
        }
        None => counts.n_dropped += 1,
    }
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_on_disk_come_back_as_they_were() {
        let example = |ids: &[u32]| Example::from(ids.to_vec(), 2);
        let pair = Pair { chosen: example(&[1, 2, 3, 4]), rejected: example(&[1, 2, 9]), reference_margin: -0.123_456_789 };
        let mut words = Vec::new();
        pair.write(&mut words);
        assert_eq!(Pair::read(&words), Some(pair));
        assert!((0..words.len()).all(|n| Pair::read(&words[..n]).is_none()));
    }
}
