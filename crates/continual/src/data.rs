//! Rows of the user's files as token sequences of one objective, domain by domain.

use crate::config::{ContinualConfig, GENERAL};
use crate::replay::RowId;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_data::examples::{self, Example, Limit, block_length, blocks, end_id};
use kiln_data::masking::Masking;
use kiln_data::rows::Table;
use kiln_data::source::{DataConfig, Draw, Read, Rows};
use kiln_data::store::Stored;
use kiln_data::text::settings;
use kiln_data::{layout, texts};
use kiln_kernels::random::Key;
use std::borrow::Cow;

/// What a row is, and what is predicted of it.
pub trait Objective {
    /// One row.
    type Row: Clone + Stored;

    /// Tokens of a row that are predicted.
    fn n_read(&self, row: &Self::Row) -> usize;

    /// How files are read.
    fn reader(&self) -> &Reader<'_>;

    /// The rows of a file, and what became of its lines.
    ///
    /// # Errors
    /// If a column is missing, or a row is empty or too long.
    fn read(&self, table: &Table) -> Read<Self::Row>;

    /// Plants canaries among the rows of a domain, if there are to be some.
    ///
    /// # Errors
    /// If the model cannot learn them.
    fn plant(&self, _: &mut Rows<Self::Row>) -> Result<()> {
        Ok(())
    }

    /// The row as a decoder learns to continue it, if it does.
    fn example(_: &Self::Row) -> Option<&Example> {
        None
    }

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

    fn reader(&self) -> &Reader<'_> {
        &self.0
    }

    fn n_read(&self, row: &Example) -> usize {
        row.n_supervised()
    }

    fn read(&self, table: &Table) -> Read<Example> {
        let Reader { config, model, tokenizer, limit } = &self.0;
        if table.is_running_text() {
            return blocks(table, "text", tokenizer, block_length(config.block_tokens, limit.max_tokens)?);
        }
        examples::documents(table, &config.columns.text, tokenizer, end_id(&model.end_ids, &config.model)?, *limit)
    }

    fn plant(&self, rows: &mut Rows<Example>) -> Result<()> {
        let Reader { config, model, tokenizer, .. } = self.0;
        config.canaries.plant(rows, tokenizer, model, &config.model)
    }

    fn example(row: &Example) -> Option<&Example> {
        Some(row)
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

    fn reader(&self) -> &Reader<'_> {
        &self.0
    }

    fn n_read(&self, row: &Text) -> usize {
        (row.ids.len() as f64 * self.1.share).ceil() as usize
    }

    fn read(&self, table: &Table) -> Read<Text> {
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
    /// Its rows.
    pub rows: Rows<R>,
}

/// The general text, if there is one, and then each domain; and how many of them are general text.
///
/// # Errors
/// If a file is missing or bad.
pub fn corpora<O: Objective>(config: &ContinualConfig, objective: &O) -> Result<(Vec<Corpus<O::Row>>, usize)> {
    let Reader { model, tokenizer, limit, .. } = *objective.reader();
    let ContinualConfig { columns, block_tokens, .. } = config;
    let read = |(name, data, draw): (String, DataConfig, Draw<'_>)| {
        let files = data.open(&columns.names, draw)?;
        let notes = files.train().map(|table| layout::note(table, "text", &[&columns.text], &[])).collect();
        let settings = || settings("continual", &columns.text, limit, tokenizer, &(config.objective, block_tokens, &model.end_ids));
        let rows = files.rows(limit, &settings, |table| objective.read(table))?;
        let mut rows = Rows { notes, ..rows };
        if name != GENERAL {
            objective.plant(&mut rows)?;
        }
        Ok(Corpus { name, rows })
    };
    let general = config.general.clone().map(|data| (GENERAL.to_owned(), data, Draw::new(config.seed, config.texts())));
    let n_general = usize::from(general.is_some());
    let domains = config.stream()?.into_iter().map(|(name, data)| (name, data, config.validation.draw(config.seed, config.texts())));
    let corpora = general.into_iter().chain(domains).map(read).collect::<Result<_>>()?;
    Ok((corpora, n_general))
}

/// The rows of an update.
///
/// # Errors
/// If one on disk cannot be read.
pub fn picked<'a, R: Clone>(corpora: &'a [Corpus<R>], rows: &[RowId]) -> Result<Vec<Cow<'a, R>>> {
    rows.iter().map(|&(corpus, row)| corpora[corpus].rows.train.get(row)).collect()
}
