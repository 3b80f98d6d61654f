//! Rows as 32-bit words: what is made of them, and the pieces that rows of other crates are made of.

use super::{Sequence, Stored};
use crate::examples::Example;
use crate::grouped::Grouped;
use crate::sequences::Labelled;
use crate::words::Tagged;
use kiln_core::tokenizer::Text;

/// Takes pieces off the front of a row's words; `None` where they are not there.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(pub &'a [u32]);

impl<'a> Words<'a> {
    /// A word.
    pub fn one(&mut self) -> Option<u32> {
        let (&word, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(word)
    }

    /// What [`push_list`] appended.
    pub fn list(&mut self) -> Option<&'a [u32]> {
        let n = self.one()? as usize;
        let (list, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(list)
    }

    /// What [`push_text`] appended.
    pub fn text(&mut self) -> Option<String> {
        let n_bytes = self.one()? as usize;
        let (list, rest) = self.0.split_at_checked(n_bytes.div_ceil(4))?;
        self.0 = rest;
        let mut bytes: Vec<u8> = list.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(n_bytes);
        String::from_utf8(bytes).ok()
    }

    /// What [`push_float`] appended.
    pub fn float(&mut self) -> Option<f64> {
        let [low, high] = [self.one()?, self.one()?].map(u64::from);
        Some(f64::from_bits(high << 32 | low))
    }

    /// What [`push_row`] appended.
    pub fn row<R: Stored>(&mut self) -> Option<R> {
        self.list().and_then(R::read)
    }

    /// That nothing is left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends words, and how many there are.
pub fn push_list(words: &mut Vec<u32>, list: &[u32]) {
    words.push(list.len() as u32);
    words.extend_from_slice(list);
}

/// Appends a text.
pub fn push_text(words: &mut Vec<u32>, text: &str) {
    words.push(text.len() as u32);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    words.extend(bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)));
}

/// Appends a number, to the last bit.
pub fn push_float(words: &mut Vec<u32>, number: f64) {
    let bits = number.to_bits();
    words.extend([bits as u32, (bits >> 32) as u32]);
}

/// Appends a row that is a part of another.
pub fn push_row(words: &mut Vec<u32>, row: &impl Stored) {
    let mut of_row = Vec::new();
    row.write(&mut of_row);
    push_list(words, &of_row);
}

impl Sequence for Example {
    fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Stored for Example {
    fn write(&self, words: &mut Vec<u32>) {
        push_list(words, &self.ids);
        words.extend(self.supervised.iter().flat_map(|part| [part.start as u32, part.end as u32]));
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let ids = words.list()?.to_vec();
        let (parts, []) = words.0.as_chunks::<2>() else { return None };
        let supervised: Vec<_> = parts.iter().map(|&[start, end]| start as usize..end as usize).collect();
        // A target has a token before it and is one of them.
        supervised.iter().all(|part| (1..=part.end).contains(&part.start) && part.end <= ids.len()).then_some(Self { ids, supervised })
    }
}

/// What can stand in a word.
pub trait Label: Copy {
    /// As a word.
    fn to_word(self) -> u32;
    /// From a word.
    fn from_word(word: u32) -> Self;
}

impl Label for u32 {
    fn to_word(self) -> u32 {
        self
    }

    fn from_word(word: u32) -> Self {
        word
    }
}

impl Label for f32 {
    fn to_word(self) -> u32 {
        self.to_bits()
    }

