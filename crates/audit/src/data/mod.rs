//! All checks of data at once, on a file.

mod clean;
mod config;
mod report;
mod rows;
#[cfg(test)]
mod tests;

pub use clean::{Removed, clean};
pub use config::DataAuditConfig;
pub(crate) use report::write_settings;
pub use report::{AuditedFile, write, write_into_run};

use crate::classifier::{Features, out_of_sample};
use crate::cross_validation::{CrossValidation, Issue, issues};
use crate::label_errors::Given;
use crate::limits::Measured;
use crate::{balance, copies, diversity, garbled, language, order, outliers, personal, spurious, statistics, truncated};
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, hub};
use kiln_data::rows::Table;
use rayon::prelude::*;
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Rows without text.
    Empty,
    /// Rows decoded wrongly, with control characters, or that repeat themselves.
    Garbled,
    /// Rows cut off at one length.
    Truncated,
    /// Rows in another language or script than the rest.
    Language,
    /// Rows with personal data.
    PersonalData,
    /// Rows that are the same as an earlier one.
    Duplicates,
    /// Rows that nearly are.
    NearDuplicates,
    /// Rows that are held out too, or nearly.
    Leakage,
    /// Rows whose text stands there with another label more often.
    Conflicts,
    /// Rows whose label a classifier is confident is wrong.
    LabelErrors,
    /// Rows unlike all others.
    Outliers,
    /// Classes with too few rows.
    RareClasses,
    /// Ways in which the order of the rows carries information.
    Order,
    /// Words, lengths and sources that give the label away.
    Shortcuts,
}

impl Check {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 14] = [
        Self::Empty,
        Self::Garbled,
        Self::Truncated,
        Self::Language,
        Self::PersonalData,
        Self::Duplicates,
        Self::NearDuplicates,
        Self::Leakage,
        Self::Conflicts,
        Self::LabelErrors,
        Self::Outliers,
        Self::RareClasses,
        Self::Order,
        Self::Shortcuts,
    ];

    /// Its name in settings, limits and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Garbled => "garbled",
            Self::Truncated => "truncated",
            Self::Language => "language",
            Self::PersonalData => "personal-data",
            Self::Duplicates => "duplicates",
            Self::NearDuplicates => "near-duplicates",
            Self::Leakage => "leakage",
            Self::Conflicts => "conflicts",
            Self::LabelErrors => "label-errors",
            Self::Outliers => "outliers",
            Self::RareClasses => "rare-classes",
            Self::Order => "order",
            Self::Shortcuts => "shortcuts",
        }
    }

    /// Whether it finds rows, and not something about the file.
    pub fn is_of_rows(self) -> bool {
        !matches!(self, Self::RareClasses | Self::Order | Self::Shortcuts)
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// By which check.
    pub check: Check,
    /// The row, counted from 0, if it is about one.
    #[serde(skip)]
    pub row: Option<usize>,
    /// The line the row starts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is wrong. It never repeats personal data.
    pub reason: String,
    /// How likely it is, of a label error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

/// How varied the texts are, see [`diversity`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Diversity {
    /// Different words of all.
    pub distinct_1: f64,
    /// Different pairs of neighbouring words.
    pub distinct_2: f64,
    /// Different triples.
    pub distinct_3: f64,
    /// Mean BLEU of a text against others, of a sample.
    pub self_bleu: f64,
    /// Mean distance of two embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_spread: Option<f64>,
    /// How many topics there are, as it were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendi_score: Option<f64>,
}

/// What came of an audit.
#[derive(Clone, Debug)]
pub struct DataAudit {
    /// The rows looked at.
    pub table: Table,
    /// Number of held-out rows that they were compared with.
    pub n_held_out: usize,
    /// The checks that were made; others lack what they need.
    pub checked: Vec<Check>,
    /// What was found, check by check; label errors and outliers with the surest first, else by row.
    pub findings: Vec<Finding>,
    /// How varied the texts are.
    pub diversity: Diversity,
    /// The accuracy of the models that looked for label errors, on rows that they had not seen, by the labels as they are; of numbers their
    /// correlation.
    pub classifier_accuracy: Option<f64>,
    texts: Vec<String>,
}

