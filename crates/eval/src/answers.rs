//! Generated answers against accepted ones: exact match and F1 over words, as SQuAD defines them, and ROUGE-L.
//!
//! Each scores one prediction, from 0 to 1, by its best reference. The figure of a system is the
//! [`mean`](crate::bootstrap::mean) over the predictions, which is also the statistic for
//! [`Bootstrap`](crate::bootstrap::Bootstrap):
//!
//! ```
//! use kiln_eval::answers::token_f1;
//! use kiln_eval::bootstrap::{Bootstrap, mean};
//!
//! let scores = [token_f1("the river Rhine", &["Rhine", "the Rhine"]), token_f1("in 1815", &["1815"])];
//! let interval = Bootstrap::new(7).interval(&scores, mean);
//! assert!(interval.contains(mean(&scores)));
//! ```

use std::collections::BTreeMap;

/// 1 if the prediction is a reference, else 0; case, ASCII punctuation, articles and spacing are left out of the comparison.
///
/// Source: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1. SQuAD's own
/// script prints percent.
///
/// # Panics
/// If there are no references; "no answer" is the reference `""`.
pub fn exact_match<S: AsRef<str>>(prediction: &str, references: &[S]) -> f64 {
    best(words(prediction), references, words, |prediction, reference| f64::from(u8::from(prediction == reference)))
}

/// F1 of the words that prediction and reference share, each as often as it is in both, after the same normalisation as for
/// [`exact_match`]. Where one of the two has no words the score is 1 if neither has, as in SQuAD 2.0.
///
/// ```text
/// f1 = 2·n_shared / (n_prediction + n_reference)
/// ```
///
/// Source: Rajpurkar et al. (2016), section 6.1; Rajpurkar et al., "Know What You Don't Know" (2018) for empty answers.
///
/// # Panics
/// If there are no references.
pub fn token_f1<S: AsRef<str>>(prediction: &str, references: &[S]) -> f64 {
    best(words(prediction), references, words, |prediction, reference| {
        if prediction.is_empty() || reference.is_empty() {
            return f64::from(u8::from(prediction == reference));
        }
        let mut left = BTreeMap::<&str, usize>::new();
        reference.iter().for_each(|word| *left.entry(word.as_str()).or_default() += 1);
        let shared = |word: &&String| left.get_mut(word.as_str()).is_some_and(|n| std::mem::replace(n, n.saturating_sub(1)) > 0);
        f1(prediction.iter().filter(shared).count(), prediction.len(), reference.len())
    })
}

/// ROUGE-L: F1 of the longest common subsequence of lower-case words of `a-z` and `0-9`, without stemming, the default of
/// Google's `rouge_score`. 0 where either side has no such word.
///
/// ```text
/// f1 = 2·lcs / (n_prediction + n_reference)
/// ```
///
/// Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), Eq. 2 to 4 with β = 1.
///
/// # Panics
/// If there are no references.
pub fn rouge_l<S: AsRef<str>>(prediction: &str, references: &[S]) -> f64 {
    best(alphanumerics(prediction), references, alphanumerics, |prediction, reference| {
        f1(longest_common_subsequence(prediction, reference), prediction.len(), reference.len())
    })
}

/// The score against the reference that scores best.
fn best<S: AsRef<str>>(
    prediction: Vec<String>,
    references: &[S],
    words: fn(&str) -> Vec<String>,
    score: impl Fn(&[String], &[String]) -> f64,
) -> f64 {
    assert!(!references.is_empty(), "no references");
    references.iter().map(|reference| score(&prediction, &words(reference.as_ref()))).fold(0.0, f64::max)
}

fn f1(n_shared: usize, n_prediction: usize, n_reference: usize) -> f64 {
    if n_shared == 0 { 0.0 } else { 2.0 * n_shared as f64 / (n_prediction + n_reference) as f64 }
}

/// The words of an answer as SQuAD compares them.
fn words(text: &str) -> Vec<String> {
    let kept: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let is_article = |run: &str| matches!(run, "a" | "an" | "the");
    // An article is one between any characters that are not of words, not only between spaces.
    let runs = kept.split_inclusive(|c: char| !c.is_alphanumeric()).flat_map(|piece| {
        let end = piece.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
        [if is_article(&piece[..end]) { " " } else { &piece[..end] }, &piece[end..]]
    });
    runs.collect::<String>().split_whitespace().map(str::to_owned).collect()
}

fn alphanumerics(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // lengths[j]: of the words of `a` so far and the first j of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if word == other { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_match_looks_past_case_punctuation_articles_and_spacing() {
        for (prediction, reference) in [("The  Rhine.", "rhine"), ("an \"A\" b", "b"), ("don't", "dont"), ("a–z", "–z"), ("", "the")] {
            assert_eq!(exact_match(prediction, &[reference]), 1.0, "{prediction:?}");
        }
        assert_eq!(exact_match("theatre", &["atre"]), 0.0);
        assert_eq!(exact_match("Rhein", &["Rhine", "rhein"]), 1.0);
        assert_eq!(exact_match("Rhein", &["Rhine"]), 0.0);
    }

    #[test]
    fn token_f1_by_hand() {
        // Of "red red house" and "big red red red barn" two words are shared.
        assert_eq!(token_f1("The red, red house", &["a big red red red barn"]), 2.0 * 2.0 / 8.0);
        assert_eq!(token_f1("one two", &["three", "two"]), 2.0 / 3.0);
        assert_eq!([token_f1("", &[""]), token_f1("the", &[""]), token_f1("", &["x"]), token_f1("x", &["y"])], [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn rouge_l_by_hand() {
        // Police the gunman: of "police killed the gunman" and "police kill the gunman" three words in order; of the second
        // prediction two, "the gunman".
        assert_eq!(rouge_l("Police kill the gunman.", &["police killed the gunman"]), 0.75);
        assert_eq!(rouge_l("the gunman kill police", &["police killed the gunman"]), 0.5);
        assert_eq!(rouge_l("x", &["y", "x z"]), 2.0 / 3.0);
        assert_eq!([rouge_l("", &[""]), rouge_l("é", &["é"]), rouge_l("a-b", &["a b"])], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn sides_can_be_swapped_and_a_text_equals_itself() {
        let texts = ["to be or not to be", "not to be", "be that as it may", "or it may not", "be be be"];
        for a in texts {
            assert_eq!([exact_match(a, &[a]), token_f1(a, &[a]), rouge_l(a, &[a])], [1.0; 3]);
            for b in texts {
                assert_eq!(token_f1(a, &[b]), token_f1(b, &[a]));
                assert_eq!(rouge_l(a, &[b]), rouge_l(b, &[a]));
                assert!(exact_match(a, &[b]) <= rouge_l(a, &[b]) && rouge_l(a, &[b]) <= token_f1(a, &[b]), "{a:?}, {b:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "no references")]
    fn no_references_panic() {
        rouge_l::<&str>("x", &[]);
    }
}
