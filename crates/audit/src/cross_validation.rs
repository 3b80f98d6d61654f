//! Label errors by models that were fine-tuned on the other folds: of classes, of tags of words, and of numbers.
//!
//! The rows are cut into folds. Whoever holds a [`CrossValidation`] trains a model for each fold on the rows of the others and lets it
//! [judge](CrossValidation::judge) the fold; then every label is held against what a model says that has not seen it.
//!
//! - Classes: confident learning ([`crate::label_errors`]), and labels likelier wrong than right ([`crate::label_noise`]).
//! - Tags: the same, every word a row (arXiv:2210.03920, Section 3); a sentence is found if one of its words is.
//! - Numbers: those further from what is predicted than rows that are right but hard would be ([`crate::number_errors`]).

use crate::classifier::folds;
use crate::label_errors::Given;
use crate::label_noise::LabelNoise;
use crate::number_errors::likelier_wrong;
use crate::predict::{Classifier, Regressor, Tagger, texts};
use burn::tensor::Device;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::labels::Labels;
use kiln_data::rows::{Row, Table};
use kiln_data::tags;
use kiln_eval::regression::pearson;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The class of a text or a pair.
    Class,
    /// A tag for each word.
    Tags,
    /// A number for a text or a pair.
    Number,
}

/// The labels of the rows, and what the models say.
#[derive(Debug)]
enum Judged {
    /// Names of the classes, the class of each row, probabilities `[rows, classes]`.
    Classes(Labels, Vec<usize>, Vec<f32>),
    /// Names of the tags, the tag of each word of each row, and the probabilities of each word that has a token.
    Tags(Labels, Vec<Vec<usize>>, Vec<Vec<Option<Vec<f32>>>>),
    /// The number predicted for each row, and the row's own.
    Numbers(Vec<(f64, f64)>),
}

/// Rows in folds, and what models trained on the other folds say of each.
#[derive(Debug)]
pub struct CrossValidation {
    table: Table,
    columns: ColumnsConfig,
    folds: Vec<usize>,
    judged: Judged,
}

/// A label that is taken to be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    /// The row, counted from 0.
    pub row: usize,
    /// What stands there, and what the model says.
    pub reason: String,
    /// How likely it is wrong.
    pub probability: f64,
}

impl CrossValidation {
    /// The rows of `table` in `n_folds` folds, which `seed` draws; classes are spread evenly.
    ///
    /// # Errors
    /// If a column is missing or a label bad, or there are fewer rows than folds.
    pub fn new(table: Table, columns: &ColumnsConfig, kind: Kind, n_folds: usize, seed: u64) -> Result<Self> {
        let n_rows = table.rows.len();
        if n_rows < 2 * n_folds {
            return Err(Error::data(&table.path, None, format!("{n_rows} rows are too few for {n_folds} folds: set folds")));
        }
        let mut classes = vec![0; n_rows];
        let judged = match kind {
            Kind::Class => {
                table.require_named(&[("columns.label", &columns.label)])?;
                let names = table.rows.iter().map(|row| table.label(row, &columns.label)).collect::<Result<Vec<_>>>()?;
                let labels = Labels::distinct(names.iter().cloned());
                classes = names.iter().map(|name| labels.index(name).expect("one of them")).collect();
                let probabilities = vec![0.0; n_rows * labels.len()];
                Judged::Classes(labels, classes.clone(), probabilities)
            }
            Kind::Tags => {
                table.require_named(&[("columns.tokens", &columns.tokens), ("columns.tags", &columns.tags)])?;
                let labels = tags::labels(&table, columns.tagged())?;
                let of = |row: &Row| {
                    let (_, tags) = tags::tagged(&table, row, columns.tagged())?;
                    tags.into_iter().map(|tag| labels.index_of(&table, row, &columns.tags, tag)).collect::<Result<Vec<_>>>()
                };
                let tags = table.rows.iter().map(of).collect::<Result<Vec<_>>>()?;
                Judged::Tags(labels, tags, vec![Vec::new(); n_rows])
            }
            Kind::Number => {
                table.require_named(&[("columns.label", &columns.label)])?;
                let numbers = table.rows.iter().map(|row| Ok((0.0, table.number(row, &columns.label)?))).collect::<Result<_>>()?;
                Judged::Numbers(numbers)
            }
        };
        Ok(Self { folds: folds(&classes, n_folds, seed), columns: columns.clone(), table, judged })
    }

