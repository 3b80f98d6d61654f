//! All heads of a saved model answering at once: the rows of a file go through the trunk once.

use crate::config::Kind;
use crate::data::{Head, pooled};
use crate::model::MultitaskModel;
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Counts, Limit, Overlong};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::source::{fetched, required};
use kiln_data::tags::OUTSIDE;
use kiln_train::evaluate::{batches, floats};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// The settings of predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictConfig {
    /// The folder of a model of several tasks.
    pub model: PathBuf,
    /// The rows: .jsonl, .csv, .tsv, .txt or .conll.
    pub data: PathBuf,
    /// What their columns mean.
    pub columns: ColumnsConfig,
    /// The file of predictions to be written, .jsonl.
    pub output: PathBuf,
    /// What happens to rows longer than the model's positions. Default refuse.
    pub overlong: Overlong,
}

/// Writes what every head that fits says of each row: of a text those for single texts and for words, of a pair those for pairs, of words those
/// for words.
///
/// # Errors
/// If the model, a column or a row is bad, or no head fits the rows.
pub fn predict(config: &PredictConfig, device: &Device) -> Result<Counts> {
    required("model", &config.model, "the folder of a model of several tasks")?;
    required("data", &config.data, "the file of rows to predict for")?;
    required("output", &config.output, "the .jsonl file of predictions to be written")?;
    if config.output.extension().is_none_or(|extension| extension != "jsonl") {
        return Err(Error::config("output", format!("found {}, expected a .jsonl file", config.output.display())));
    }
    let model = MultitaskModel::load(&config.model, device)?;
    let tokenizer = Tokenizer::for_model(&config.model, model.config())?;
    let table = Table::read(&fetched("data", &config.data, "test")?, &config.columns.names)?;
    let limit = Limit::new(model.config().max_positions, config.overlong, &tokenizer)?;
    let (predictions, counts) = model.predict(&table, &config.columns, &tokenizer, limit)?;
    write_jsonl(&config.output, &predictions)?;
    Ok(counts)
}

/// The rows of a table as sequences.
#[derive(Default)]
struct Inputs {
    sequences: Vec<Sequence>,
    /// An object with its line for each row used, to be filled with what the heads say.
    predictions: Vec<Map<String, Value>>,
    counts: Counts,
    /// Whether the rows are pairs of texts.
    pairs: bool,
}

/// A sequence, and which heads read it.
struct Sequence {
    /// The place of its row among the rows used.
    row: usize,
    ids: Vec<u32>,
    token_types: Vec<u32>,
    /// Whether the heads of whole sequences do.
    is_text: bool,
    /// The words and the first token of each, if the heads of words do.
    words: Option<Words>,
}

struct Words {
    words: Vec<String>,
    firsts: Vec<Option<usize>>,
}

impl MultitaskModel {
    /// What every head that fits says of each row of a table: an object with the row's `line` and, under the name of each task, a `label` and its
    /// `probability`, a `number`, or `words` and their `tags`. A row goes through the trunk once for all heads, unless the tokens of its words are
    /// others than those of its text. Tasks of next and of hidden tokens say nothing: the folder itself is
    /// a language model.
    ///
    /// # Errors
    /// If a column is missing, a row is too long for `limit`, or no head fits the rows.
    pub fn predict(&self, table: &Table, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<(Vec<Value>, Counts)> {
        let Inputs { sequences, mut predictions, counts, pairs } = self.inputs(table, columns, tokenizer, limit)?;
        let model = self.clone().valid();
        for batch in batches(&sequences, |sequence| sequence.ids.len()) {
            for (row, task, answer) in model.answers(&batch, pairs) {
                predictions[row].insert(self.tasks[task].name.clone(), answer);
            }
        }
        Ok((predictions.into_iter().map(Value::Object).collect(), counts))
    }

    /// The tasks whose heads read whole sequences, of pairs or of single texts.
    fn readers(&self, pairs: bool) -> Vec<usize> {
        (0..self.tasks.len()).filter(|&task| self.tasks[task].reads_one_token() && self.tasks[task].pairs == pairs).collect()
    }

    /// The tasks whose heads read words.
    fn taggers(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|&task| self.tasks[task].kind == Kind::TokenClassification).collect()
    }

