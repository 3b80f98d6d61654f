//! What models say of texts and of words.

use burn::module::Module;
use burn::tensor::Device;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model as _;
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, hub};
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Counts, Limit, Overlong};
use kiln_data::rows::{Row, Table};
use kiln_data::sequences::{Labelled, packed};
use kiln_data::words::{Tagged, pack};
use kiln_train::evaluate::{batches, floats};
use kiln_train::thresholds::Thresholds;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A text, or a pair of texts.
pub(crate) type Texts = (String, Option<String>);

/// What turns a user's rows into a model's tokens; what is too long is cut.
struct Reader {
    tokenizer: Tokenizer,
    limit: Limit,
}

/// A model's folder, whatever it was named by, and its settings.
fn open(folder: &Path) -> Result<(PathBuf, ModelConfig, Reader)> {
    let folder = hub::folder(folder)?;
    let config = ModelConfig::from_folder(&folder)?;
    let tokenizer = Tokenizer::for_model(&folder, &config)?;
    let limit = Limit::new(config.max_positions, Overlong::Truncate, &tokenizer)?;
    Ok((folder, config, Reader { tokenizer, limit }))
}

impl Reader {
    /// The tokens of texts; `rows` are the rows of `table` that they come from.
    fn sequences(&self, texts: Vec<Texts>, table: &Table, rows: &[&Row]) -> Result<Vec<Labelled<()>>> {
        let mut sequences = Vec::with_capacity(texts.len());
        for (encoded, row) in self.tokenizer.encode_pairs(texts)?.into_iter().zip(rows) {
            if encoded.ids.is_empty() {
                return Err(table.error(row, "the text is empty: no token to judge"));
            }
            let encoded = self.limit.apply_pair(encoded, table, row, &mut Counts::default())?;
            sequences.extend(encoded.map(|encoded| Labelled { ids: encoded.ids, token_types: encoded.token_types, label: () }));
        }
        Ok(sequences)
    }

    /// The same for sentences of words.
    fn sentences(&self, words: &[Vec<&str>], table: &Table, rows: &[&Row]) -> Result<Vec<Tagged>> {
        let owned = words.iter().map(|words| words.iter().map(|&word| word.to_owned()).collect()).collect();
        let mut sentences = Vec::with_capacity(words.len());
        for (encoded, row) in self.tokenizer.encode_split(owned)?.into_iter().zip(rows) {
            if let Some(ids) = self.limit.apply(encoded.ids, table, row, &mut Counts::default())? {
                let firsts = self.limit.left(encoded.firsts, ids.len());
                sentences.push(Tagged { tags: vec![0; firsts.len()], ids, firsts });
            }
        }
        Ok(sentences)
    }
}

/// What a model of whole sequences puts out for each, `[sequences, outputs]`.
fn scores(model: &SequenceClassifier, sequences: &[Labelled<()>]) -> Vec<f32> {
    batches(sequences, |row| row.ids.len()).flat_map(|batch| floats(model.forward(&packed(&batch), None))).collect()
}

/// A classifier of texts with its tokenizer.
pub(crate) struct Classifier {
    model: SequenceClassifier,
    reader: Reader,
    /// Those of groups, if the model has some.
    thresholds: Option<Thresholds>,
}

impl Classifier {
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let (folder, config, reader) = open(folder)?;
        if config.class_name() != Some(&config.family.classifier_class()) || config.is_regression() {
            return Err(Error::checkpoint(&folder, "is no classifier of texts: train one with cargo xtask sft --set task=classification"));
        }
        let model = SequenceClassifier::load(&folder, device)?.0.valid();
        let thresholds = Thresholds::find(&folder, &model.config().label_names())?;
        Ok(Self { model, reader, thresholds })
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
        let sequences = self.reader.sequences(texts, table, rows)?;
        Ok(scores(&self.model, &sequences).chunks_exact(self.class_names().len()).map(softmax).collect())
    }

    /// The probabilities of the classes for each of the sentences, which come from no file; errors call them `what`.
    pub fn of_sentences(&self, what: &str, sentences: Vec<String>) -> Result<Vec<Vec<f64>>> {
        let rows = (1..=sentences.len()).map(|line| Row { line, fields: BTreeMap::new() }).collect();
        let table = Table { path: what.into(), columns: vec!["text".to_owned()], rows };
        let texts = sentences.into_iter().map(|text| (text, None)).collect();
        self.probabilities(texts, &table, &table.rows.iter().collect::<Vec<_>>())
    }
}

