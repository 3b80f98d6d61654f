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

/// The greedy continuation of each row's first `n_prefix` tokens, against the `n_suffix` tokens that follow in it. `None` if no row has as many.
/// `seed` draws the resamples of rows.
///
/// # Errors
/// As [`generate`].
pub fn verbatim(model: &LanguageModel, rows: &[Example], n_prefix: usize, n_suffix: usize, seed: u64) -> Result<Option<Verbatim>> {
    let long: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).filter(|ids| ids.len() >= n_prefix + n_suffix).collect();
    if long.is_empty() {
        return Ok(None);
    }
    let sampling = Sampling { max_new_tokens: n_suffix, ..Sampling::default() };
    let mut shares = Vec::with_capacity(long.len());
    for part in long.chunks(AT_ONCE) {
        let prompts: Vec<Vec<u32>> = part.iter().map(|ids| ids[..n_prefix].to_vec()).collect();
        // No token ends a continuation: an end of text is to be met like any other token.
        let continued = generate(model, &prompts, &sampling, &[], Key::new(seed))?;
        shares.extend(continued.iter().zip(part).map(|(found, ids)| matched(found, &ids[n_prefix..n_prefix + n_suffix])));
    }
    let whole: Vec<f64> = shares.iter().map(|&share| f64::from(u8::from(share == 1.0))).collect();
    Ok(Some(Verbatim {
        n_rows: long.len(),
        extractable: Figure::new("extractable", whole, mean, seed).lower_is_better(),
        matched: Figure::new("matched", shares, mean, seed).lower_is_better(),
    }))
}

/// The share of `expected` up to the first token that `found` has otherwise.
fn matched(found: &[u32], expected: &[u32]) -> f64 {
    found.iter().zip(expected).take_while(|(a, b)| a == b).count() as f64 / expected.len() as f64
}

#[cfg(test)]
mod tests {
    use super::matched;

    #[test]
    fn what_comes_after_a_difference_does_not_count() {
        assert_eq!(matched(&[1, 2, 3, 4], &[1, 2, 3, 4]), 1.0);
        assert_eq!(matched(&[1, 2, 9, 4], &[1, 2, 3, 4]), 0.5);
        assert_eq!(matched(&[9, 2, 3, 4], &[1, 2, 3, 4]), 0.0);
        assert_eq!(matched(&[1], &[1, 2, 3, 4]), 0.25);
    }
}