    fn rows_of(&self, fold: usize) -> impl Iterator<Item = usize> {
        (0..self.folds.len()).filter(move |&row| self.folds[row] == fold)
    }

    /// Writes `train.jsonl`, the rows of all folds but `fold`, and `held_out.jsonl`, those of the fold, into `folder`. Rows with a class or tag
    /// that none of the others has are left out of the second: no model could know it.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be written.
    pub fn write(&self, fold: usize, folder: &Path) -> Result<[PathBuf; 2]> {
        let others: Vec<usize> = (0..self.folds.len()).filter(|&row| self.folds[row] != fold).collect();
        let classes_of = |row: usize| match &self.judged {
            Judged::Classes(_, labels, _) => vec![labels[row]],
            Judged::Tags(_, tags, _) => tags[row].clone(),
            Judged::Numbers(_) => Vec::new(),
        };
        let known: BTreeSet<usize> = others.iter().flat_map(|&row| classes_of(row)).collect();
        let own: Vec<usize> = self.rows_of(fold).filter(|&row| classes_of(row).iter().all(|class| known.contains(class))).collect();
        let written = |name: &str, rows: &[usize]| {
            let path = folder.join(name);
            let rows = rows.iter().map(|&row| self.table.rows[row].clone()).collect();
            Table { rows, columns: self.table.columns.clone(), path: self.table.path.clone() }.write(&path, true)?;
            Ok(path)
        };
        Ok([written("train.jsonl", &others)?, written("held_out.jsonl", &own)?])
    }

    /// Lets the model in the folder `model`, which was trained on the other folds, say what it makes of the rows of `fold`.
    ///
    /// # Errors
    /// If the model cannot be read, or a row cannot be judged.
    pub fn judge(&mut self, fold: usize, model: &Path, device: &Device) -> Result<()> {
        let places: Vec<usize> = self.rows_of(fold).collect();
        let (table, columns) = (&self.table, &self.columns);
        let rows: Vec<&Row> = places.iter().map(|&place| &table.rows[place]).collect();
        match &mut self.judged {
            Judged::Classes(labels, _, probabilities) => {
                let classifier = Classifier::load(model, device)?;
                let names = classifier.class_names();
                let found = classifier.probabilities(texts(table, columns, &rows)?, table, &rows)?;
                for (&place, found) in places.iter().zip(found) {
                    // A model that knew classes before may know some that the file lacks.
                    for (class, probability) in names.iter().zip(found).filter_map(|(name, found)| Some((labels.index(name)?, found))) {
                        probabilities[place * labels.len() + class] = probability as f32;
                    }
                }
            }
            Judged::Tags(labels, _, probabilities) => {
                let tagger = Tagger::load(model, device)?;
                let of_tag: Vec<Option<usize>> = tagger.tag_names().iter().map(|name| labels.index(name)).collect();
                let words = rows.iter().map(|row| table.texts(row, &columns.tokens)).collect::<Result<Vec<_>>>()?;
                let in_order = |found: Vec<f64>| {
                    let mut ordered = vec![0.0; labels.len()];
                    let known = of_tag.iter().zip(found).filter_map(|(tag, found)| Some(((*tag)?, found)));
                    known.for_each(|(tag, probability)| ordered[tag] = probability as f32);
                    ordered
                };
                for (&place, found) in places.iter().zip(tagger.probabilities(&words, table, &rows)?) {
                    probabilities[place] = found.into_iter().map(|found| found.map(in_order)).collect();
                }
            }
            Judged::Numbers(numbers) => {
                let found = Regressor::load(model, device)?.predictions(texts(table, columns, &rows)?, table, &rows)?;
                places.into_iter().zip(found).for_each(|(place, found)| numbers[place].0 = found);
            }
        }
        Ok(())
    }