impl DataAudit {
    /// The findings of one check.
    pub fn of(&self, check: Check) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.check == check)
    }

    /// The number of findings of each check made, for limits.
    pub fn measured(&self) -> Vec<Measured> {
        let of = |&check: &Check| Measured {
            name: check.name().to_owned(),
            value: self.of(check).count() as f64,
            whole: if check.is_of_rows() { self.table.rows.len() as f64 } else { 1.0 },
        };
        self.checked.iter().map(of).collect()
    }

    /// A row's text for people, without personal data, in one line of bounded length.
    pub fn excerpt(&self, row: usize) -> String {
        const MOST: usize = 80;
        let text = &self.texts[row];
        let clean = personal::redacted(text).unwrap_or_else(|| text.clone());
        let line: Vec<&str> = clean.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
        let line = line.join(" ");
        match line.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line,
        }
    }
}

/// Looks at the file that `config` names. With models that were fine-tuned on the other folds of its rows, as `judged` has them, label errors are
/// what these find; else classifiers of `config.model`'s embeddings look for them.
///
/// # Errors
/// If a setting, a file, a column or the model is bad.
pub fn audit(config: &DataAuditConfig, judged: Option<&CrossValidation>, device: &Device) -> Result<DataAudit> {
    config.validate()?;
    let read = |path: &Path| Table::read(path, &config.columns.names);
    let (table, held_out) = (read(&config.data)?, config.held_out.as_deref().map(read).transpose()?);
    let rows = Rows::new(&table, config)?;
    let held_out = held_out.map(|table| rows::texts(&table, &config.columns)).transpose()?;
    let mut found = Found::default();
    singly(&rows, &mut found);
    repeatedly(&rows, held_out.as_deref(), config.near, &mut found);
    if let Some(labels) = &rows.labels {
        by_label(&rows, labels, config.seed, &mut found);
    }
    let (mut spread, mut vendi_score) = (None, None);
    let mut classifier_accuracy = None;
    if let Some(folder) = &config.model {
        let vectors = embed(&rows.texts, folder, device)?;
        spread = Some(diversity::spread(&vectors)).filter(|spread| !spread.is_nan());
        vendi_score = Some(diversity::vendi_score(&vectors, device));
        by_vector(&rows, &vectors, config.seed, device, &mut found);
        if let (Some(labels), None) = (&rows.labels, judged) {
            classifier_accuracy = Some(by_classifier(&rows, labels, vectors, config, device, &mut found));
        }
    }
    if let Some(judged) = judged {
        found.checked.push(Check::LabelErrors);
        judged.issues().into_iter().for_each(|issue| found.label_error(issue));
        classifier_accuracy = Some(judged.agreement());
    }
    let distinct = |n| diversity::distinct(&rows.texts, n);
    let diversity = Diversity {
        distinct_1: distinct(1),
        distinct_2: distinct(2),
        distinct_3: distinct(3),
        self_bleu: diversity::self_bleu(&rows.texts, config.seed),
        embedding_spread: spread,
        vendi_score,
    };
    let Found { mut checked, mut findings } = found;
    checked.sort_unstable();
    checked.dedup();
    findings.sort_by_key(|finding| finding.check);
    findings.iter_mut().for_each(|finding| finding.line = finding.row.map(|row| table.rows[row].line));
    let texts = rows.texts;
    Ok(DataAudit { n_held_out: held_out.map_or(0, |texts| texts.len()), checked, findings, diversity, classifier_accuracy, texts, table })
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    checked: Vec<Check>,
    findings: Vec<Finding>,
}

impl Found {
    fn row(&mut self, check: Check, row: usize, reason: String) {
        self.findings.push(Finding { check, row: Some(row), line: None, reason, probability: None });
    }

