//! Perplexity over any number of batches.

use serde::{Deserialize, Serialize};

/// The negative log-likelihood of a text, summed over its tokens.
///
/// ```text
/// perplexity = exp( Σ_batches sum_nll / Σ_batches n_tokens )
/// ```
///
/// Both sums are kept apart until the end, so the value does not depend on how the tokens fell into batches. (The mean of the
/// batches' mean losses does: it weighs a short batch like a long one.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Sum over the tokens of `-ln p(token | the tokens before it)`, in nats.
    pub sum_nll: f64,
    /// How many tokens were predicted.
    pub n_tokens: u64,
}

impl Perplexity {
    /// Adds `n_tokens` predicted tokens whose negative log-likelihoods sum to `sum_nll` nats.
    pub fn add(&mut self, sum_nll: f64, n_tokens: u64) {
        self.sum_nll += sum_nll;
        self.n_tokens += n_tokens;
    }

    /// The perplexity: `exp` of [`per_token_nats`](Self::per_token_nats). NaN before the first token.
    pub fn value(&self) -> f64 {
        self.per_token_nats().exp()
    }

    /// Mean negative log-likelihood per token, in nats: the usual "loss". NaN before the first token.
    pub fn per_token_nats(&self) -> f64 {
        self.sum_nll / self.n_tokens as f64
    }

    /// Mean negative log-likelihood in bits per byte of the text the tokens stand for. Unlike perplexity it can be compared
    /// between models with different vocabularies.
    ///
    /// `n_bytes` is the UTF-8 length of the predicted text.
    pub fn bits_per_byte(&self, n_bytes: u64) -> f64 {
        self.sum_nll / std::f64::consts::LN_2 / n_bytes as f64
    }
}

impl FromIterator<(f64, u64)> for Perplexity {
    /// Collects `(sum_nll, n_tokens)` pairs, one per row or batch.
    fn from_iter<I: IntoIterator<Item = (f64, u64)>>(parts: I) -> Self {
        let mut total = Self::default();
        for (sum_nll, n_tokens) in parts {
            total.add(sum_nll, n_tokens);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quarters add without rounding, so "the same" can mean the same bits.
    const NLLS: [f64; 7] = [0.25, 3.5, 1.75, 2.0, 0.75, 5.25, 1.5];

    #[test]
    fn batch_size_changes_nothing() {
        let whole: Perplexity = NLLS.iter().map(|&nll| (nll, 1)).collect();
        for size in 1..=NLLS.len() {
            let batched: Perplexity = NLLS.chunks(size).map(|batch| (batch.iter().sum(), batch.len() as u64)).collect();
            assert_eq!(batched, whole);
        }
    }

    #[test]
    fn guessing_uniformly_has_the_perplexity_of_the_vocabulary() {
        let guess: Perplexity = (0..13).map(|_| (50f64.ln(), 1)).collect();
        assert!((guess.value() - 50.0).abs() < 1e-9);
        assert!((guess.per_token_nats() - 50f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn one_bit_per_token_of_four_bytes_is_a_quarter_bit_per_byte() {
        let coin: Perplexity = (0..8).map(|_| (std::f64::consts::LN_2, 1)).collect();
        assert!((coin.bits_per_byte(32) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_certain_model_has_perplexity_one_and_no_tokens_have_none() {
        assert_eq!(Perplexity { sum_nll: 0.0, n_tokens: 3 }.value(), 1.0);
        assert!(Perplexity::default().value().is_nan());
    }
}
