//! How good a model is on rows it was not trained on.

use crate::config::EvalConfig;
use crate::data::{Labelled, TextSource, labelled_table};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, adapter};
use kiln_data::examples::{Example, Limit, pack};
use kiln_data::labels::Labels;
use kiln_data::pack::parts;
use kiln_data::rows::Table;
use kiln_eval::bootstrap::{Bootstrap, Interval, mean};
use kiln_eval::classification::{ClassificationReport, Confusion};
use kiln_eval::perplexity::Perplexity;
use kiln_kernels::cross_entropy::HeadOptions;
use serde::Serialize;

/// Tokens per forward pass of an evaluation; results do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// One figure with its uncertainty, and whatever else belongs to it.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The figure's name.
    pub metric: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The figure.
    pub value: f64,
    /// Its 95 % bootstrap interval over rows.
    pub interval: Interval,
    /// Mean cross-entropy per row or token, in nats; the figure itself for perplexity.
    pub loss_nats: f64,
    /// Rows evaluated.
    pub n_rows: usize,
    /// Precision, recall and F1, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ClassificationReport>,
}

/// Evaluates the model, and the adapter, that `config` names: accuracy of a classifier, perplexity of a decoder.
///
/// # Errors
/// If a file, column, label or row is bad.
pub fn evaluate(config: &EvalConfig, device: &Device) -> Result<Evaluation> {
    config.validate()?;
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let table = Table::read(&config.data, &config.columns.names)?;
    let limit = Limit::new(shape.max_positions, config.overlong, &tokenizer)?;
    if shape.causal && shape.class_name().is_none_or(|class| class.ends_with("ForCausalLM")) {
        let source = TextSource {
            columns: &config.columns,
            block_tokens: config.block_tokens,
            folder: &config.model,
            model: &shape,
            tokenizer: &tokenizer,
            limit,
        };
        let (examples, _) = source.examples(&table)?;
        let model = with_adapter(LanguageModel::load(&config.model, device)?.0, config, device)?;
        return Ok(language_model(&model, &examples, config.seed));
    }
    let model = with_adapter(SequenceClassifier::load(&config.model, device)?.0, config, device)?;
    let labels = Labels::in_order(shape.label_names());
    let (rows, _) = labelled_table(&table, &config.columns, &labels, &tokenizer, limit)?;
    Ok(classifier(&model, &rows, labels.names(), config.seed))
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

/// Accuracy of a classifier, with precision, recall and F1 per class. `seed` draws the bootstrap's resamples.
pub fn classifier(model: &SequenceClassifier, rows: &[Labelled], label_names: &[String], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut predictions = Vec::with_capacity(rows.len());
    let mut loss_nats = 0.0;
    for batch in batches(rows, |row| row.ids.len()) {
        let logits = model.forward(&Packed::new(batch.iter().map(|row| row.ids.as_slice())), None);
        let logits: Vec<f32> = logits.into_data().try_to_vec().expect("logits are f32");
        for (scores, row) in logits.chunks_exact(label_names.len()).zip(&batch) {
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).expect("a class");
            let largest = f64::from(scores[best]);
            let log_sum = largest + scores.iter().map(|&score| (f64::from(score) - largest).exp()).sum::<f64>().ln();
            loss_nats += log_sum - f64::from(scores[row.label as usize]);
            predictions.push(best);
        }
    }
    let golds: Vec<usize> = rows.iter().map(|row| row.label as usize).collect();
    let confusion = Confusion::new(&predictions, &golds, label_names.len());
    let hits: Vec<f64> = predictions.iter().zip(&golds).map(|(prediction, gold)| f64::from(u8::from(prediction == gold))).collect();
    Evaluation {
        metric: "accuracy",
        higher_is_better: true,
        value: confusion.accuracy(),
        interval: Bootstrap::new(seed).interval(&hits, mean),
        loss_nats: loss_nats / rows.len() as f64,
        n_rows: rows.len(),
        report: Some(ClassificationReport::new(&confusion, label_names)),
    }
}

/// Perplexity of a language model over the supervised tokens. `seed` draws the bootstrap's resamples.
pub fn language_model(model: &LanguageModel, rows: &[Example], seed: u64) -> Evaluation {
    let model = model.clone().valid();
    let mut perplexity = Perplexity::default();
    let mut per_row = Vec::with_capacity(rows.len());
    for batch in batches(rows, |row| row.ids.len()) {
        let (packed, supervised) = pack(&batch);
        let columns: Vec<f32> =
            model.log_probabilities(&packed, &supervised, HeadOptions::default(), None).into_data().try_to_vec().expect("f32");
        let mut log_probabilities = columns.into_iter().step_by(2);
        for row in batch {
            let nll: f64 = log_probabilities.by_ref().take(row.n_supervised()).map(|log_probability| -f64::from(log_probability)).sum();
            per_row.push((nll, row.n_supervised() as u64));
            perplexity.add(nll, row.n_supervised() as u64);
        }
    }
    Evaluation {
        metric: "perplexity",
        higher_is_better: false,
        value: perplexity.value(),
        interval: Bootstrap::new(seed).perplexity(&per_row),
        loss_nats: perplexity.per_token_nats(),
        n_rows: rows.len(),
        report: None,
    }
}