    fn inputs(&self, table: &Table, columns: &ColumnsConfig, tokenizer: &Tokenizer, limit: Limit) -> Result<Inputs> {
        let has = |column: &String| table.columns.contains(column);
        let (are_words, pairs) = (has(&columns.tokens), has(&columns.text_b));
        let reads_text = !are_words && !self.readers(pairs).is_empty();
        let reads_words = (are_words || !pairs) && !self.taggers().is_empty();
        if !reads_text && !reads_words {
            let rows = [(are_words, "lists of words"), (pairs, "pairs of texts"), (true, "single texts")];
            let rows = rows.iter().find(|(is, _)| *is).map_or("", |(_, rows)| rows);
            return Err(Error::data(&table.path, None, format!("the rows are {rows}, and no task of the model reads those")));
        }
        table.require_named(&[if are_words { ("columns.tokens", &columns.tokens) } else { ("columns.text", &columns.text) }])?;
        let text = |row, column: &String| table.text(row, column).map(str::to_owned);
        let pair = |row| Ok((text(row, &columns.text)?, pairs.then(|| text(row, &columns.text_b)).transpose()?));
        let split = |row| {
            let words =
                if are_words { table.texts(row, &columns.tokens)? } else { table.text(row, &columns.text)?.split_whitespace().collect() };
            Ok(words.into_iter().map(str::to_owned).collect())
        };
        let all = |reads: bool| if reads { table.rows.as_slice() } else { &[] };
        let mut texts = tokenizer.encode_pairs(all(reads_text).iter().map(pair).collect::<Result<_>>()?)?.into_iter();
        let words: Vec<Vec<String>> = all(reads_words).iter().map(split).collect::<Result<_>>()?;
        let mut words = tokenizer.encode_split(words.clone())?.into_iter().zip(words);
        let mut inputs = Inputs { pairs, ..Inputs::default() };
        for table_row in &table.rows {
            let row = inputs.predictions.len();
            // Text and words of a row are counted once.
            let mut counts = [Counts::default(); 2];
            let mut sequences = Vec::new();
            if let Some(text) = texts.next()
                && let Some(text) = limit.apply_pair(text, table, table_row, &mut counts[0])?
            {
                sequences.push(Sequence { row, ids: text.ids, token_types: text.token_types, is_text: true, words: None });
            }
            if let Some((found, words)) = words.next()
                && let Some(ids) = limit.apply(found.ids, table, table_row, &mut counts[1])?
            {
                let words = Words { words, firsts: limit.left(found.firsts, ids.len()) };
                match sequences.first_mut().filter(|text| text.ids == ids) {
                    Some(text) => text.words = Some(words),
                    None => sequences.push(Sequence { row, token_types: vec![0; ids.len()], ids, is_text: false, words: Some(words) }),
                }
            }
            if sequences.iter().any(|sequence| sequence.ids.is_empty()) {
                return Err(table.error(table_row, "empty: no token to judge"));
            }
            let of_row = |count: fn(&Counts) -> usize| count(&counts[0]).max(count(&counts[1]));
            inputs.counts.n_rows += usize::from(!sequences.is_empty());
            inputs.counts.n_truncated += of_row(|counts| counts.n_truncated);
            inputs.counts.n_dropped += usize::from(sequences.is_empty());
            inputs.counts.n_tokens += sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>();
            if !sequences.is_empty() {
                inputs.predictions.push(Map::from_iter([("line".to_owned(), json!(table_row.line))]));
                inputs.sequences.append(&mut sequences);
            }
        }
        limit.check_left(&table.path, &inputs.counts)?;
        Ok(inputs)
    }

    /// What the heads say of the sequences of a batch: the row, the task and the answer.
    fn answers(&self, batch: &[&Sequence], pairs: bool) -> Vec<(usize, usize, Value)> {
        let packed = Packed::typed(batch.iter().map(|sequence| (sequence.ids.as_slice(), sequence.token_types.as_slice())));
        let (mut texts, mut wholes, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, range) in batch.iter().zip(packed.segments.ranges()) {
            if sequence.is_text {
                texts.push(sequence.row);
                wholes.push(pooled(range.clone(), self.config.causal));
            }
            let words = sequence.words.iter().flat_map(|words| words.firsts.iter().flatten());
            firsts.extend(words.map(|first| (range.start + first) as u32));
        }
        let [wholes, firsts]: [Arc<[u32]>; 2] = [wholes.into(), firsts.into()];
        let of_wholes = self.readers(pairs).into_iter().map(|task| (task, &wholes));
        let asked = of_wholes.chain(self.taggers().into_iter().map(|task| (task, &firsts))).filter(|(_, tokens)| !tokens.is_empty());
        let (tasks, wanted): (Vec<usize>, Vec<&Arc<[u32]>>) = asked.unzip();
        let mut answers = Vec::new();
        for (task, hidden) in tasks.into_iter().zip(self.hidden(&packed, &wanted, None)) {
            let outputs = self.outputs(task, hidden, None);
            let [_, n_outputs] = outputs.dims();
            let outputs = floats(outputs);
            let mut outputs = outputs.chunks_exact(n_outputs);
            let Head { kind, labels, .. } = &self.tasks[task];
            match kind {
                Kind::Regression => answers.extend(texts.iter().zip(outputs).map(|(&row, said)| (row, task, json!({ "number": said[0] })))),
                Kind::TokenClassification => answers.extend(batch.iter().filter_map(|sequence| {
                    let Words { words, firsts } = sequence.words.as_ref()?;
                    let tag = |first: &Option<usize>| first.and_then(|_| outputs.next()).map_or(OUTSIDE, |said| &labels[likeliest(said).0]);
                    let tags: Vec<&str> = firsts.iter().map(tag).collect();
                    Some((sequence.row, task, json!({ "words": words, "tags": tags })))
                })),
                Kind::NextToken | Kind::MaskedToken => unreachable!("tasks of tokens are not asked"),
                Kind::Classification => answers.extend(texts.iter().zip(outputs).map(|(&row, said)| {
                    let (best, probability) = likeliest(said);
                    (row, task, json!({ "label": labels[best], "probability": probability }))
                })),
            }
        }
        answers
    }
}

/// The likeliest class of some logits, of equals the first, and its probability.
fn likeliest(logits: &[f32]) -> (usize, f64) {
    let best = (0..logits.len()).reduce(|best, class| if logits[class] > logits[best] { class } else { best }).expect("a class");
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - logits[best]).exp()).sum();
    (best, 1.0 / sum)
}
