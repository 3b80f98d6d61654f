//! The rows of every task, and batches of them: sequences of all tasks laid end to end, and which of their tokens each head reads.

use crate::config::{Kind, MultitaskConfig, TaskConfig, in_task};
use crate::sampling::Pick;
use kiln_core::config::ModelConfig;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Example, Limit};
use kiln_data::layout;
use kiln_data::masking::Masking;
use kiln_data::prior;
use kiln_data::sequences::{self, Labelled};
use kiln_data::source::Rows;
use kiln_data::store::{Sequence, Store};
use kiln_data::text::{self, TextSource};
use kiln_data::texts;
use kiln_data::words::{self, Tagged};
use kiln_kernels::random::Key;
use kiln_kernels::segments::Segments;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What a head is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The task's name.
    pub name: String,
    /// What it learns.
    pub kind: Kind,
    /// Its classes or tags; none of a number or of tokens.
    pub labels: Vec<String>,
    /// Whether it judges pairs of texts.
    pub pairs: bool,
}

/// A task with its rows.
#[derive(Clone, Debug)]
pub struct Task {
    /// What its head is for.
    pub head: Head,
    /// What trains.
    pub train: TaskRows,
    /// What validates.
    pub validation: TaskRows,
    /// What only evaluates.
    pub held_out: TaskRows,
    /// What became of the rows read: of the training files, of those held out, and of the file of validation rows.
    pub counts: [Counts; 3],
    /// What became of those of each training file.
    pub files: Vec<Counts>,
    /// What each training file was taken for, in a line for the user.
    pub notes: Vec<String>,
}

/// The rows of one task.
#[derive(Clone, Debug)]
pub enum TaskRows {
    /// Texts or pairs with a class.
    Classes(Store<Labelled<u32>>),
    /// Texts or pairs with a number.
    Numbers(Store<Labelled<f32>>),
    /// Sentences with tags.
    Sentences(Store<Tagged>),
    /// Sequences of which some tokens are predicted.
    Examples(Store<Example>),
    /// Texts of which some tokens are hidden, and how.
    Texts(Store<Text>, Masking),
}

/// `$of` of the rows, whatever they are.
macro_rules! each {
    ($rows:expr, $store:ident => $of:expr) => {
        match $rows {
            TaskRows::Classes($store) => $of,
            TaskRows::Numbers($store) => $of,
            TaskRows::Sentences($store) => $of,
            TaskRows::Examples($store) => $of,
            TaskRows::Texts($store, _) => $of,
        }
    };
}

