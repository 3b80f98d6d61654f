//! Texts with the words of one group of people in place of those of another.
//!
//! Pronouns of English that have two counterparts are told apart by what follows: "her" before a word that can be had is "his", else "him".

use kiln_core::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Words that change places, and whether a word is of the first group.
#[derive(Clone, Debug, Default)]
pub struct Swaps {
    /// By the word in lower case.
    counterparts: BTreeMap<String, Counterpart>,
}

#[derive(Clone, Debug)]
struct Counterpart {
    word: String,
    is_first: bool,
    /// A name, which counts only with a capital.
    is_name: bool,
}

/// A text with its words exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// The text.
    pub text: String,
    /// Words of the first and of the second group that the text had before.
    pub n_words: [usize; 2],
}

/// Words that a possessive does not stand before.
const AFTER_OBJECTS: &str = "a about after again against all and are as at away back because before but by down for from he here home how if in into is it like me not of off on or out over she so than that the then there they this to too up us was we were what when where while who why will with you";

impl Swaps {
    /// The words and names that Kiln comes with.
    pub fn built_in() -> Self {
        let mut swaps = Self::default();
        let lines = include_str!("swaps.txt").lines().filter(|line| !line.starts_with('#'));
        lines.for_each(|line| swaps.add(line).expect("two words a line"));
        swaps
    }

    /// These and those of a file: two words a line, the first group's first; lines that start with `#` are comments. Names are written with a
    /// capital.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not two words.
    pub fn with_file(mut self, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            if self.add(line).is_none() {
                return Err(Error::data(path, Some(index + 1), format!("found {line:?}, expected two words, such as \"nephew niece\"")));
            }
        }
        Ok(self)
    }

    /// Adds the pair that a line names. A word keeps the counterpart that it was given first.
    fn add(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [first, second] = words[..] else { return None };
        let is_word = |word: &str| word.chars().all(char::is_alphabetic);
        if !is_word(first) || !is_word(second) {
            return None;
        }
        for (word, counterpart, is_first) in [(first, second, true), (second, first, false)] {
            let is_name = word.starts_with(char::is_uppercase);
            let counterpart = Counterpart { word: counterpart.to_lowercase(), is_first, is_name };
            self.counterparts.entry(word.to_lowercase()).or_insert(counterpart);
        }
        Some(())
    }

    /// The text with every word exchanged; `None` if it has none.
    ///
    /// ```
    /// use kiln_data::swaps::Swaps;
    ///
    /// let swapped = Swaps::built_in().swapped("She told HIM that her sister saw John.").unwrap();
    /// assert_eq!(swapped.text, "He told HER that his brother saw Mary.");
    /// assert_eq!(swapped.n_words, [2, 3]);
    /// ```
    pub fn swapped(&self, text: &str) -> Option<Swapped> {
        let mut swapped = Swapped { text: String::with_capacity(text.len()), n_words: [0, 0] };
        let mut rest = text;
        while let Some(start) = rest.find(char::is_alphabetic) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_alphabetic()).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            swapped.text += before;
            match self.counterpart(word, after) {
                Some((other, is_first)) => {
                    swapped.text += &cased_as(word, &other);
                    swapped.n_words[usize::from(!is_first)] += 1;
                }
                None => swapped.text += word,
            }
            rest = after;
        }
        swapped.text += rest;
        (swapped.n_words != [0, 0]).then_some(swapped)
    }

    fn counterpart(&self, word: &str, after: &str) -> Option<(String, bool)> {
        let lower = word.to_lowercase();
        let owns = || {
            let next =
                after.strip_prefix(' ').map(|after| after.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default().to_lowercase());
            next.is_some_and(|next| !next.is_empty() && AFTER_OBJECTS.split(' ').all(|word| word != next))
        };
        let pronoun = match lower.as_str() {
            "him" => Some(("her", true)),
            "his" => Some((if owns() { "her" } else { "hers" }, true)),
            "her" => Some((if owns() { "his" } else { "him" }, false)),
            "hers" => Some(("his", false)),
            _ => None,
        };
        if let Some((other, is_first)) = pronoun {
            return Some((other.to_owned(), is_first));
        }
        let found = self.counterparts.get(&lower)?;
        (!found.is_name || word.starts_with(char::is_uppercase)).then(|| (found.word.clone(), found.is_first))
    }
}

/// `other` with the capitals of `word`.
fn cased_as(word: &str, other: &str) -> String {
    let is_upper = |c: char| c.is_uppercase();
    if word.chars().count() > 1 && word.chars().all(is_upper) {
        other.to_uppercase()
    } else if word.starts_with(is_upper) {
        let mut characters = other.chars();
        characters.next().into_iter().flat_map(char::to_uppercase).chain(characters).collect()
    } else {
        other.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swapped(text: &str) -> String {
        Swaps::built_in().swapped(text).map_or_else(|| "-".to_owned(), |swapped| swapped.text)
    }

    #[test]
    fn words_change_places_and_keep_their_case() {
        for (text, expected) in [
            ("He's a good man, isn't he?", "She's a good woman, isn't she?"),
            ("I saw her.", "I saw him."),
            ("I gave her to them and her mother left", "I gave him to them and his father left"),
            ("the book is his, his own", "the book is hers, her own"),
            ("MR Smith and Grace", "MRS Smith and Gregory"),
            ("the grace of a king", "the grace of a queen"),
            ("theme, manly, there", "-"),
            ("", "-"),
        ] {
            assert_eq!(swapped(text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_swapped_twice_is_as_before() {
        for text in ["he saw the women and their brother", "Anthony asked his aunt about the actress", "A lady and a gentleman"] {
            assert_eq!(swapped(&swapped(text)), text);
        }
    }

    #[test]
    fn a_file_adds_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swaps.txt");
        std::fs::write(&path, "# places\nnorth south\nParis Rome\n").unwrap();
        let swaps = Swaps::built_in().with_file(&path).unwrap();
        assert_eq!(
            swaps.swapped("North of Paris, paris, he").unwrap(),
            Swapped { text: "South of Rome, paris, she".into(), n_words: [3, 0] }
        );
        std::fs::write(&path, "north south\nup\n").unwrap();
        let error = Swaps::default().with_file(&path).unwrap_err().to_string();
        assert!(error.contains("swaps.txt:2: found \"up\", expected two words"), "{error}");
    }
}
