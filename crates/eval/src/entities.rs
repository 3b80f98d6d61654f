//! Precision, recall and F1 of named entities from word-level tags, as seqeval computes them.
//!
//! ```
//! use kiln_eval::bootstrap::Bootstrap;
//! use kiln_eval::entities::{EntityReport, Reading, Sentence, micro_f1};
//!
//! let sentences = [
//!     Sentence::new(&["B-PER", "I-PER", "O", "B-LOC"], &["B-PER", "I-PER", "O", "B-ORG"], Reading::Strict)?,
//!     Sentence::new(&["O", "B-LOC"], &["O", "B-LOC"], Reading::Strict)?,
//! ];
//! println!("{}", EntityReport::new(&sentences));
//! let interval = Bootstrap::new(7).interval(&sentences.each_ref(), micro_f1);
//! assert!(interval.contains(micro_f1(&sentences)));
//! # Ok::<(), kiln_eval::entities::UnknownTag>(())
//! ```

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scores::{ClassScores, Scores, write_table};

/// What an `I-` tag means where no entity of its type is open. Both agree wherever the tags are well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: an entity begins with `B-`, and a stray `I-` is outside. IOB2 as seqeval reads it with `mode='strict',
    /// scheme=IOB2`. This is the figure to report.
    Strict,
    /// The beginning of an entity: how conlleval and seqeval without a mode read it. It forgives a model that starts with `I-`,
    /// so its figures are not lower by chance only; for comparison with published ones.
    Conlleval,
}

/// The entities of one sentence by type: how many were found, predicted and in the gold tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence {
    counts: BTreeMap<String, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    n_found: u64,
    n_predicted: u64,
    n_gold: u64,
}

/// A tag that is neither `O` nor `B-` or `I-` with a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTag {
    /// Its place in the sentence, from 0.
    pub index: usize,
    /// The tag.
    pub tag: String,
}

impl fmt::Display for UnknownTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tag {} of the sentence is {:?}, expected O, B-<type> or I-<type>", self.index, self.tag)
    }
}

impl Error for UnknownTag {}

impl Sentence {
    /// Counts the entities of `predicted` and `gold` tags, one per word. An entity is found if its type and both its ends are
    /// right.
    ///
    /// # Errors
    /// If a tag is not one of IOB2.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn new<P: AsRef<str>, G: AsRef<str>>(predicted: &[P], gold: &[G], reading: Reading) -> Result<Self, UnknownTag> {
        let (n_predicted, n_gold) = (predicted.len(), gold.len());
        assert_eq!(n_predicted, n_gold, "{n_predicted} predicted tags for {n_gold} gold tags");
        let (predicted, gold) = (entities(predicted, reading)?, entities(gold, reading)?);
        let mut counts = BTreeMap::<String, Counts>::new();
        for entity in &predicted {
            let of_type = counts.entry(entity.0.to_owned()).or_default();
            of_type.n_predicted += 1;
            of_type.n_found += u64::from(gold.contains(entity));
        }
        for (kind, ..) in gold {
            counts.entry(kind.to_owned()).or_default().n_gold += 1;
        }
        Ok(Self { counts })
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.n_found += other.n_found;
        self.n_predicted += other.n_predicted;
        self.n_gold += other.n_gold;
    }

    fn scores(&self) -> Scores {
        Scores::from_counts(self.n_found, self.n_predicted, self.n_gold)
    }
}

/// F1 of the entities of all sentences and types together: a statistic for [`Bootstrap`](crate::bootstrap::Bootstrap), over
/// references to sentences. 0 without entities.
///
/// Source: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task" (2003), section 2.3.
pub fn micro_f1<S: Borrow<Sentence>>(sentences: &[S]) -> f64 {
    micro(sentences).f1
}

/// Mean of the F1 of all types that occur, gold or predicted, each weighing the same: a statistic for
/// [`Bootstrap`](crate::bootstrap::Bootstrap), over references to sentences. 0 without entities.
pub fn macro_f1<S: Borrow<Sentence>>(sentences: &[S]) -> f64 {
    Scores::macro_average(&per_type(sentences).values().map(Counts::scores).collect::<Vec<_>>()).f1
}

