//! Which tokens masked language modelling hides, and what stands in their place.
//!
//! ```text
//! x̃_t = [MASK] with probability 0.8, a random token with 0.1, x_t itself with 0.1, if t is chosen; else x_t
//! ```
//!
//! Of each text's n tokens that stand for text, max(1, round(share·n)) are chosen, or as many whole words as fit into that number; only
//! their rows reach the output head. The key decides, so that another step chooses anew.
//! Source: Devlin et al., arXiv:1810.04805, Section 3.1 and Appendix A.1; whole words: their repository's README, "Whole Word Masking".
//! Differs from the source: what is hidden is drawn anew at every step (Liu et al., arXiv:1907.11692, Section 4.1); a first word longer than
//! the number is hidden all the same, so that every text has a loss.

use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Error, Result};
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};

/// Which tokens masked language modelling hides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskingConfig {
    /// The share of a text's tokens that is predicted. Default 0.15 (arXiv:1810.04805).
    pub share: f64,
    /// Whether all tokens of a word are hidden together. Default false.
    pub whole_words: bool,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self { share: 0.15, whole_words: false }
    }
}

impl MaskingConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if self.share > 0.0 && self.share < 1.0 {
            return Ok(());
        }
        Err(Error::config("masking.share", format!("found {}, expected more than 0 and less than 1", self.share)))
    }
}

/// Of the chosen tokens, those replaced by the mask token.
const MASKED_SHARE: f32 = 0.8;
/// Of the chosen tokens, those replaced by a random one.
const RANDOM_SHARE: f32 = 0.1;

/// Streams of randomness of one text.
const CHOICE: u64 = 0;
const TREATMENT: u64 = 1;
const REPLACEMENT: u64 = 2;

/// How tokens are chosen, and what hides them.
#[derive(Clone, Copy, Debug)]
pub struct Masking {
    /// The share of the tokens that is predicted.
    pub share: f64,
    /// Whether all tokens of a word are hidden together.
    pub whole_words: bool,
    /// The token that stands for a hidden one.
    pub mask_id: u32,
    /// Tokens to draw random ones from.
    pub vocab_size: usize,
}

impl Masking {
    /// As `config` says, for a model with `vocab_size` tokens.
    ///
    /// # Errors
    /// If the tokenizer has no token that stands for a hidden one.
    pub fn new(config: &MaskingConfig, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        Ok(Self { share: config.share, whole_words: config.whole_words, mask_id: tokenizer.mask_id()?, vocab_size })
    }