    /// The labels that are taken to be wrong, the surest first.
    pub fn issues(&self) -> Vec<Issue> {
        match &self.judged {
            Judged::Classes(labels, given, probabilities) => {
                let given = Given { probabilities, labels: given, n_classes: labels.len() };
                issues(&given, labels.names())
            }
            Judged::Tags(labels, tags, probabilities) => {
                let Words { places, tags, probabilities } = Words::new(tags, probabilities);
                let given = Given { probabilities: &probabilities, labels: &tags, n_classes: labels.len() };
                let mut seen = BTreeSet::new();
                // The surest word of a sentence speaks for it.
                let of_words = issues(&given, labels.names()).into_iter().filter(|issue| seen.insert(places[issue.row].0));
                let of_sentence = |Issue { row: index, reason, probability }: Issue| {
                    let (row, place) = places[index];
                    let spelt = self.table.texts(&self.table.rows[row], &self.columns.tokens).map_or("", |words| words[place]);
                    Issue { row, reason: format!("word {}, {spelt:?}, {reason}", place + 1), probability }
                };
                of_words.map(of_sentence).collect()
            }
            Judged::Numbers(numbers) => {
                let reason = |row: usize| format!("labelled {}, predicted {:.2}", numbers[row].1, numbers[row].0);
                let issue = |(row, probability)| Issue { row, reason: reason(row), probability };
                likelier_wrong(numbers).into_iter().map(issue).collect()
            }
        }
    }

    /// How well the models know the labels as they are: the accuracy of classes and tags, Pearson's correlation of numbers.
    pub fn agreement(&self) -> f64 {
        let accuracy = |given: Given<'_>| {
            let right = (0..given.labels.len()).filter(|&row| given.likeliest(row) == given.labels[row]).count();
            right as f64 / given.labels.len() as f64
        };
        match &self.judged {
            Judged::Classes(labels, given, probabilities) => accuracy(Given { probabilities, labels: given, n_classes: labels.len() }),
            Judged::Tags(labels, tags, probabilities) => {
                let Words { tags, probabilities, .. } = Words::new(tags, probabilities);
                accuracy(Given { probabilities: &probabilities, labels: &tags, n_classes: labels.len() })
            }
            Judged::Numbers(numbers) => pearson(numbers),
        }
    }
}

/// The rows that confident learning finds, and those whose label is likelier wrong than right, the least self-confident first.
pub(crate) fn issues(given: &Given<'_>, names: &[String]) -> Vec<Issue> {
    let wrong = LabelNoise::fit(given).wrong(given);
    let mut rows = given.errors();
    let found: BTreeSet<usize> = rows.iter().copied().collect();
    rows.extend((0..wrong.len()).filter(|row| wrong[*row] >= 0.5 && !found.contains(row)));
    rows.sort_by(|&a, &b| given.self_confidence(a).total_cmp(&given.self_confidence(b)));
    let issue = |row: usize| {
        let (label, likelier) = (&names[given.labels[row]], &names[given.likeliest(row)]);
        let confidence = given.self_confidence(row);
        let reason = format!("labelled {label:?}, which has probability {confidence:.3}; likelier {likelier:?}");
        Issue { row, reason, probability: wrong[row] }
    };
    rows.into_iter().map(issue).collect()
}

/// The words of all rows that have a token, one after the other.
#[derive(Default)]
struct Words {
    /// The row of each, and its place there.
    places: Vec<(usize, usize)>,
    tags: Vec<usize>,
    /// `[words, tags]`.
    probabilities: Vec<f32>,
}

impl Words {
    fn new(tags: &[Vec<usize>], probabilities: &[Vec<Option<Vec<f32>>>]) -> Self {
        let mut words = Self::default();
        for (row, (tags, probabilities)) in tags.iter().zip(probabilities).enumerate() {
            for (place, (&tag, probabilities)) in tags.iter().zip(probabilities).enumerate() {
                let Some(probabilities) = probabilities else { continue };
                words.places.push((row, place));
                words.tags.push(tag);
                words.probabilities.extend(probabilities);
            }
        }
        words
    }
}