    fn from_word(word: u32) -> Self {
        Self::from_bits(word)
    }
}

impl<L> Sequence for Labelled<L> {
    fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

impl<L: Label> Stored for Labelled<L> {
    fn write(&self, words: &mut Vec<u32>) {
        words.push(self.label.to_word());
        push_list(words, &self.ids);
        // Single texts have one type.
        if self.token_types.iter().any(|&kind| kind != 0) {
            words.extend_from_slice(&self.token_types);
        }
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let label = L::from_word(words.one()?);
        let ids = words.list()?.to_vec();
        let token_types = if words.0.is_empty() { vec![0; ids.len()] } else { words.0.to_vec() };
        (token_types.len() == ids.len()).then_some(Self { ids, token_types, label })
    }
}

impl Sequence for Grouped {
    fn n_tokens(&self) -> usize {
        self.row.n_tokens()
    }
}

impl Stored for Grouped {
    fn write(&self, words: &mut Vec<u32>) {
        words.push(self.group);
        for row in [Some(&self.row), self.twin.as_deref()].into_iter().flatten() {
            let mut of_row = Vec::new();
            row.write(&mut of_row);
            push_list(words, &of_row);
        }
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let group = words.one()?;
        let row = Labelled::read(words.list()?)?;
        let twin = if words.0.is_empty() { None } else { Some(Box::new(Labelled::read(words.list()?)?)) };
        words.end()?;
        Some(Self { row, group, twin })
    }
}

/// A word without tokens, or a token without a word.
const NONE: u32 = u32::MAX;

impl Sequence for Tagged {
    fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Stored for Tagged {
    fn write(&self, words: &mut Vec<u32>) {
        push_list(words, &self.ids);
        let firsts: Vec<u32> = self.firsts.iter().map(|first| first.map_or(NONE, |first| first as u32)).collect();
        push_list(words, &firsts);
        push_list(words, &self.tags);
    }

    fn read(words: &[u32]) -> Option<Self> {
        let mut words = Words(words);
        let ids = words.list()?.to_vec();
        let firsts = words.list()?.iter().map(|&first| (first != NONE).then_some(first as usize)).collect::<Vec<_>>();
        let tags = words.list()?.to_vec();
        words.end()?;
        let fits = firsts.len() == tags.len() && firsts.iter().flatten().all(|&first| first < ids.len());
        fits.then_some(Self { ids, firsts, tags })
    }
}

impl Sequence for Text {
    fn n_tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Stored for Text {
    fn write(&self, words: &mut Vec<u32>) {
        words.extend_from_slice(&self.ids);
        words.extend(self.words.iter().map(|word| word.unwrap_or(NONE)));
    }

    fn read(words: &[u32]) -> Option<Self> {
        let (ids, of_words) = words.split_at(words.len() / 2);
        let of_words = of_words.iter().map(|&word| (word != NONE).then_some(word)).collect();
        words.len().is_multiple_of(2).then(|| Self { ids: ids.to_vec(), words: of_words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Stored + PartialEq + std::fmt::Debug>(row: &R) {
        let mut words = Vec::new();
        row.write(&mut words);
        assert_eq!(R::read(&words).as_ref(), Some(row));
        // Cut short it is refused, unless what is left is a whole row too.
        for n in 0..words.len() {
            assert_ne!(R::read(&words[..n]).as_ref(), Some(row), "{n} of {} words", words.len());
        }
    }

    #[test]
    fn rows_come_back_as_they_were() {
        check(&Example { ids: vec![5, 6, 7, 8], supervised: vec![1..2, 3..4] });
        check(&Example::from(vec![1, 2, 3], 1));
        check(&Labelled { ids: vec![5, 6, 7], token_types: vec![0, 0, 1], label: 3u32 });
        check(&Labelled { ids: vec![5, 6, 7], token_types: vec![0; 3], label: -0.5f32 });
        check(&Tagged { ids: vec![9, 8, 7], firsts: vec![Some(1), None, Some(2)], tags: vec![0, 2, 1] });
        check(&Text { ids: vec![9, 8, 7], words: vec![None, Some(4), Some(4)] });
    }

    #[test]
    fn pieces_come_back_as_they_were() {
        let row = Text { ids: vec![9, 8], words: vec![None, Some(4)] };
        for (text, number) in [("", 0.0), ("sea", -0.1), ("séa and sun", f64::INFINITY), ("four", 1e-300)] {
            let mut words = Vec::new();
            push_text(&mut words, text);
            push_float(&mut words, number);
            push_row(&mut words, &row);
            let mut left = Words(&words);
            assert_eq!(
                (left.text().as_deref(), left.float(), left.row(), left.end()),
                (Some(text), Some(number), Some(row.clone()), Some(()))
            );
            let mut cut = Words(&words[..words.len() - 1]);
            assert!(cut.text().and_then(|_| cut.float()).and_then(|_| cut.row::<Text>()).is_none());
        }
    }

    #[test]
    fn grouped_rows_keep_their_group_and_twin() {
        let row = |ids: &[u32], second: u32| Labelled { ids: ids.to_vec(), token_types: vec![second; ids.len()], label: 7_u32 };
        check(&Grouped { row: row(&[5, 6], 0), group: 3, twin: None });
        check(&Grouped { row: row(&[5, 6], 1), group: 0, twin: Some(Box::new(row(&[8, 9, 4], 0))) });
        let mut words = Vec::new();
        Grouped { row: row(&[5], 0), group: 3, twin: Some(Box::new(row(&[8], 0))) }.write(&mut words);
        for end in 0..words.len() {
            // Without its last list it is a row without a twin.
            let is_whole = end == words.len() - 4;
            assert_eq!(Grouped::read(&words[..end]).is_some(), is_whole, "{end} of {words:?}");
        }
    }

    #[test]
    fn damaged_words_are_refused() {
        for words in [&[][..], &[9, 1], &[2, 5, 6, 0, 1], &[2, 5, 6, 1, 3], &[2, 5, 6, 1]] {
            assert_eq!(Example::read(words), None, "{words:?}");
        }
        assert_eq!(Labelled::<u32>::read(&[0, 2, 5, 6, 1]), None);
        assert_eq!(Tagged::read(&[1, 5, 1, 1, 1, 0]), None);
        assert_eq!(Tagged::read(&[1, 5, 1, 0, 2, 0, 0]), None);
    }
}
