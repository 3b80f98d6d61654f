//! How good a model is on rows it was not trained on.

mod classification;
mod next_token;
mod preference;
mod regression;
mod token_classification;

pub use classification::classifier;
pub use next_token::{language_model, log_probabilities};
pub use preference::preference;
pub use regression::regression;
pub use token_classification::token_classifier;

use crate::config::EvalConfig;
use crate::data::preferences::pair_table;
use crate::data::sequences::{class_table, number_table};
use crate::data::text::TextSource;
use crate::data::words::sentence_table;
use burn::tensor::{Device, Tensor};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Limit;
use kiln_data::labels::Labels;
use kiln_data::pack::parts;
use kiln_data::rows::Table;
use kiln_data::tags;
use kiln_eval::classification::ClassificationReport;
use kiln_eval::entities::EntityReport;
use kiln_eval::figure::{Difference, Figure};
use serde::Serialize;

/// Tokens per forward pass of an evaluation; results do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// The figure a model is judged by, and whatever else belongs to it.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The figure, its interval over rows.
    #[serde(flatten)]
    pub figure: Figure,
    /// Mean loss: cross-entropy per row, word or token in nats, squared error per row, or preference loss per pair in nats.
    pub loss: f64,
    /// Rows evaluated.
    pub n_rows: usize,
    /// Further figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Figure>,
    /// Precision, recall and F1, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ClassificationReport>,
    /// The same by kind of entity, of a token classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<EntityReport>,
}

impl Evaluation {
    /// One figure alone.
    fn new(figure: Figure, loss: f64, n_rows: usize) -> Self {
        Self { figure, loss, n_rows, others: Vec::new(), report: None, entities: None }
    }

    /// By how much each figure is larger than in `before`, an evaluation on the same rows.
    pub fn minus(&self, before: &Self) -> Vec<Difference> {
        let figures = |evaluation: &Self| [vec![evaluation.figure.clone()], evaluation.others.clone()].concat();
        figures(self).iter().zip(&figures(before)).map(|(after, before)| after.minus(before)).collect()
    }
}

/// Evaluates the model, and the adapter, that `config` names, by what its `config.json` says it is.
///
/// # Errors
/// If a file, column, label or row is bad.
pub fn evaluate(config: &EvalConfig, device: &Device) -> Result<Evaluation> {
    config.validate()?;
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let table = Table::read(&config.data, &config.columns.names)?;
    let limit = Limit::new(shape.max_positions, config.overlong, &tokenizer)?;
    let class = shape.class_name();
    if shape.causal && class.is_none_or(|class| class == shape.family.language_model_class()) {
        let source = TextSource {
            columns: &config.columns,
            block_tokens: config.block_tokens,
            folder: &config.model,
            model: &shape,
            tokenizer: &tokenizer,
            limit,
        };
        let [_, chosen, rejected] = config.columns.preference();
        if [chosen, rejected].iter().all(|&column| table.columns.iter().any(|known| known == column)) {
            return preferences(config, &source, &table, device);
        }
        let (examples, _) = source.examples(&table)?;
        let model = with_adapter(LanguageModel::load(&config.model, device)?.0, config, device)?;
        return Ok(language_model(&model, &examples, config.seed));
    }
    let labels = Labels::in_order(shape.label_names());
    if class == Some(&shape.family.token_classifier_class()) {
        let model = with_adapter(TokenClassifier::load(&config.model, device)?.0, config, device)?;
        tags::check_names(labels.names(), &config.model)?;
        let (sentences, _) = sentence_table(&table, &config.columns, &labels, &tokenizer, limit)?;
        return Ok(token_classifier(&model, &sentences, labels.names(), config.seed));
    }
    let model = with_adapter(SequenceClassifier::load(&config.model, device)?.0, config, device)?;
    if shape.is_regression() {
        let (rows, _) = number_table(&table, &config.columns, &tokenizer, limit)?;
        return Ok(regression(&model, &rows, config.seed));
    }
    let (rows, _) = class_table(&table, &config.columns, &labels, &tokenizer, limit)?;
    Ok(classifier(&model, &rows, labels.names(), config.seed))
}

/// What is preferred, compared to the reference model: the one named, or the model without its adapter.
fn preferences(config: &EvalConfig, source: &TextSource<'_>, table: &Table, device: &Device) -> Result<Evaluation> {
    let model = LanguageModel::load(&config.model, device)?.0;
    let reference = match (&config.reference, &config.adapter) {
        (Some(folder), _) => LanguageModel::load(folder, device)?.0,
        (None, Some(_)) => model.clone(),
        (None, None) => {
            let message = "missing: the folder of the model before training, which preferences are compared to";
            return Err(Error::config("reference", message));
        }
    };
    let (pairs, _) = pair_table(source, table, &reference)?;
    Ok(preference(&with_adapter(model, config, device)?, &pairs, &config.preference, config.seed))
}

fn with_adapter<M: Model>(model: M, config: &EvalConfig, device: &Device) -> Result<M> {
    match &config.adapter {
        Some(folder) => adapter::load(model, folder, device),
        None => Ok(model),
    }
}

/// Rows in order, cut so that each forward pass gets a bounded number of tokens.
fn batches<R>(rows: &[R], n_tokens: impl Fn(&R) -> usize) -> impl Iterator<Item = Vec<&R>> {
    let lengths: Vec<usize> = rows.iter().map(n_tokens).collect();
    let all: Vec<usize> = (0..rows.len()).collect();
    parts(&all, &lengths, BATCH_TOKENS).into_iter().map(|part| part.into_iter().map(|index| &rows[index]).collect())
}

/// The values of a tensor.
fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("floats")
}

/// The likeliest class of each row of `logits` and the cross-entropy of its label, in nats. Of classes equally likely the first counts.
fn cross_entropies(logits: Tensor<2>, labels: &[u32]) -> Vec<(usize, f64)> {
    let [_, n_classes] = logits.dims();
    let row = |(scores, &label): (&[f32], &u32)| {
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).expect("a class");
        let largest = f64::from(scores[best]);
        let log_sum = largest + scores.iter().map(|&score| (f64::from(score) - largest).exp()).sum::<f64>().ln();
        (best, log_sum - f64::from(scores[label as usize]))
    };
    floats(logits).chunks_exact(n_classes).zip(labels).map(row).collect()
}