/// A model that says a number of a text, with its tokenizer.
pub(crate) struct Regressor {
    model: SequenceClassifier,
    reader: Reader,
}

impl Regressor {
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let (folder, config, reader) = open(folder)?;
        if !config.is_regression() {
            return Err(Error::checkpoint(&folder, "says no number: train one that does with cargo xtask sft --set task=regression"));
        }
        Ok(Self { model: SequenceClassifier::load(&folder, device)?.0.valid(), reader })
    }

    /// The number of each text; `rows` are the rows of `table` that they come from.
    pub fn predictions(&self, texts: Vec<Texts>, table: &Table, rows: &[&Row]) -> Result<Vec<f64>> {
        let sequences = self.reader.sequences(texts, table, rows)?;
        Ok(scores(&self.model, &sequences).into_iter().map(f64::from).collect())
    }
}

/// A classifier of words with its tokenizer.
pub(crate) struct Tagger {
    model: TokenClassifier,
    reader: Reader,
}

impl Tagger {
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let (folder, config, reader) = open(folder)?;
        if config.class_name() != Some(&config.family.token_classifier_class()) {
            return Err(Error::checkpoint(
                &folder,
                "tags no words: train one that does with cargo xtask sft --set task=token-classification",
            ));
        }
        Ok(Self { model: TokenClassifier::load(&folder, device)?.0.valid(), reader })
    }

    pub fn tag_names(&self) -> Vec<String> {
        self.model.config().label_names()
    }

    /// The probabilities of the tags for each word of each sentence; `None` for words without a token. `rows` are the rows of `table` that the
    /// sentences come from.
    pub fn probabilities(&self, words: &[Vec<&str>], table: &Table, rows: &[&Row]) -> Result<Vec<Vec<Option<Vec<f64>>>>> {
        let sentences = self.reader.sentences(words, table, rows)?;
        let of_batch = |batch: Vec<&Tagged>| {
            let (packed, words) = pack(&batch);
            floats(self.model.forward(&packed, &words.rows, None))
        };
        let scores: Vec<f32> = batches(&sentences, |sentence| sentence.ids.len()).flat_map(of_batch).collect();
        let mut of_words = scores.chunks_exact(self.tag_names().len()).map(softmax);
        let mut of_word = |first: &Option<usize>| first.map(|_| of_words.next().expect("scores for each word with a token"));
        Ok(sentences.iter().map(|sentence| sentence.firsts.iter().map(&mut of_word).collect()).collect())
    }
}

/// The text, or the pair of texts, of each of `rows` of `table`.
pub(crate) fn texts(table: &Table, columns: &ColumnsConfig, rows: &[&Row]) -> Result<Vec<Texts>> {
    table.require_named(&[("columns.text", &columns.text)])?;
    let text = |row: &Row, column: &str| table.text(row, column).map(str::to_owned);
    let second = table.has(&columns.text_b).then_some(&columns.text_b);
    rows.iter().map(|row| Ok((text(row, &columns.text)?, second.map(|column| text(row, column)).transpose()?))).collect()
}

/// The place of the largest, of equal ones the first.
pub(crate) fn likeliest(probabilities: &[f64]) -> usize {
    (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]).then(b.cmp(&a))).unwrap_or(0)
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = scores.iter().map(|&score| f64::from(score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
