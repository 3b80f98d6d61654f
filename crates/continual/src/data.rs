//! Rows of the user's files as token sequences of one objective, domain by domain.

use crate::config::{ContinualConfig, GENERAL};
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_data::examples::{self, Counts, Example, Limit, block_length, blocks, end_id};
use kiln_data::masking::Masking;
use kiln_data::rows::Table;
use kiln_data::source::{DataConfig, Draw, Training, joined};
use kiln_data::texts;
use kiln_kernels::random::Key;

/// What a row is, and what is predicted of it.
pub trait Objective {
    /// One row.
    type Row;

    /// Tokens of a row.
    fn n_tokens(row: &Self::Row) -> usize;

    /// How long a row may be.
    fn limit(&self) -> Limit;

    /// Tokens of a row that are predicted.
    fn n_read(&self, row: &Self::Row) -> usize;

    /// The rows of a file, and what became of its lines.
    ///
    /// # Errors
    /// If a column is missing, or a row is empty or too long.
    fn read(&self, table: &Table) -> Result<(Vec<Self::Row>, Counts)>;

    /// Rows laid end to end, and what is predicted of them. Row number `i` draws from `key.fold(first + i)`, if it draws.
    fn pack(&self, rows: &[&Self::Row], key: Key, first: usize) -> (Packed, Supervised);
}

/// How files are read, whatever is predicted.
#[derive(Debug)]
pub struct Reader<'a> {
    config: &'a ContinualConfig,
    model: &'a ModelConfig,
    tokenizer: &'a Tokenizer,
    limit: Limit,
}

impl<'a> Reader<'a> {
    /// For a run's settings and its model.
    ///
    /// # Errors
    /// If the tokenizer cannot say what it puts after a text.
    pub fn new(config: &'a ContinualConfig, model: &'a ModelConfig, tokenizer: &'a Tokenizer) -> Result<Self> {
        Ok(Self { config, model, tokenizer, limit: Limit::new(model.max_positions, config.overlong, tokenizer)? })
    }
}

/// The next token of blocks of running text, or of one document per row.
#[derive(Debug)]
pub struct NextToken<'a>(pub Reader<'a>);

impl Objective for NextToken<'_> {
    type Row = Example;

    fn n_tokens(row: &Example) -> usize {
        row.ids.len()
    }

    fn limit(&self) -> Limit {
        self.0.limit
    }

    fn n_read(&self, row: &Example) -> usize {
        row.n_supervised()
    }

    fn read(&self, table: &Table) -> Result<(Vec<Example>, Counts)> {
        let Reader { config, model, tokenizer, limit } = &self.0;
        if table.is_running_text() {
            return blocks(table, "text", tokenizer, block_length(config.block_tokens, limit.max_tokens)?);
        }
        examples::documents(table, &config.columns.text, tokenizer, end_id(&model.end_ids, &config.model)?, *limit)
    }

    fn pack(&self, rows: &[&Example], _: Key, _: usize) -> (Packed, Supervised) {
        examples::pack(rows)
    }
}

/// The hidden tokens of a text.
#[derive(Debug)]
pub struct MaskedTokens<'a>(pub Reader<'a>, pub Masking);

impl Objective for MaskedTokens<'_> {
    type Row = Text;

    fn n_tokens(row: &Text) -> usize {
        row.ids.len()
    }

    fn limit(&self) -> Limit {
        self.0.limit
    }

    fn n_read(&self, row: &Text) -> usize {
        (row.ids.len() as f64 * self.1.share).ceil() as usize
    }

    fn read(&self, table: &Table) -> Result<(Vec<Text>, Counts)> {
        let Reader { config, tokenizer, limit, .. } = &self.0;
        texts::read(table, &config.columns.text, tokenizer, *limit, config.block_tokens)
    }

    fn pack(&self, rows: &[&Text], key: Key, first: usize) -> (Packed, Supervised) {
        self.1.pack(rows, key, first)
    }
}

/// The rows of one domain, or of the general text.
#[derive(Clone, Debug)]
pub struct Corpus<R> {
    /// What the report calls it.
    pub name: String,
    /// What trains.
    pub train: Vec<R>,
    /// What validates.
    pub validation: Vec<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the lines read: of the training files, of those held out, and of the file of validation rows.
    pub counts: [Counts; 3],
}

/// The general text, if there is one, and then each domain; and how many of them are general text.
///
/// # Errors
/// If a file is missing or bad.
pub fn corpora<O: Objective>(config: &ContinualConfig, objective: &O) -> Result<(Vec<Corpus<O::Row>>, usize)> {
    let read = |(name, data, draw): (String, DataConfig, Draw<'_>)| {
        let tables = data.tables(&config.columns.names, draw)?;
        let of = |table: &Table| objective.read(table);
        let Training { rows: train, validation, counts: [train_counts, validation_counts] } =
            tables.training(draw, objective.limit(), of)?;
        let (held_out, held_out_counts) = joined(&tables.held_out, objective.limit(), of)?;
        Ok(Corpus { name, train, validation, held_out, counts: [train_counts, held_out_counts, validation_counts] })
    };
    let general = config.general.clone().map(|data| (GENERAL.to_owned(), data, Draw::new(config.seed, config.texts())));
    let n_general = usize::from(general.is_some());
    let domains = config.stream()?.into_iter().map(|(name, data)| (name, data, config.validation.draw(config.seed, config.texts())));
    let corpora = general.into_iter().chain(domains).map(read).collect::<Result<_>>()?;
    Ok((corpora, n_general))
}
