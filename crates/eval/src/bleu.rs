//! BLEU over a corpus, as sacreBLEU computes it by default.
//!
//! ```
//! use kiln_eval::bleu::{Segment, bleu};
//! use kiln_eval::bootstrap::Bootstrap;
//!
//! let segments = [
//!     Segment::new("The cat sat on the mat.", &["The cat is sitting on the mat.", "The cat sat on the mat."]),
//!     Segment::new("It rains in the north.", &["It is raining in the north."]),
//! ];
//! let interval = Bootstrap::new(7).interval(&segments, bleu);
//! println!("BLEU {:.2} ({:.2} to {:.2})", bleu(&segments), interval.low, interval.high);
//! # assert!(interval.contains(bleu(&segments)));
//! ```

use std::collections::HashMap;

/// How sacreBLEU names what is computed here, behind the number of references (`nrefs:1`, or `nrefs:var` where segments
/// differ): case kept, no effective order, the tokenizer of mteval-v13a, exponential smoothing. A figure is comparable with
/// others of the same signature only.
pub const SIGNATURE: &str = "case:mixed|eff:no|tok:13a|smooth:exp";

/// The longest n-grams counted.
const MAX_ORDER: usize = 4;

/// What BLEU needs of one segment: its n-grams, those also in a reference, and the lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// N-grams of the hypothesis that are in a reference, for n from 1 to 4; each counts as often as in the reference that has
    /// most of it.
    pub n_matched: [u64; MAX_ORDER],
    /// N-grams of the hypothesis.
    pub n_grams: [u64; MAX_ORDER],
    /// Tokens of the hypothesis.
    pub hypothesis_tokens: u64,
    /// Tokens of the reference whose length is closest; of two equally close, the shorter.
    pub reference_tokens: u64,
}

impl Segment {
    /// Counts one hypothesis against its references, all plain text.
    ///
    /// # Panics
    /// If there are no references.
    pub fn new<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> Self {
        assert!(!references.is_empty(), "no references");
        let tokenized = tokenize(hypothesis);
        let hypothesis: Vec<&str> = tokenized.split_ascii_whitespace().collect();
        let references: Vec<String> = references.iter().map(|reference| tokenize(reference.as_ref())).collect();
        let references: Vec<Vec<&str>> = references.iter().map(|text| text.split_ascii_whitespace().collect()).collect();
        let lengths = references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|&length| (length.abs_diff(hypothesis.len()), length)).expect("a reference");
        let mut segment = Self { hypothesis_tokens: hypothesis.len() as u64, reference_tokens: closest as u64, ..Self::default() };
        for order in 1..=MAX_ORDER {
            let references: Vec<_> = references.iter().map(|tokens| n_grams(tokens, order)).collect();
            for (n_gram, count) in n_grams(&hypothesis, order) {
                let most = references.iter().filter_map(|counts| counts.get(n_gram)).max().copied().unwrap_or(0);
                segment.n_matched[order - 1] += count.min(most);
                segment.n_grams[order - 1] += count;
            }
        }
        segment
    }
}

/// BLEU of a corpus, from 0 to 100: a statistic for [`Bootstrap`](crate::bootstrap::Bootstrap). It is a score of all segments
/// together; the mean of the segments' own scores is another, lesser number.
///
/// ```text
/// bleu = 100·min(1, exp(1 - reference_tokens / hypothesis_tokens))·(p_1·p_2·p_3·p_4)^(1/4)
/// p_n = n_matched / n_grams, and 1 / (2^i·n_grams) where it is the i-th order without a match
/// ```
///
/// with all counts summed over the segments. 0 where nothing matches at all, or no hypothesis has four tokens.
///
/// Source: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation" (2002), section 2; the smoothing is
/// method 3 of Chen and Cherry, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU" (2014); tokenizer and
/// defaults are those of Post, "A Call for Clarity in Reporting BLEU Scores" (2018).
pub fn bleu(segments: &[Segment]) -> f64 {
    let mut corpus = Segment::default();
    for segment in segments {
        for n in 0..MAX_ORDER {
            corpus.n_matched[n] += segment.n_matched[n];
            corpus.n_grams[n] += segment.n_grams[n];
        }
        corpus.hypothesis_tokens += segment.hypothesis_tokens;
        corpus.reference_tokens += segment.reference_tokens;
    }
    if corpus.n_matched == [0; MAX_ORDER] || corpus.n_grams.contains(&0) {
        return 0.0;
    }
    let (mut log_sum, mut smoothing) = (0.0, 1.0);
    for (&n_matched, &n_grams) in corpus.n_matched.iter().zip(&corpus.n_grams) {
        let numerator = if n_matched > 0 {
            n_matched as f64
        } else {
            smoothing /= 2.0;
            smoothing
        };
        log_sum += (numerator / n_grams as f64).ln();
    }
    let brevity = (1.0 - corpus.reference_tokens as f64 / corpus.hypothesis_tokens as f64).min(0.0).exp();
    100.0 * brevity * (log_sum / MAX_ORDER as f64).exp()
}