    fn label_error(&mut self, Issue { row, reason, probability }: Issue) {
        self.findings.push(Finding { check: Check::LabelErrors, row: Some(row), line: None, reason, probability: Some(probability) });
    }

    fn file(&mut self, check: Check, reason: String) {
        self.findings.push(Finding { check, row: None, line: None, reason, probability: None });
    }
}

/// What can be said of rows one at a time, or of their lengths and languages.
fn singly(rows: &Rows, found: &mut Found) {
    use Check::{Empty, Garbled, Language, PersonalData, Truncated};
    found.checked.extend([Empty, Garbled, Truncated, Language, PersonalData]);
    let of_text = |text: &String| (garbled::damage(text), personal::find(text));
    let all: Vec<_> = rows.texts.par_iter().with_min_len(256).map(of_text).collect();
    for (row, (damage, personal)) in all.into_iter().enumerate() {
        if let Some(damage) = damage {
            let check = if damage == garbled::Damage::Empty { Empty } else { Garbled };
            found.row(check, row, damage.reason().to_owned());
        }
        if !personal.is_empty() {
            let kinds: Vec<&str> = personal.iter().map(|found| found.kind.name()).collect();
            found.row(PersonalData, row, kinds.join(", "));
        }
    }
    if let Some(truncated::Cut { length, unit, rows: cut }) = truncated::truncated(&rows.texts) {
        cut.into_iter().for_each(|row| found.row(Truncated, row, format!("ends in the middle, at {length} {unit}")));
    }
    language::foreign(&rows.texts).into_iter().for_each(|(row, what)| found.row(Language, row, what.to_owned()));
}

/// Copies and leaks.
fn repeatedly(rows: &Rows, held_out: Option<&[String]>, near: f64, found: &mut Found) {
    use Check::{Duplicates, Leakage, NearDuplicates};
    found.checked.extend([Duplicates, NearDuplicates]);
    found.checked.extend(held_out.map(|_| Leakage));
    let copies = copies::find(&rows.texts, held_out.unwrap_or_default(), near);
    for copy in copies.exact {
        found.row(Duplicates, copy.row, format!("the same as line {}", rows.table.rows[copy.of].line));
    }
    for copy in copies.near {
        found.row(NearDuplicates, copy.row, format!("{:.2} like line {}", copy.resemblance, rows.table.rows[copy.of].line));
    }
    for copy in copies.leaked {
        let how = if copy.resemblance == 1.0 { "the same as".to_owned() } else { format!("{:.2} like", copy.resemblance) };
        found.row(Leakage, copy.row, format!("{how} held-out row {}", copy.of + 1));
    }
}

/// What labels say with the texts and the order alone.
fn by_label(rows: &Rows, labels: &rows::Classes, seed: u64, found: &mut Found) {
    use Check::{Conflicts, Order, RareClasses, Shortcuts};
    let (names, labels) = (&labels.names, &labels.of_row);
    found.checked.extend([Conflicts, RareClasses, Order, Shortcuts]);
    for group in copies::conflicts(&rows.texts, labels) {
        let count = |label: usize| group.iter().filter(|&&row| labels[row] == label).count();
        // What most copies say is right, if most agree.
        let usual = group.iter().map(|&row| labels[row]).find(|&label| 2 * count(label) > group.len());
        for &row in group.iter().filter(|&&row| Some(labels[row]) != usual) {
            let others: Vec<usize> = group.iter().copied().filter(|&other| labels[other] != labels[row]).collect();
            let other = others[0];
            let (line, label) = (rows.table.rows[other].line, &names[labels[other]]);
            found.row(Conflicts, row, format!("labelled {:?}, but {label:?} in line {line}", names[labels[row]]));
        }
    }
    for (class, n_rows) in balance::rare(labels) {
        found.file(RareClasses, format!("{:?} has {n_rows} of {} rows", names[class], labels.len()));
    }
    let effect = |association: &statistics::Association| format!("effect {:.2}, p {:.0e}", association.effect, association.p);
    let neighbours = order::neighbours(labels, seed);
    if order::is_alarming(&neighbours) {
        found.file(Order, format!("rows that follow each other share their label more often than chance: {}", effect(&neighbours)));
    }
    let places = order::places(labels);
    if order::is_alarming(&places) {
        found.file(Order, format!("labels change along the file: {}", effect(&places)));
    }
    for word in spurious::shortcut_words(&rows.texts, labels) {
        let spurious::Word { word, n_rows, label, share_with, share_without, association } = word;
        let (with, without) = (100.0 * share_with, 100.0 * share_without);
        let of = format!("of {n_rows} rows with {word:?} {with:.0} % are {:?}, of the others {without:.0} %", names[label]);
        found.file(Shortcuts, format!("{of}: {}", effect(&association)));
    }
    let length = spurious::length(&rows.texts, labels);
    if spurious::is_shortcut(&length) {
        found.file(Shortcuts, format!("the length of the text goes with the label: {}", effect(&length)));
    }
    if let Some(sources) = &rows.sources {
        let source = spurious::source(sources, labels);
        if spurious::is_shortcut(&source) {
            found.file(Shortcuts, format!("where a row comes from goes with the label: {}", effect(&source)));
        }
    }
}

