//! How good a model is on rows it was not trained on.

mod classification;
mod next_token;
mod preference;
mod regression;
mod token_classification;

pub use classification::classifier;
pub(crate) use classification::{Answer, answers};
pub use next_token::{language_model, log_probabilities};
pub use preference::preference;
pub use regression::regression;
pub use token_classification::token_classifier;

use crate::config::EvalConfig;
use crate::data::preferences::pair_table;
use crate::mitigation::judged;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Limit;
use kiln_data::grouped::{self, Groups};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::sequences::{class_table, number_table};
use kiln_data::source::fetched;
use kiln_data::tags;
use kiln_data::text::TextSource;
use kiln_data::words::sentence_table;
use kiln_eval::evaluation::Evaluation;
use kiln_train::thresholds::Thresholds;

/// Evaluates the model, and the adapter, that `config` names, by what its `config.json` says it is. A classifier with thresholds of groups is
/// judged by them if the rows say which groups they are about.
///
/// # Errors
/// If a file, column, label or row is bad.
pub fn evaluate(config: &EvalConfig, device: &Device) -> Result<Evaluation> {
    config.validate()?;
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let table = Table::read(&fetched("data", &config.data, "test")?, &config.columns.names)?;
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
        let (examples, counts) = source.examples(&table)?;
        limit.check_left(&table.path, &counts)?;
        let model = with_adapter(LanguageModel::load(&config.model, device)?.0, config, device)?;
        return Ok(language_model(&model, &examples, config.seed));
    }
    let labels = Labels::in_order(shape.label_names());
    if class == Some(&shape.family.token_classifier_class()) {
        let model = with_adapter(TokenClassifier::load(&config.model, device)?.0, config, device)?;
        tags::check_names(labels.names(), &config.model)?;
        let (sentences, counts) = sentence_table(&table, &config.columns, &labels, &tokenizer, limit)?;
        limit.check_left(&table.path, &counts)?;
        return Ok(token_classifier(&model, &sentences, labels.names(), config.seed));
    }
    let model = with_adapter(SequenceClassifier::load(&config.model, device)?.0, config, device)?;
    if shape.is_regression() {
        let (rows, counts) = number_table(&table, &config.columns, &tokenizer, limit)?;
        limit.check_left(&table.path, &counts)?;
        return Ok(regression(&model, &rows, config.seed));
    }
    let thresholds = Thresholds::find(&config.model, labels.names())?.filter(|thresholds| {
        let fit = thresholds.fit(&table);
        if !fit {
            eprintln!("{} has no {}: the model's thresholds are not used", table.path.display(), thresholds.columns.join(" and "));
        }
        fit
    });
    let Some(thresholds) = thresholds else {
        let (rows, counts) = class_table(&table, &config.columns, &labels, &tokenizer, limit)?;
        limit.check_left(&table.path, &counts)?;
        return Ok(classifier(&model, &rows, labels.names(), config.seed));
    };
    let groups = Groups::of_table(&table, &thresholds.columns)?;
    let (rows, counts) = grouped::table_of(&table, &config.columns, &labels, &groups, None, &tokenizer, limit)?;
    limit.check_left(&table.path, &counts)?;
    let positive = thresholds.positive_of(labels.names());
    let found = answers(&model, &rows.iter().map(|row| &row.row).collect::<Vec<_>>(), positive as u32);
    Ok(judged(&found, &rows, &groups, &[positive], labels.names(), Some(&thresholds), config.seed))
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
    let (pairs, counts) = pair_table(source, table, &reference)?;
    source.limit.check_left(&table.path, &counts)?;
    Ok(preference(&with_adapter(model, config, device)?, &pairs, &config.preference, config.seed))
}

fn with_adapter<M: Model>(model: M, config: &EvalConfig, device: &Device) -> Result<M> {
    match &config.adapter {
        Some(folder) => adapter::load(model, folder, device),
        None => Ok(model),
    }
}
