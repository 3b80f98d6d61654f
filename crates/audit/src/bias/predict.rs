//! What a classifier says of texts.

use burn::module::Module;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model as _;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, hub};
use kiln_data::examples::{Counts, Limit, Overlong};
use kiln_data::rows::{Row, Table};
use kiln_data::sequences::{Labelled, packed};
use kiln_train::evaluate::{batches, floats};
use kiln_train::thresholds::Thresholds;
use std::path::Path;

/// A classifier with its tokenizer.
pub(super) struct Classifier {
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    limit: Limit,
    /// Those of groups, if the model has some.
    thresholds: Option<Thresholds>,
}

/// A text, or a pair of texts.
pub(super) type Texts = (String, Option<String>);

impl Classifier {
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        let config = ModelConfig::from_folder(folder)?;
        if config.class_name() != Some(&config.family.classifier_class()) || config.is_regression() {
            return Err(Error::checkpoint(folder, "is no classifier of texts: train one with cargo xtask sft --set task=classification"));
        }
        let tokenizer = Tokenizer::for_model(folder, &config)?;
        let limit = Limit::new(config.max_positions, Overlong::Truncate, &tokenizer)?;
        let model = SequenceClassifier::load(folder, device)?.0.valid();
        let thresholds = Thresholds::find(folder, &model.config().label_names())?;
        Ok(Self { model, tokenizer, limit, thresholds })
    }

    pub fn class_names(&self) -> Vec<String> {
        self.model.config().label_names()
    }

    /// The class of each row of `table` by the probabilities of its text: the likeliest, or what the threshold of its group says, if there is one.
    pub fn classes(&self, probabilities: &[Vec<f64>], table: &Table, rows: &[&Row]) -> Result<Vec<usize>> {
        let thresholds = self.thresholds.as_ref().filter(|thresholds| thresholds.fit(table));
        let Some(thresholds) = thresholds else { return Ok(probabilities.iter().map(|row| likeliest(row)).collect()) };
        let positive = thresholds.positive_of(&self.class_names());
        let class = |(of_row, row): (&Vec<f64>, &&Row)| {
            let is_positive = of_row[positive] >= thresholds.of_row(table, row)?;
            Ok(if is_positive { positive } else { 1 - positive })
        };
        probabilities.iter().zip(rows).map(class).collect()
    }

    /// The probabilities of the classes for each text; `rows` are the rows of `table` that they come from.
    pub fn probabilities(&self, texts: Vec<Texts>, table: &Table, rows: &[&Row]) -> Result<Vec<Vec<f64>>> {
        let mut sequences = Vec::with_capacity(texts.len());
        for (encoded, row) in self.tokenizer.encode_pairs(texts)?.into_iter().zip(rows) {
            if encoded.ids.is_empty() {
                return Err(table.error(row, "the text is empty: no token to judge"));
            }
            let encoded = self.limit.apply_pair(encoded, table, row, &mut Counts::default())?;
            sequences.extend(encoded.map(|encoded| Labelled { ids: encoded.ids, token_types: encoded.token_types, label: () }));
        }
        let n_classes = self.class_names().len();
        let of_batch = |batch: Vec<&Labelled<()>>| floats(self.model.forward(&packed(&batch), None));
        let scores = batches(&sequences, |row| row.ids.len()).flat_map(of_batch).collect::<Vec<f32>>();
        Ok(scores.chunks_exact(n_classes).map(softmax).collect())
    }
}

/// The place of the largest, of equal ones the first.
fn likeliest(probabilities: &[f64]) -> usize {
    (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]).then(b.cmp(&a))).unwrap_or(0)
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = scores.iter().map(|&score| f64::from(score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
