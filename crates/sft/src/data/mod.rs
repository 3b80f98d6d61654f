//! Rows of the user's files as token sequences of one task, split into what trains and what is held out.

pub mod preferences;
pub mod sequences;
pub mod text;
pub mod words;

use crate::config::SftConfig;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::{Counts, Limit};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;

/// The rows of a run.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// What trains.
    pub train: Vec<R>,
    /// What only evaluates.
    pub held_out: Vec<R>,
    /// What became of the rows read, training rows first.
    pub counts: [Counts; 2],
}

impl<R> Rows<R> {
    /// The rows that `read` makes of the training table and of the held-out one.
    fn of([train, held_out]: [Table; 2], mut read: impl FnMut(&Table) -> Result<(Vec<R>, Counts)>) -> Result<Self> {
        let (train, train_counts) = read(&train)?;
        let (held_out, held_out_counts) = read(&held_out)?;
        Ok(Self { train, held_out, counts: [train_counts, held_out_counts] })
    }
}

/// How long a sequence of this model may be.
fn limit(config: &SftConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Limit> {
    Limit::new(model.max_positions, config.overlong, tokenizer)
}

/// The classes a model of the Hugging Face class `class` was trained for, in their order; placeholders such as LABEL_0 are not classes of
/// anything.
fn labels_of_model(model: &ModelConfig, class: &str) -> Option<Labels> {
    let names = model.label_names();
    let is_trained = !names.is_empty() && !names.iter().any(|name| name.starts_with("LABEL_"));
    (is_trained && model.class_name() == Some(class)).then(|| Labels::in_order(names))
}