fn micro<S: Borrow<Sentence>>(sentences: &[S]) -> Scores {
    let mut all = Counts::default();
    sentences.iter().flat_map(|sentence| sentence.borrow().counts.values()).for_each(|counts| all.add(counts));
    all.scores()
}

fn per_type<S: Borrow<Sentence>>(sentences: &[S]) -> BTreeMap<&str, Counts> {
    let mut types = BTreeMap::<&str, Counts>::new();
    for (kind, counts) in sentences.iter().flat_map(|sentence| &sentence.borrow().counts) {
        types.entry(kind).or_default().add(counts);
    }
    types
}

/// The scores of a tagger by entity type; `Display` prints them as a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntityReport {
    /// Every type that occurs, gold or predicted, in alphabetical order.
    pub types: Vec<ClassScores>,
    /// All types together.
    pub micro_average: Scores,
    /// Mean over the types, each weighing the same.
    pub macro_average: Scores,
    /// Mean over the types weighted by support.
    pub weighted_average: Scores,
}

impl EntityReport {
    /// The report of all `sentences` together.
    pub fn new<S: Borrow<Sentence>>(sentences: &[S]) -> Self {
        let (names, scores): (Vec<&str>, Vec<Scores>) =
            per_type(sentences).into_iter().map(|(name, counts)| (name, counts.scores())).unzip();
        Self {
            micro_average: micro(sentences),
            macro_average: Scores::macro_average(&scores),
            weighted_average: Scores::weighted_average(&scores),
            types: names.into_iter().zip(scores).map(|(name, scores)| ClassScores { name: name.to_owned(), scores }).collect(),
        }
    }
}

impl fmt::Display for EntityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let averages =
            [("micro average", &self.micro_average), ("macro average", &self.macro_average), ("weighted average", &self.weighted_average)];
        write_table(f, &self.types, &averages).map(|_| ())
    }
}

