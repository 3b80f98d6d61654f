//! Training a sentence encoder on three tasks at once: good and bad reviews, kinds of questions, and how similar two sentences are.

use super::Setup;
use super::contrastive::scored;
use super::measure::{Meter, Report, counts, rounded};
use super::train::{NEW_WEIGHTS, epochs, train, usual_update};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Limit, Overlong};
use kiln_data::labels::Labels;
use kiln_data::pack::by_rows;
use kiln_data::rows::{Row, Table};
use kiln_data::sequences::{class_table, number_table};
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_multitask::config::Kind;
use kiln_multitask::data::{Batch, Head, TaskRows};
use kiln_multitask::evaluate::evaluate;
use kiln_multitask::model::MultitaskModel;
use kiln_multitask::sampling::Pick;
use kiln_train::preflight::work::{Gradients, head, trunk};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Rows per step.
const ROWS: usize = 32;
/// The kinds of questions.
const QUESTIONS: [&str; 6] = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"];
/// The largest score of a pair of sentences.
const LARGEST_SCORE: f64 = 5.0;

/// # Errors
/// If the model or the rows are missing or bad, or training diverges.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let folder = setup.model("all-MiniLM-L6-v2")?;
    let key = Key::new(setup.args.seed);
    let labels = [vec!["0", "1"], QUESTIONS.to_vec(), Vec::new()].map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let names = [("sst2", Kind::Classification), ("trec", Kind::Classification), ("stsb", Kind::Regression)];
    let task =
        |((name, kind), labels): ((&str, Kind), Vec<String>)| Head { name: name.into(), kind, labels, pairs: kind == Kind::Regression };
    let heads: Vec<Head> = names.into_iter().zip(labels).map(task).collect();
    let n_outputs: Vec<usize> = heads.iter().map(|head| head.labels.len().max(1)).collect();
    let model = MultitaskModel::from_pretrained(&folder, heads, &[const { Vec::new() }; 3], &device, key.fold(NEW_WEIGHTS))?;
    let config = model.config().clone();
    let tokenizer = Tokenizer::for_model(&folder, &config)?;
    let reader = Reader { tokenizer: &tokenizer, limit: Limit::new(config.max_positions, Overlong::Truncate, &tokenizer)? };
    let read = |reviews: &str, questions: &str, pairs: &str| -> Result<[TaskRows; 3]> {
        Ok([
            reader.reviews(&setup.data(&format!("sst2/{reviews}.tsv"))?)?,
            reader.questions(&setup.data(&format!("trec_qc/{questions}.label"))?)?,
            reader.pairs(&setup.data(&format!("stsb/sts-{pairs}.csv"))?)?,
        ])
    };
    let rows = read("train", "train_5500", "train")?;
    let held_out = setup.full.then(|| read("dev", "TREC_10", "dev")).transpose()?;
    let rows = rows.each_ref();
    let of_task = |(task, rows): (usize, &&TaskRows)| {
        let batches = by_rows(&order(rows.len(), setup.args.seed), ROWS).into_iter();
        batches.map(move |batch| batch.into_iter().map(|row| (task, row)).collect::<Vec<Pick>>()).collect::<Vec<_>>()
    };
    let all: Vec<Vec<Pick>> = rows.iter().enumerate().flat_map(of_task).collect();
    let epoch: Vec<Vec<Pick>> = order(all.len(), setup.args.seed).into_iter().map(|index| all[index].clone()).collect();
    let batches = epochs(epoch, setup.n_steps, setup.full);
    let mut meter = Meter::start();
    let model = train(model, &batches, usual_update(5e-5), key, &mut meter, |model, picks, dropout| {
        let batch = Batch::new(&rows, picks, config.causal, dropout).expect("rows in memory");
        let lengths: Vec<usize> = batch.packed.segments.ranges().map(|range| range.len()).collect();
        let mut counts = counts(picks.len(), &lengths);
        let heads = [config.hidden_size, n_outputs[picks[0].0]].map(|n_out| head(config.hidden_size, n_out, picks.len(), Gradients::All));
        counts.insert("gflop", trunk(&config, &lengths, picks.len(), Gradients::All) + heads.iter().sum::<f64>());
        let [loss] = model.losses(&batch, Some(dropout)).try_into().expect("a batch of one task has one loss");
        (loss, picks.len(), counts)
    })?;
    let mut extra = Map::new();
    if let Some(held_out) = held_out {
        let figure = |(task, rows)| evaluate(&model, task, rows, setup.args.seed).figure;
        let named = held_out.iter().enumerate().map(figure).zip(names);
        let quality: Map<String, Value> =
            named.map(|(figure, (name, _))| (format!("{name}_{}", figure.metric), rounded(figure.value, 4).into())).collect();
        extra.insert("quality".into(), quality.into());
    }
    meter.report(setup.workload.name, setup.workload.unit, extra)
}

/// The corpora's rows as tokens.
struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    limit: Limit,
}

impl Reader<'_> {
    fn reviews(&self, path: &Path) -> Result<TaskRows> {
        let columns = ColumnsConfig { names: ["text", "label"].map(str::to_owned).to_vec(), ..ColumnsConfig::default() };
        self.classes(&Table::read(path, &columns.names)?, &["0", "1"])
    }

    fn questions(&self, path: &Path) -> Result<TaskRows> {
        let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
        // Latin-1, whose characters are the first 256 of Unicode.
        let text: String = bytes.into_iter().map(char::from).collect();
        let row = |(index, line): (usize, &str)| match line.trim().split_once(' ') {
            Some((label, text)) => {
                let coarse = label.split(':').next().unwrap_or(label);
                Ok(row(index, json!({ "text": text, "label": coarse })))
            }
            None => Err(Error::data(path, Some(index + 1), "expected a label, a space and a question")),
        };
        let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(row).collect::<Result<_>>()?;
        self.classes(&table(path, &["text", "label"], rows), &QUESTIONS)
    }

    fn pairs(&self, path: &Path) -> Result<TaskRows> {
        let pair = |(index, ([first, second], score)): (usize, ([String; 2], f64))| {
            row(index, json!({ "text": first, "text_b": second, "label": score / LARGEST_SCORE }))
        };
        let rows = scored(path)?.into_iter().enumerate().map(pair).collect();
        let table = table(path, &["text", "text_b", "label"], rows);
        Ok(TaskRows::Numbers(number_table(&table, &ColumnsConfig::default(), self.tokenizer, self.limit)?.0.into()))
    }

    fn classes(&self, table: &Table, names: &[&str]) -> Result<TaskRows> {
        let labels = Labels::in_order(names.iter().map(|&name| name.to_owned()).collect());
        Ok(TaskRows::Classes(class_table(table, &ColumnsConfig::default(), &labels, self.tokenizer, self.limit)?.0.into()))
    }
}

fn table(path: &Path, columns: &[&str], rows: Vec<Row>) -> Table {
    Table { path: path.to_owned(), columns: columns.iter().map(|&column| column.to_owned()).collect(), rows }
}

fn row(index: usize, fields: Value) -> Row {
    let Value::Object(fields) = fields else { unreachable!("fields have names") };
    Row { line: index + 1, fields: fields.into_iter().collect() }
}