/// The rows that every task of a run reads.
///
/// # Errors
/// If a file, column or label is missing or bad, a row is too long, or the model cannot learn a task.
pub fn read(config: &MultitaskConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Vec<Task>> {
    config.tasks.iter().map(|(name, task)| in_task(name, of_task(config, name, task, model, tokenizer))).collect()
}

fn of_task(config: &MultitaskConfig, name: &str, task: &TaskConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Task> {
    if task.kind == Kind::NextToken && !model.causal {
        return Err(Error::config("kind", "an encoder cannot predict the next token; take \"masked-token\", another kind or a decoder"));
    }
    if task.kind == Kind::MaskedToken && model.causal {
        return Err(Error::config("kind", "a decoder cannot predict hidden tokens; take \"next-token\", another kind or an encoder"));
    }
    let limit = Limit::new(model.max_positions, config.overlong, tokenizer)?;
    let source = TextSource { columns: &task.columns, block_tokens: task.block_tokens, folder: &config.model, model, tokenizer, limit };
    let (data, draw) = (&task.data, config.draw(task));
    let head = |labels: &[String], pairs| Head { name: name.to_owned(), kind: task.kind, labels: labels.to_vec(), pairs };
    Ok(match task.kind {
        Kind::Classification => {
            let (rows, labels) = sequences::classes(data, &source, None, draw)?;
            let head = head(labels.names(), are_pairs(&rows)?);
            Task::new(head, rows, TaskRows::Classes)
        }
        Kind::Regression => {
            let rows = sequences::numbers(data, &source, draw)?;
            Task::new(head(&[], are_pairs(&rows)?), rows, TaskRows::Numbers)
        }
        Kind::TokenClassification => {
            let (rows, labels) = words::sentences(data, &source, None, draw)?;
            Task::new(head(labels.names(), false), rows, TaskRows::Sentences)
        }
        Kind::NextToken => Task::new(head(&[], false), text::examples(data, &source, draw)?, TaskRows::Examples),
        Kind::MaskedToken => {
            let masking = Masking::new(&task.masking, tokenizer, model.vocab_size)?;
            let (column, files) = (&task.columns.text, data.open(&task.columns.names, draw)?);
            let notes = files.train().map(|table| layout::note(table, "text", &[column], &[])).collect();
            let settings = || text::settings("texts", column, limit, tokenizer, &task.block_tokens);
            let rows = files.rows(limit, &settings, |table| texts::read(table, column, tokenizer, limit, task.block_tokens))?;
            Task::new(head(&[], false), Rows { notes, ..rows }, |rows| TaskRows::Texts(rows, masking))
        }
    })
}

/// Tokenizers give the tokens of a second text type 1, whether the model has token types or not; all rows of a file are pairs or none is.
fn are_pairs<L: Clone>(rows: &Rows<Labelled<L>>) -> Result<bool> {
    Ok(rows.train.get(0)?.token_types.contains(&1))
}

impl Task {
    fn new<R: Sequence>(head: Head, rows: Rows<R>, kind: impl Fn(Store<R>) -> TaskRows) -> Self {
        let Rows { train, validation, held_out, counts, files, notes, .. } = rows;
        let [validation, held_out] = [validation, held_out].map(|rows| kind(rows.into()));
        Self { head, train: kind(train), validation, held_out, counts, files, notes }
    }
}

impl TaskRows {
    /// How many there are.
    pub fn len(&self) -> usize {
        each!(self, rows => rows.len())
    }

    /// Those at `indices`, in memory.
    ///
    /// # Errors
    /// If one on disk cannot be read.
    pub fn pick(&self, indices: &[usize]) -> Result<Self> {
        fn of<R: Clone + Sequence>(rows: &Store<R>, indices: &[usize]) -> Result<Store<R>> {
            Ok(rows.pick(indices)?.into_iter().map(Cow::into_owned).collect::<Vec<_>>().into())
        }
        Ok(match self {
            Self::Classes(rows) => Self::Classes(of(rows, indices)?),
            Self::Numbers(rows) => Self::Numbers(of(rows, indices)?),
            Self::Sentences(rows) => Self::Sentences(of(rows, indices)?),
            Self::Examples(rows) => Self::Examples(of(rows, indices)?),
            Self::Texts(rows, masking) => Self::Texts(of(rows, indices)?, *masking),
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many an epoch sees.
    pub fn epoch_len(&self) -> usize {
        each!(self, rows => rows.epoch_len())
    }

    /// Those that an epoch sees, in the order of `seed`.
    pub fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        each!(self, rows => rows.order(seed, epoch))
    }

    /// The tokens of each.
    pub fn lengths(&self) -> Vec<usize> {
        each!(self, rows => rows.lengths())
    }

    /// What a new head for `head` says of every item at first, as its bias ([`kiln_data::prior`]); of next tokens nothing.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn prior(&self, head: &Head) -> Result<Vec<f32>> {
        let n_classes = head.labels.len();
        Ok(match self {
            Self::Classes(rows) => prior::of_classes(rows.each(|row| row.label)?, n_classes),
            Self::Numbers(rows) => prior::of_numbers(rows.each(|row| row.label)?),
            Self::Sentences(rows) => {
                let tags = rows.each(|row| row.supervised().map(|(_, tag)| tag).collect::<Vec<_>>())?;
                prior::of_classes(tags.into_iter().flatten(), n_classes)
            }
            Self::Texts(rows, masking) => {
                let tokens = |text: &Text| text.ids.iter().zip(&text.words).filter_map(|(&id, word)| word.map(|_| id)).collect::<Vec<_>>();
                prior::of_classes(rows.each(tokens)?.into_iter().flatten(), masking.vocab_size)
            }
            // The heads of decoders have no bias.
            Self::Examples(_) => Vec::new(),
        })
    }

    /// Items of each that a head judges: the row itself, its words or its tokens.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn n_items(&self) -> Result<Vec<usize>> {
        match self {
            Self::Classes(_) | Self::Numbers(_) => Ok(vec![1; self.len()]),
            Self::Sentences(rows) => rows.each(|row| row.supervised().count()),
            Self::Examples(rows) => rows.each(Example::n_supervised),
            Self::Texts(rows, masking) => rows.each(|row| (row.ids.len() as f64 * masking.share).ceil() as usize),
        }
    }
}

/// Sequences laid end to end, those of a task side by side.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The sequences.
    pub packed: Packed,
    /// What each task that has rows in the batch reads and learns, in the order of the tasks.
    pub parts: Vec<Part>,
}

/// The tokens of a batch.
#[derive(Default)]
struct Sequences {
    ids: Vec<u32>,
    token_types: Vec<u32>,
    lengths: Vec<usize>,
}

impl Sequences {
    /// Adds a sequence and, of texts and pairs, the types of its tokens. Returns where it lies.
    fn push(&mut self, ids: &[u32], types: Option<&[u32]>) -> Range<usize> {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        match types {
            Some(types) => self.token_types.extend_from_slice(types),
            None => self.token_types.resize(self.ids.len(), 0),
        }
        self.lengths.push(ids.len());
        start..self.ids.len()
    }
}

/// What one task reads and learns of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// The task's index.
    pub task: usize,
    /// How many of its rows are in the batch.
    pub n_rows: usize,
    /// The tokens whose hidden states its head reads, `[items]`.
    pub tokens: Arc<[u32]>,
    /// What is right for each.
    pub targets: Targets,
}