/// What embeddings say.
fn by_vector(rows: &Rows, vectors: &[Vec<f32>], seed: u64, device: &Device, found: &mut Found) {
    found.checked.extend([Check::Outliers, Check::Order]);
    let distances = outliers::distances(vectors, seed, device);
    // An empty row is a fault of its own.
    for row in outliers::outliers(&distances).into_iter().filter(|&row| !rows.texts[row].trim().is_empty()) {
        found.row(Check::Outliers, row, format!("distance {:.2} from its nearest rows", distances[row]));
    }
    let neighbours = order::neighbouring_vectors(vectors, seed);
    if order::is_alarming(&neighbours) {
        let statistics::Association { p, effect } = neighbours;
        found.file(Check::Order, format!("rows that follow each other are alike in what they say: effect {effect:.2}, p {p:.0e}"));
    }
}

/// Label errors. Returns the accuracy of the classifiers.
fn by_classifier(
    rows: &Rows,
    labels: &rows::Classes,
    vectors: Vec<Vec<f32>>,
    config: &DataAuditConfig,
    device: &Device,
    found: &mut Found,
) -> f64 {
    found.checked.push(Check::LabelErrors);
    let (names, labels) = (&labels.names, &labels.of_row);
    let probabilities = out_of_sample(&Features::new(&rows.texts, vectors), labels, names.len(), config.folds, config.seed, device);
    let given = Given { probabilities: &probabilities, labels, n_classes: names.len() };
    let counts = balance::counts(labels);
    // Of a class with fewer rows than folds some classifiers know nothing.
    let is_known = |issue: &Issue| counts[labels[issue.row]] >= config.folds;
    issues(&given, names).into_iter().filter(is_known).for_each(|issue| found.label_error(issue));
    (0..labels.len()).filter(|&row| given.likeliest(row) == labels[row]).count() as f64 / labels.len() as f64
}

/// The embedding of each text; of one without text that of a full stop.
fn embed(texts: &[String], folder: &Path, device: &Device) -> Result<Vec<Vec<f32>>> {
    let folder = &hub::folder(folder)?;
    let config = ModelConfig::from_folder(folder)?;
    if config.causal {
        return Err(Error::checkpoint(folder, "is a decoder: name the folder of a sentence encoder, such as all-MiniLM-L6-v2"));
    }
    let tokenizer = Tokenizer::for_model(folder, &config)?;
    let model = SentenceEncoder::load(folder, device)?.0;
    let filled = texts.iter().map(|text| if text.trim().is_empty() { ".".to_owned() } else { text.clone() }).collect();
    Ok(model.embed(&model.tokens(&tokenizer, filled)?))
}