/// The entities of a sentence: type, first word, and the word behind the last.
fn entities<S: AsRef<str>>(tags: &[S], reading: Reading) -> Result<BTreeSet<(&str, usize, usize)>, UnknownTag> {
    let mut entities = BTreeSet::new();
    let mut open: Option<(&str, usize)> = None;
    for (index, tag) in tags.iter().enumerate() {
        let tag = tag.as_ref();
        let next = match tag.split_once('-') {
            None if tag == "O" => None,
            Some(("B", kind)) if !kind.is_empty() => Some((kind, index)),
            Some(("I", kind)) if !kind.is_empty() => match open {
                Some((opened, _)) if opened == kind => continue,
                _ => (reading == Reading::Conlleval).then_some((kind, index)),
            },
            _ => return Err(UnknownTag { index, tag: tag.to_owned() }),
        };
        entities.extend(open.map(|(kind, start)| (kind, start, index)));
        open = next;
    }
    entities.extend(open.map(|(kind, start)| (kind, start, tags.len())));
    Ok(entities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Bootstrap;

    fn strict(predicted: &[&str], gold: &[&str]) -> Sentence {
        Sentence::new(predicted, gold, Reading::Strict).unwrap()
    }

    fn spans<'a>(tags: &'a [&'a str], reading: Reading) -> Vec<(&'a str, usize, usize)> {
        entities(tags, reading).unwrap().into_iter().collect()
    }

    /// Found: one PER, one LOC. Wrong: an end of PER, a LOC for an ORG.
    fn sentences() -> [Sentence; 3] {
        [
            strict(&["B-PER", "I-PER", "O", "B-LOC"], &["B-PER", "I-PER", "O", "B-LOC"]),
            strict(&["B-PER", "O", "B-LOC"], &["B-PER", "I-PER", "B-ORG"]),
            strict(&["O", "O"], &["O", "O"]),
        ]
    }

    #[test]
    fn by_hand() {
        let report = EntityReport::new(&sentences());
        let scores = |precision, recall, f1, support| Scores { precision, recall, f1, support };
        let types: Vec<(&str, Scores)> = report.types.iter().map(|of_type| (of_type.name.as_str(), of_type.scores)).collect();
        let expected = [("LOC", scores(0.5, 1.0, 2.0 / 3.0, 1)), ("ORG", scores(0.0, 0.0, 0.0, 1)), ("PER", scores(0.5, 0.5, 0.5, 2))];
        assert_eq!(types, expected);
        assert_eq!(report.micro_average, scores(0.5, 0.5, 0.5, 4));
        assert!((report.macro_average.f1 - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-15);
        assert!((report.weighted_average.f1 - (2.0 / 3.0 + 2.0 * 0.5) / 4.0).abs() < 1e-15);
        assert_eq!((micro_f1(&sentences()), macro_f1(&sentences())), (report.micro_average.f1, report.macro_average.f1));
    }

    #[test]
    fn well_formed_tags_read_the_same_both_ways() {
        let tags = ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-ORG", "I-ORG"];
        let expected = [("LOC", 4, 5), ("ORG", 5, 7), ("PER", 0, 2), ("PER", 2, 3)];
        assert_eq!(spans(&tags, Reading::Strict), expected);
        assert_eq!(spans(&tags, Reading::Conlleval), expected);
    }

    #[test]
    fn a_stray_inside_tag_is_outside_or_begins() {
        let tags = ["I-PER", "I-PER", "B-LOC", "I-ORG", "I-LOC", "O", "I-LOC"];
        assert_eq!(spans(&tags, Reading::Strict), [("LOC", 2, 3)]);
        let lenient = [("LOC", 2, 3), ("LOC", 4, 5), ("LOC", 6, 7), ("ORG", 3, 4), ("PER", 0, 2)];
        assert_eq!(spans(&tags, Reading::Conlleval), lenient);
    }

    #[test]
    fn swapping_sides_swaps_precision_and_recall_and_order_changes_nothing() {
        let one = ["B-A", "I-A", "O", "B-B", "B-A"];
        let other = ["B-A", "O", "O", "B-B", "I-B"];
        let (ab, ba) = (EntityReport::new(&[strict(&one, &other)]), EntityReport::new(&[strict(&other, &one)]));
        assert_eq!((ab.micro_average.precision, ab.micro_average.recall), (ba.micro_average.recall, ba.micro_average.precision));
        let mut reversed = sentences();
        reversed.reverse();
        assert_eq!(EntityReport::new(&reversed), EntityReport::new(&sentences()));
    }

    #[test]
    fn perfect_tags_score_one_and_no_entities_score_zero() {
        let tags = ["B-PER", "I-PER", "O", "B-LOC"];
        assert_eq!((micro_f1(&[strict(&tags, &tags)]), macro_f1(&[strict(&tags, &tags)])), (1.0, 1.0));
        assert_eq!((micro_f1(&[strict(&["O"], &["O"])]), macro_f1::<Sentence>(&[])), (0.0, 0.0));
    }

    #[test]
    fn sentences_are_drawn_whole() {
        // Either sentence alone has an F1 of 1 or 0, so every resample is a mixture of the two.
        let sentences = [strict(&["B-A"], &["B-A"]), strict(&["O"], &["B-A"])];
        let interval = Bootstrap::new(1).interval(&sentences.each_ref(), micro_f1);
        assert_eq!((interval.low, interval.high), (0.0, 1.0));
    }

    #[test]
    fn the_table_is_aligned_and_the_report_survives_json() {
        let report = EntityReport::new(&sentences());
        let table = "                  precision  recall      f1  support
LOC                  0.5000  1.0000  0.6667        1
ORG                  0.0000  0.0000  0.0000        1
PER                  0.5000  0.5000  0.5000        2
micro average        0.5000  0.5000  0.5000        4
macro average        0.3333  0.5000  0.3889        4
weighted average     0.3750  0.5000  0.4167        4";
        assert_eq!(report.to_string(), table);
        // Scores of one half, which JSON keeps to the bit.
        let report = EntityReport::new(&[strict(&["B-A", "O", "B-A"], &["B-A", "B-A", "O"])]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<EntityReport>(&json).unwrap(), report);
    }

    #[test]
    fn a_tag_of_another_scheme_is_refused() {
        for tag in ["S-PER", "PER", "B", "B-", "I-", "o", ""] {
            let error = Sentence::new(&["O", tag], &["O", "O"], Reading::Strict).unwrap_err();
            assert_eq!(error.to_string(), format!("tag 1 of the sentence is {tag:?}, expected O, B-<type> or I-<type>"));
        }
    }
}