    /// Lays texts end to end, their chosen tokens hidden, and says what to predict. Text number `i` of the batch draws from
    /// `key.fold(first + i)`.
    pub fn pack(&self, texts: &[&Text], key: Key, first: usize) -> (Packed, Supervised) {
        let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        let mut hidden = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let (ids, chosen) = self.hide(text, key.fold((first + index) as u64));
            rows.extend(chosen.iter().map(|&token| (start + token) as u32));
            targets.extend(chosen.iter().map(|&token| text.ids[token]));
            start += ids.len();
            hidden.push(ids);
        }
        let weights = vec![1.0; rows.len()];
        let supervised = Supervised { rows: rows.into(), targets: targets.into(), weights: weights.into() };
        (Packed::new(hidden.iter().map(Vec::as_slice)), supervised)
    }

    /// The tokens of a text with the chosen ones hidden, and the places of these, in order.
    pub fn hide(&self, text: &Text, key: Key) -> (Vec<u32>, Vec<usize>) {
        let chosen = self.choose(text, key);
        let mut ids = text.ids.clone();
        chosen.iter().for_each(|&token| ids[token] = self.treat(ids[token], token as u64, key));
        (ids, chosen)
    }

    /// The tokens to predict, in order.
    fn choose(&self, text: &Text, key: Key) -> Vec<usize> {
        let candidates: Vec<usize> = (0..text.ids.len()).filter(|&token| text.words[token].is_some()).collect();
        let n_wanted = ((candidates.len() as f64 * self.share).round() as usize).max(1);
        let together = |a: &usize, b: &usize| self.whole_words && text.words[*a] == text.words[*b];
        let words: Vec<&[usize]> = candidates.chunk_by(together).collect();
        let mut chosen: Vec<usize> = Vec::with_capacity(n_wanted);
        for word in key.fold(CHOICE).permutation(words.len()).into_iter().map(|index| words[index]) {
            if chosen.is_empty() || chosen.len() + word.len() <= n_wanted {
                chosen.extend_from_slice(word);
            }
        }
        chosen.sort_unstable();
        chosen
    }

    /// What stands in place of a chosen token.
    fn treat(&self, id: u32, token: u64, key: Key) -> u32 {
        match key.fold(TREATMENT).uniform(token) {
            share if share < MASKED_SHARE => self.mask_id,
            share if share < MASKED_SHARE + RANDOM_SHARE => key.fold(REPLACEMENT).below(token, self.vocab_size as u64) as u32,
            _ => id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASKING: Masking = Masking { share: 0.15, whole_words: false, mask_id: 4, vocab_size: 1000 };

    /// `[CLS]`, `n` tokens in words of one, two and three tokens by turns, `[SEP]`.
    fn text(n: usize) -> Text {
        let words = [1, 2, 3].iter().cycle().enumerate().flat_map(|(word, &length)| vec![Some(word as u32); length]);
        let words = std::iter::once(None).chain(words.take(n)).chain([None]).collect();
        Text { ids: (0..n as u32 + 2).map(|token| 100 + token % 800).collect(), words }
    }

    #[test]
    fn the_share_is_exact_and_special_tokens_are_left_alone() {
        for (n, n_chosen) in [(1, 1), (3, 1), (10, 2), (20, 3), (100, 15)] {
            for seed in 0..50 {
                let text = text(n);
                let (batch, supervised) = MASKING.pack(&[&text, &text], Key::new(seed), 0);
                assert_eq!(supervised.rows.len(), 2 * n_chosen);
                for (&row, &target) in supervised.rows.iter().zip(&supervised.targets[..]) {
                    let token = row as usize % (n + 2);
                    assert!((1..=n).contains(&token), "token {token} of {n}");
                    assert_eq!(target, text.ids[token], "the target is what stood there");
                }
                let elsewhere = (0..2 * (n + 2)).filter(|&row| !supervised.rows.contains(&(row as u32)));
                elsewhere.for_each(|row| assert_eq!(batch.ids[row], text.ids[row % (n + 2)], "the rest stays"));
            }
        }
    }

    /// Bounds of four standard deviations.
    #[test]
    fn four_fifths_are_masked_a_tenth_is_random_and_a_tenth_stays() {
        let texts: Vec<Text> = (0..400).map(|_| text(200)).collect();
        let (batch, supervised) = MASKING.pack(&texts.iter().collect::<Vec<_>>(), Key::new(1), 0);
        let n = supervised.rows.len() as f64;
        assert_eq!(n, 400.0 * 30.0);
        let share = |fits: &dyn Fn(u32, u32) -> bool| {
            let hits = supervised.rows.iter().zip(&supervised.targets[..]).filter(|&(&row, &target)| fits(batch.ids[row as usize], target));
            hits.count() as f64 / n
        };
        for (what, found, expected) in [
            ("masked", share(&|id, _| id == MASKING.mask_id), 0.8 + 0.1 / 1000.0),
            ("as it was", share(&|id, target| id == target), 0.1 + 0.1 / 1000.0),
            ("random", share(&|id, target| id != MASKING.mask_id && id != target), 0.1 * 998.0 / 1000.0),
        ] {
            assert!((found - expected).abs() < 4.0 * (expected * (1.0 - expected) / n).sqrt(), "{found} are {what}, expected {expected}");
        }
        let mut at = vec![0; 202];
        supervised.rows.iter().for_each(|&row| at[row as usize % 202] += 1);
        let deviation = (400.0 * 0.15 * 0.85_f64).sqrt();
        assert!(at[1..201].iter().all(|&times| (f64::from(times) - 60.0).abs() < 5.0 * deviation), "every token has its turn: {at:?}");
    }

    #[test]
    fn whole_words_are_chosen_whole() {
        let masking = Masking { whole_words: true, ..MASKING };
        let text = text(60);
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let chosen = masking.choose(&text, Key::new(seed));
            assert!((7..=9).contains(&chosen.len()), "{} of 9 tokens", chosen.len());
            for word in chosen.chunk_by(|&a, &b| text.words[a] == text.words[b]) {
                let length = text.words.iter().filter(|other| **other == text.words[word[0]]).count();
                assert_eq!(word.len(), length, "a word in part: {chosen:?}");
                lengths.insert(length);
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
        let long = Text { ids: vec![7; 5], words: vec![Some(0); 5] };
        assert_eq!(masking.choose(&long, Key::new(0)), [0, 1, 2, 3, 4], "a text of one long word has a loss too");
    }

    #[test]
    fn another_key_chooses_other_tokens() {
        let text = text(100);
        let ids = |key: Key, first| MASKING.pack(&[&text], key, first).0.ids;
        assert_eq!(ids(Key::new(1), 0), ids(Key::new(1), 0));
        assert_ne!(ids(Key::new(1), 0), ids(Key::new(2), 0));
        assert_ne!(ids(Key::new(1), 0), ids(Key::new(1), 1));
    }

    #[test]
    fn parts_of_a_batch_choose_what_the_batch_does() {
        let texts = [text(30), text(50), text(7)];
        let (whole, _) = MASKING.pack(&[&texts[0], &texts[1], &texts[2]], Key::new(3), 0);
        let parts = [MASKING.pack(&[&texts[0]], Key::new(3), 0), MASKING.pack(&[&texts[1], &texts[2]], Key::new(3), 1)];
        assert_eq!(whole.ids.to_vec(), [&parts[0].0.ids[..], &parts[1].0.ids[..]].concat());
    }
}