fn n_grams<'a>(tokens: &'a [&'a str], order: usize) -> HashMap<&'a [&'a str], u64> {
    let mut counts = HashMap::with_capacity(tokens.len());
    for n_gram in tokens.windows(order) {
        *counts.entry(n_gram).or_insert(0) += 1;
    }
    counts
}

/// The tokens of mteval-v13a with single spaces between them: punctuation stands alone, but for a dot or comma inside a number,
/// and hyphens and apostrophes, of which only a hyphen behind a digit does.
fn tokenize(text: &str) -> String {
    let mut text = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    // In this order: `&amp;lt;` becomes `<`, as in mteval-v13a.
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, character);
    }
    let mut spaced = String::from(" ");
    for c in text.chars() {
        if c.is_ascii_punctuation() && !"',-.".contains(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');
    let is_mark = |c| c == '.' || c == ',';
    let spaced = rewrite_pairs(&spaced, |a, b| (!a.is_ascii_digit() && is_mark(b)).then_some([a, ' ', b, ' ']));
    let spaced = rewrite_pairs(&spaced, |a, b| (is_mark(a) && !b.is_ascii_digit()).then_some([' ', a, ' ', b]));
    let spaced = rewrite_pairs(&spaced, |a, b| (a.is_ascii_digit() && b == '-').then_some([a, ' ', b, ' ']));
    spaced.split(is_space).filter(|token| !token.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Replaces pairs of neighbours from left to right; what a pair has taken is not looked at again.
fn rewrite_pairs(text: &str, rewrite: impl Fn(char, char) -> Option<[char; 4]>) -> String {
    let mut rewritten = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text.chars();
    while let Some(a) = rest.next() {
        match rest.clone().next().and_then(|b| rewrite(a, b)) {
            Some(pair) => {
                rewritten.extend(pair);
                rest.next();
            }
            None => rewritten.push(a),
        }
    }
    rewritten
}

/// White space as in Python's `str.split`, which knows the four ASCII separators too.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_segment_by_hand() {
        let segment = Segment::new("the the cat sat down", &["the cat sat there quietly today", "a cat sat down"]);
        // "the" counts once of twice; cat, sat, down; then "the cat", "cat sat", "sat down"; then all but the first trigram.
        assert_eq!(segment.n_matched, [4, 3, 2, 0]);
        assert_eq!(segment.n_grams, [5, 4, 3, 2]);
        // Lengths 6 and 4 are equally close to 5.
        assert_eq!((segment.hypothesis_tokens, segment.reference_tokens), (5, 4));
        let expected = 100.0 * (4.0 / 5.0 * 3.0 / 4.0 * 2.0 / 3.0 * 0.5 / 2.0f64).powf(0.25);
        assert!((bleu(&[segment]) - expected).abs() < 1e-12);
    }

    #[test]
    fn a_short_hypothesis_pays_and_a_long_one_only_in_precision() {
        let reference = ["a b c d e f g h"];
        let short = bleu(&[Segment::new("a b c d e", &reference)]);
        assert!((short - 100.0 * (1.0f64 - 8.0 / 5.0).exp()).abs() < 1e-12);
        let long = Segment::new("a b c d e f g h i", &reference);
        assert!((bleu(&[long]) - 100.0 * (8.0 / 9.0 * 7.0 / 8.0 * 6.0 / 7.0 * 5.0 / 6.0f64).powf(0.25)).abs() < 1e-12);
    }

    #[test]
    fn smoothing_halves_with_every_order_that_is_missed() {
        let segment = Segment::new("a x b y", &["a p b q"]);
        assert_eq!(segment.n_matched, [2, 0, 0, 0]);
        let expected = 100.0 * (2.0 / 4.0 * (0.5 / 3.0) * (0.25 / 2.0) * 0.125f64).powf(0.25);
        assert!((bleu(&[segment]) - expected).abs() < 1e-12);
    }

    #[test]
    fn limits_and_invariances() {
        let texts = ["It's 3,000.50 km away.", "A well-known fact!", "No. 5-6, please", "one two three four five"];
        let same: Vec<Segment> = texts.iter().map(|text| Segment::new(text, &["something else entirely", text])).collect();
        assert!((bleu(&same) - 100.0).abs() < 1e-12);
        let mut mixed: Vec<Segment> = texts.iter().zip(texts.iter().rev()).map(|(a, b)| Segment::new(a, &[b])).collect();
        mixed.extend(&same);
        let score = bleu(&mixed);
        mixed.reverse();
        assert_eq!(bleu(&mixed), score);
        mixed.extend(mixed.clone());
        assert!((bleu(&mixed) - score).abs() < 1e-12, "twice the same corpus has the same score");
        assert_eq!(bleu(&[]), 0.0);
        assert_eq!(bleu(&[Segment::new("", &["a b c d"])]), 0.0);
        assert_eq!(bleu(&[Segment::new("a b c", &["a b c"])]), 0.0);
        assert_eq!(bleu(&[Segment::new("w x y z", &["a b c d"])]), 0.0);
    }

    #[test]
    fn case_counts_and_spacing_does_not() {
        let reference = ["The cat (black) sat, twice."];
        assert_eq!(Segment::new(" The  cat ( black )\tsat , twice .\n", &reference), Segment::new(reference[0], &reference));
        assert_eq!(Segment::new("the cat", &reference).n_matched[0], 1);
    }

    #[test]
    fn tokens_of_13a() {
        for (text, tokens) in [
            ("Hello, world!", "Hello , world !"),
            ("1,000.5 and .5 and 5. and a.b", "1,000.5 and . 5 and 5 . and a . b"),
            ("don't-stop 10-year-old", "don't-stop 10 - year-old"),
            ("wait... what", "wait . . . what"),
            ("&quot;a&amp;b&quot; &amp;lt;", "\" a & b \" <"),
            ("hy-\nphen\nline<skipped>", "hyphen line"),
            ("naïve—„so“ 日本。", "naïve—„so“ 日本。"),
            ("a\u{a0}b\u{1f}c", "a b c"),
        ] {
            assert_eq!(tokenize(text), tokens, "{text:?}");
        }
    }
}
