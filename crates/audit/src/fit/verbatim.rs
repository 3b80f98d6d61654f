//! Verbatim continuation: whether a decoder that is given the beginning of a row it was trained on goes on as the row does.
//!
//! A row is extractable with k tokens of context if the greedy continuation of its first k tokens is what follows in it. Rows that are held out say
//! how often that happens to rows of the kind that the model has not seen.
//!
//! Source: Carlini, Ippolito, Jagielski, Lee, Tramèr and Zhang, "Quantifying Memorization Across Neural Language Models", arXiv:2202.07646,
//! Definition 3.1. Differs from the source: both lengths are settings, and smaller, because rows of fine-tuning are short.

use kiln_core::Result;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::Example;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Figure;
use kiln_kernels::random::Key;
use serde::Serialize;

/// How a model continues rows.
#[derive(Clone, Debug, Serialize)]
pub struct Verbatim {
    /// Rows that were long enough.
    pub n_rows: usize,
    /// The share of them that is extractable.
    pub extractable: Figure,
    /// The mean share of the tokens that follow up to the first that differs.
    pub matched: Figure,
}

/// Prompts of one pass.
const AT_ONCE: usize = 64;

/// The greedy continuation of each row's first `n_prefix` tokens, against the `n_suffix` tokens that follow in it. Of a row with a prompt longer than that
/// the whole prompt is given: only tokens with a loss can have been learnt. `None` if no row has as many. `seed` draws the resamples of rows.
///
/// # Errors
/// As [`generate`].
pub fn verbatim(model: &LanguageModel, rows: &[Example], n_prefix: usize, n_suffix: usize, seed: u64) -> Result<Option<Verbatim>> {
    let long: Vec<[&[u32]; 2]> = rows.iter().filter_map(|row| parts(row, n_prefix, n_suffix)).collect();
    if long.is_empty() {
        return Ok(None);
    }
    let sampling = Sampling { max_new_tokens: n_suffix, ..Sampling::default() };
    let mut shares = Vec::with_capacity(long.len());
    for part in long.chunks(AT_ONCE) {
        let prompts: Vec<Vec<u32>> = part.iter().map(|[given, _]| given.to_vec()).collect();
        // No token ends a continuation: an end of text is to be met like any other token.
        let continued = generate(model, &prompts, &sampling, &[], Key::new(seed))?;
        shares.extend(continued.iter().zip(part).map(|(found, [_, expected])| matched(found, expected)));
    }
    let whole: Vec<f64> = shares.iter().map(|&share| f64::from(u8::from(share == 1.0))).collect();
    Ok(Some(Verbatim {
        n_rows: long.len(),
        extractable: Figure::new("extractable", whole, mean, seed).lower_is_better(),
        matched: Figure::new("matched", shares, mean, seed).lower_is_better(),
    }))
}

/// What is given of a row, and what follows in it.
fn parts(row: &Example, n_prefix: usize, n_suffix: usize) -> Option<[&[u32]; 2]> {
    let learnt = row.supervised.first()?;
    let start = n_prefix.max(learnt.start);
    (start + n_suffix <= learnt.end).then(|| [&row.ids[..start], &row.ids[start..start + n_suffix]])
}

/// The share of `expected` up to the first token that `found` has otherwise.
fn matched(found: &[u32], expected: &[u32]) -> f64 {
    found.iter().zip(expected).take_while(|(a, b)| a == b).count() as f64 / expected.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_given_as_a_whole() {
        let row = Example::from((0..10).collect(), 4);
        assert_eq!(parts(&row, 2, 3), Some([&[0, 1, 2, 3][..], &[4, 5, 6]]));
        assert_eq!(parts(&row, 6, 4), Some([&[0, 1, 2, 3, 4, 5][..], &[6, 7, 8, 9]]));
        assert_eq!(parts(&row, 6, 5), None);
        // Of a conversation what the assistant says first.
        let turns = Example { ids: (0..20).collect(), supervised: vec![3..6, 10..20] };
        assert_eq!(parts(&turns, 2, 4), None);
        assert_eq!(parts(&turns, 2, 3), Some([&[0, 1, 2][..], &[3, 4, 5]]));
    }

    #[test]
    fn what_comes_after_a_difference_does_not_count() {
        assert_eq!(matched(&[1, 2, 3, 4], &[1, 2, 3, 4]), 1.0);
        assert_eq!(matched(&[1, 2, 9, 4], &[1, 2, 3, 4]), 0.5);
        assert_eq!(matched(&[9, 2, 3, 4], &[1, 2, 3, 4]), 0.0);
        assert_eq!(matched(&[1], &[1, 2, 3, 4]), 0.25);
    }
}
