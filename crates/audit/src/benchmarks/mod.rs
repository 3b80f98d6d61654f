//! Published benchmarks of social bias, read from their files and asked of a model, or of a model before and after.
//!
//! | | asks | of |
//! |---|---|---|
//! | [`crows_pairs`] | which of two sentences is likelier, the one with a stereotype or the one without | language models |
//! | [`stereoset`] | the same beside a sentence without sense | language models |
//! | [`winobias`] | which pronoun is likelier for an occupation, he or she | any model |
//! | [`winogender`] | whether that follows the share of women in the occupation | any model |
//! | [`bbq`] | who is meant in questions about people, where the context tells and where it does not | language models |
//! | [`bold`] | how a decoder goes on about each group, as a classifier of sentiment sees it | decoders |
//! | [`weat`] | which of two sets of words or sentences lies nearer to which attributes | any model |
//!
//! A figure says how a model answers one set of sentences, written by few people about one country: that it is fair by one of them does not make
//! a model fair.

pub mod bbq;
pub mod bold;
pub mod crows_pairs;
pub mod gap;
pub mod likelihood;
pub mod matching;
pub mod pattern;
pub mod score;
pub mod stereoset;
pub mod subject;
pub mod weat;
pub mod winobias;
pub mod winogender;

use burn::tensor::Device;
use kiln_core::{Error, Result};
use score::{Row, Score};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use subject::Subject;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Benchmark {
    /// [`crows_pairs`], a file.
    CrowsPairs,
    /// [`stereoset`], a file.
    Stereoset,
    /// [`winobias`], a folder.
    Winobias,
    /// [`winogender`], a folder.
    Winogender,
    /// [`weat`], a file or a folder of them.
    Weat,
    /// [`bbq`], a file or a folder of them.
    Bbq,
    /// [`bold`], the folder of a classifier of sentiment.
    Bold,
}

impl Benchmark {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::CrowsPairs, Self::Stereoset, Self::Winobias, Self::Winogender, Self::Weat, Self::Bbq, Self::Bold];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrowsPairs => crows_pairs::NAME,
            Self::Stereoset => stereoset::NAME,
            Self::Winobias => winobias::NAME,
            Self::Winogender => winogender::NAME,
            Self::Weat => weat::NAME,
            Self::Bbq => bbq::NAME,
            Self::Bold => bold::NAME,
        }
    }

    /// The benchmark with this name.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|benchmark| benchmark.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::config(format!("--benchmark {name}"), format!("no such benchmark; there are {known}"))
        })
    }

    /// Its figures, of each of the models.
    fn scores(self, path: &Path, subjects: &[&Subject], seed: u64) -> Result<Vec<Vec<Score>>> {
        /// Of each of the models.
        fn each<T>(subjects: &[&Subject], score: impl Fn(&Subject) -> Result<T>) -> Result<Vec<T>> {
            subjects.iter().map(|subject| score(subject)).collect()
        }
        match self {
            Self::CrowsPairs => {
                let pairs = crows_pairs::read(path)?;
                each(subjects, |subject| Ok(crows_pairs::scores(&pairs, &crows_pairs::likelihoods(&pairs, subject)?, seed)))
            }
            Self::Stereoset => {
                let examples = stereoset::read(path)?;
                each(subjects, |subject| Ok(stereoset::scores(&examples, &stereoset::likelihoods(&examples, subject)?, seed)))
            }
            Self::Winobias => {
                let pairs = winobias::read(path)?;
                each(subjects, |subject| Ok(winobias::scores(&pairs, &winobias::preferences(&pairs, subject)?, seed)))
            }
            Self::Winogender => {
                let sentences = winogender::read(path)?;
                each(subjects, |subject| Ok(winogender::scores(&sentences, &winogender::preferences(&sentences, subject)?, seed)))
            }
            Self::Weat => {
                let tests = weat::read(path)?;
                let associations =
                    |subject: &Subject| tests.iter().map(|test| weat::associations(test, subject)).collect::<Result<Vec<_>>>();
                each(subjects, |subject| Ok(weat::scores(&tests, &associations(subject)?, seed)))
            }
            Self::Bbq => {
                let questions = bbq::read(path)?;
                each(subjects, |subject| Ok(bbq::scores(&questions, &bbq::answers(&questions, subject)?, seed)))
            }
            Self::Bold => {
                let judge = bold::Judge::load(path, subjects[0].device())?;
                each(subjects, |subject| Ok(bold::scores(&bold::sentiments(&judge, subject, seed)?, seed)))
            }
        }
    }
}

/// What models answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    /// What preferences are measured in.
    pub by: &'static str,
    /// A row for each figure.
    pub figures: Vec<Row>,
}

/// Asks the model in `folder`, and the one in `before` if there is one, by the benchmarks, each in its file or folder. `seed` draws the resamples
/// of the intervals.
///
/// # Errors
/// If a file or model is bad, a model cannot answer a benchmark, or the two models answer in ways that cannot be compared.
pub fn ask(folder: &Path, before: Option<&Path>, benchmarks: &BTreeMap<Benchmark, PathBuf>, seed: u64, device: &Device) -> Result<Answers> {
    let subject = Subject::load(folder, device)?;
    let before = before.map(|folder| Subject::load(folder, device)).transpose()?;
    if let Some(before) = before.as_ref().filter(|before| before.kind() != subject.kind()) {
        let (found, expected) = (before.kind().unit(), subject.kind().unit());
        let message =
            format!("{} is asked by {found}, {} by {expected}: they cannot be compared", before.folder().display(), folder.display());
        return Err(Error::config("before", message));
    }
    let subjects: Vec<&Subject> = std::iter::once(&subject).chain(&before).collect();
    let mut figures = Vec::new();
    for (benchmark, path) in benchmarks {
        let scores = benchmark.scores(path, &subjects, seed)?;
        figures.extend(Row::all(benchmark.name(), &scores[0], scores.get(1).map(Vec::as_slice)));
    }
    Ok(Answers { by: subject.kind().unit(), figures })
}
