//! Whether the label can be told from something that should not tell it: the length of the text, a single word, or where the row comes from.
//!
//! A word that comes in at least [`FEWEST_ROWS`] rows is tested for independence of the label (G-test), and its p-value multiplied by the number of
//! words tested (Bonferroni). How much it tells is the share of the label's entropy that goes with knowing whether the word is there (Theil's
//! uncertainty coefficient). Words that mean something tell a little each: "bad" takes less than a hundredth off the entropy of a sentiment, as
//! most bad reviews do without it. One that takes [`LEAST_EFFECT`] is a rule that a model will learn instead of the task. Whether that rule is
//! wrong, only a person can say: that questions with "who" ask for a person is no fault of the data.

use crate::statistics::{Association, uncertainty};
use std::collections::{BTreeMap, BTreeSet};

/// Words in fewer rows are not tested.
pub const FEWEST_ROWS: usize = 10;
/// The share of the label's entropy from which on a word, the length or the source is a shortcut.
pub const LEAST_EFFECT: f64 = 0.08;
/// The probability by chance below which an effect is believed, after correction for the number of words.
pub const LARGEST_P: f64 = 1e-3;

/// A word that tells the label.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The word, in lower case.
    pub word: String,
    /// Rows it is in.
    pub n_rows: usize,
    /// The label it goes with: whose share among its rows is furthest above its share elsewhere.
    pub label: usize,
    /// The share of that label among the rows with the word.
    pub share_with: f64,
    /// The same among the rows without it.
    pub share_without: f64,
    /// How improbable by chance, corrected for the number of words tested, and how much it tells.
    pub association: Association,
}

/// The words of a text in lower case, each once.
fn words(text: &str) -> BTreeSet<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The words that are shortcuts to the label, the strongest first.
///
/// # Panics
/// If there are not as many labels as texts.
pub fn shortcut_words<S: AsRef<str>>(texts: &[S], labels: &[usize]) -> Vec<Word> {
    assert_eq!(texts.len(), labels.len(), "a label for each text");
    let n_labels = labels.iter().max().map_or(0, |last| last + 1);
    let mut totals = vec![0_u64; n_labels];
    let mut rows_of: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (row, (text, &label)) in texts.iter().zip(labels).enumerate() {
        totals[label] += 1;
        words(text.as_ref()).into_iter().for_each(|word| rows_of.entry(word).or_default().push(row as u32));
    }
    rows_of.retain(|_, rows| rows.len() >= FEWEST_ROWS && rows.len() < texts.len());
    let n_tested = rows_of.len() as f64;
    let tested = |(word, rows): (String, Vec<u32>)| {
        let mut with = vec![0_u64; n_labels];
        rows.iter().for_each(|&row| with[labels[row as usize]] += 1);
        let without: Vec<u64> = totals.iter().zip(&with).map(|(total, with)| total - with).collect();
        let (n_with, n_without) = (rows.len() as f64, (texts.len() - rows.len()) as f64);
        let rise = |label: &usize| with[*label] as f64 / n_with - without[*label] as f64 / n_without;
        let label = (0..n_labels).max_by(|a, b| rise(a).total_cmp(&rise(b)).then(b.cmp(a)))?;
        let (share_with, share_without) = (with[label] as f64 / n_with, without[label] as f64 / n_without);
        let Association { p, effect } = uncertainty(&[with, without]);
        let association = Association { p: (p * n_tested).min(1.0), effect };
        is_shortcut(&association).then_some(Word { word, n_rows: rows.len(), label, share_with, share_without, association })
    };
    let mut found: Vec<Word> = rows_of.into_iter().filter_map(tested).collect();
    found.sort_by(|a, b| b.association.effect.total_cmp(&a.association.effect).then_with(|| a.word.cmp(&b.word)));
    found
}

/// Tenths of the texts, by length, that are told apart.
const N_LENGTHS: usize = 10;

/// How much the length of the text, in characters, tells of the label: which tenth of the texts, from the shortest to the longest, it is in.
///
/// # Panics
/// If there are not as many labels as texts.
pub fn length<S: AsRef<str>>(texts: &[S], labels: &[usize]) -> Association {
    let lengths: Vec<usize> = texts.iter().map(|text| text.as_ref().chars().count()).collect();
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    // Equal lengths are in one tenth, that of the first of them.
    let tenth = |length: &usize| sorted.partition_point(|other| other < length) * N_LENGTHS / texts.len();
    source(&lengths.iter().map(tenth).collect::<Vec<_>>(), labels)
}

/// How much where a row comes from tells of its label.
///
/// # Panics
/// If there are not as many labels as sources.
pub fn source(sources: &[usize], labels: &[usize]) -> Association {
    assert_eq!(sources.len(), labels.len(), "a label for each row");
    let n_of = |indices: &[usize]| indices.iter().max().map_or(0, |last| last + 1);
    let mut counts = vec![vec![0; n_of(labels)]; n_of(sources)];
    sources.iter().zip(labels).for_each(|(&source, &label)| counts[source][label] += 1);
    uncertainty(&counts)
}

/// Whether that much is a shortcut.
pub fn is_shortcut(association: &Association) -> bool {
    association.p < LARGEST_P && association.effect >= LEAST_EFFECT
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    const WORDS: [&str; 12] = ["sea", "cold", "harbour", "quiet", "boat", "rope", "wind", "far", "stone", "light", "bird", "salt"];

    /// Texts of words that have nothing to do with their labels, and the labels.
    fn rows(n: u64, n_labels: u64) -> (Vec<String>, Vec<usize>) {
        let key = Key::new(8);
        let text = |row: u64| (0..6 + key.below(row, 5)).map(|i| WORDS[key.fold(row).below(i, 12) as usize]).collect::<Vec<_>>().join(" ");
        (0..n).map(|row| (text(row), Key::new(9).below(row, n_labels) as usize)).unzip()
    }

    #[test]
    fn words_that_say_nothing_are_no_shortcuts() {
        for n_labels in [2, 5, 40] {
            let (texts, labels) = rows(1200, n_labels);
            assert!(shortcut_words(&texts, &labels).is_empty(), "{n_labels}");
            assert!(!is_shortcut(&length(&texts, &labels)));
            assert!(!is_shortcut(&source(&labels.iter().rev().copied().collect::<Vec<_>>(), &labels)));
        }
    }

    #[test]
    fn a_planted_word_is_the_only_one_found() {
        let (mut texts, labels) = rows(1200, 3);
        for (row, (text, &label)) in texts.iter_mut().zip(&labels).enumerate() {
            let share = if label == 1 { 0.4 } else { 0.02 };
            if f64::from(Key::new(10).uniform(row as u64)) < share {
                text.push_str(" Via, Kiosk!");
            }
        }
        let found = shortcut_words(&texts, &labels);
        assert_eq!(found.iter().map(|word| (word.word.as_str(), word.label)).collect::<Vec<_>>(), [("kiosk", 1), ("via", 1)]);
        assert!(found[0].share_with > 0.8 && found[0].share_without < 0.4 && found[0].association.p < 1e-20, "{found:?}");
    }

    #[test]
    fn a_label_that_is_the_length_or_the_source() {
        let (mut texts, labels) = rows(600, 2);
        texts.iter_mut().zip(&labels).filter(|(_, label)| **label == 1).for_each(|(text, _)| text.push_str(" and so on and on"));
        assert!(is_shortcut(&length(&texts, &labels)));
        assert!(is_shortcut(&source(&labels, &labels)));
    }
}
