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
use std::path::Path;

/// A classifier with its tokenizer.
pub(super) struct Classifier {
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    limit: Limit,
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
        Ok(Self { model: SequenceClassifier::load(folder, device)?.0.valid(), tokenizer, limit })
    }

    pub fn class_names(&self) -> Vec<String> {
        self.model.config().label_names()
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

fn softmax(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = scores.iter().map(|&score| f64::from(score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