/// What is right for each item of a part: a row, a word or a token.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Classes, tags or tokens.
    Classes(Arc<[u32]>),
    /// Numbers.
    Numbers(Vec<f32>),
}

/// The token of a sequence that stands for it: the first in encoders, the last in decoders.
pub(crate) fn pooled(range: Range<usize>, causal: bool) -> u32 {
    (if causal { range.end - 1 } else { range.start }) as u32
}

impl Batch {
    /// The rows at `picks`, those of a task side by side, out of each task's `rows`. `causal`: whether the model is a decoder; `hide`: which
    /// tokens are hidden, of a text number `i` by `hide.fold(i)`, so that they do not depend on what else is in the batch.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn new(rows: &[&TaskRows], picks: &[Pick], causal: bool, hide: Key) -> Result<Self> {
        let mut parts = Vec::new();
        let mut sequences = Sequences::default();
        for picks in picks.chunk_by(|(a, _), (b, _)| a == b) {
            let task = picks[0].0;
            let (mut tokens, mut classes, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
            for &(_, index) in picks {
                match rows[task] {
                    TaskRows::Classes(rows) => {
                        let row = rows.get(index)?;
                        tokens.push(pooled(sequences.push(&row.ids, Some(&row.token_types)), causal));
                        classes.push(row.label);
                    }
                    TaskRows::Numbers(rows) => {
                        let row = rows.get(index)?;
                        tokens.push(pooled(sequences.push(&row.ids, Some(&row.token_types)), causal));
                        numbers.push(row.label);
                    }
                    TaskRows::Sentences(rows) => {
                        let row = rows.get(index)?;
                        let start = sequences.push(&row.ids, None).start;
                        for (first, tag) in row.supervised() {
                            tokens.push((start + first) as u32);
                            classes.push(tag);
                        }
                    }
                    TaskRows::Texts(rows, masking) => {
                        let row = rows.get(index)?;
                        let (hidden, chosen) = masking.hide(&row, hide.fold(index as u64));
                        let start = sequences.push(&hidden, None).start;
                        for token in chosen {
                            tokens.push((start + token) as u32);
                            classes.push(row.ids[token]);
                        }
                    }
                    TaskRows::Examples(rows) => {
                        let row = rows.get(index)?;
                        let start = sequences.push(&row.ids, None).start;
                        for token in row.supervised.iter().cloned().flatten() {
                            tokens.push((start + token - 1) as u32);
                            classes.push(row.ids[token]);
                        }
                    }
                }
            }
            let targets = if numbers.is_empty() { Targets::Classes(classes.into()) } else { Targets::Numbers(numbers) };
            parts.push(Part { task, n_rows: picks.len(), tokens: tokens.into(), targets });
        }
        let Sequences { ids, token_types, lengths } = sequences;
        let packed = Packed { ids: ids.into(), token_types: token_types.into(), segments: Segments::from_lengths(lengths) };
        Ok(Self { packed, parts })
    }

    /// How many rows are in it.
    pub fn n_rows(&self) -> usize {
        self.packed.segments.len()
    }
}

impl Part {
    /// How many rows, words or tokens its loss is summed over.
    pub fn n_items(&self) -> usize {
        self.tokens.len()
    }
}
