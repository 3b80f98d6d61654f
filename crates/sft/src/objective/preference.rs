//! Direct preference optimisation: the chosen completion gains more probability over the reference model's than the rejected one.
//!
//! ```text
//! h = [log π(chosen) − log π(rejected)] − [log ref(chosen) − log ref(rejected)]
//! loss = -Σ_pairs (1 − ε)·log σ(β·h) + ε·log σ(−β·h)
//! ```
//!
//! log π, log ref: the summed log-probabilities of a completion's tokens under the model and under the model before training; β: how much a
//! step away from the reference costs; ε: the share of pairs that may be the wrong way round. A sum, so that the update can divide by all
//! pairs of a batch.
//! Source: Rafailov et al., arXiv:2305.18290, Eq. 7; ε: Mitchell, "A note on DPO with noisy preferences" (2023), Eq. 3.
//! Differs from the source: nothing.

use crate::config::PreferenceConfig;
use crate::data::preferences::Pair;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Tensor, TensorData};
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::{Example, pack};
use kiln_kernels::cross_entropy::HeadOptions;
use kiln_kernels::pool::{Pooling, pool};
use kiln_kernels::random::Key;
use kiln_kernels::segments::Segments;

/// The loss in nats, `[1]`. The reference's log-probabilities come with the pairs and carry no gradient.
pub fn loss(model: &LanguageModel, pairs: &[&Pair], config: &PreferenceConfig, dropout: Option<Key>) -> Tensor<1> {
    let n = pairs.len();
    let completions: Vec<&Example> = pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected)).collect();
    let (batch, supervised) = pack(&completions);
    let lengths: Vec<usize> = completions.iter().map(|completion| completion.n_supervised()).collect();
    let log_probabilities = model.log_probabilities(&batch, &supervised, HeadOptions::default(), dropout);
    let n_tokens = supervised.targets.len();
    let means = pool(log_probabilities.slice([0..n_tokens, 0..1]), &Segments::from_lengths(lengths.clone()), Pooling::Mean);
    let column = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n, 1]), &means.device());
    let counts = |range: std::ops::Range<usize>| column(lengths[range].iter().map(|&length| length as f32).collect());
    let chosen = means.clone().slice([0..n, 0..1]) * counts(0..n);
    let rejected = means.clone().slice([n..2 * n, 0..1]) * counts(n..2 * n);
    let scaled = (chosen - rejected - column(pairs.iter().map(|pair| pair.reference_margin as f32).collect())) * config.beta;
    let smoothing = config.label_smoothing;
    (log_sigmoid(scaled.clone()) * (1.0 - smoothing) + log_sigmoid(scaled.neg()) * smoothing).sum().neg()
}

/// The loss of a pair whose `β·h` is `scaled`, in nats.
pub fn of_pair(scaled: f64, label_smoothing: f64) -> f64 {
    // log σ(x) = −ln(1 + e^−x), without overflow.
    let log_sigmoid = |x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p();
    -(1.0 - label_smoothing) * log_sigmoid(scaled) - label_smoothing * log_sigmoid(-scaled)
}

#[cfg(test)]
mod tests {
    use super::of_pair;

    #[test]
    fn a_pair_by_hand() {
        // σ(ln 3) = 3/4.
        let scaled = 3.0f64.ln();
        assert!((of_pair(scaled, 0.0) - (4.0f64 / 3.0).ln()).abs() < 1e-12);
        assert!((of_pair(-scaled, 0.0) - 4.0f64.ln()).abs() < 1e-12);
        assert!((of_pair(scaled, 0.25) - (0.75 * (4.0f64 / 3.0).ln() + 0.25 * 4.0f64.ln())).abs() < 1e-12);
        // With nothing learnt a pair is a toss-up; far away it costs in proportion, or nothing.
        assert_eq!(of_pair(0.0, 0.1), 2.0f64.ln());
        assert_eq!((of_pair(-1e3, 0.0), of_pair(1e3, 0.0)), (1e3, 0.0));
        // Smoothed, the least loss is where σ is the share of pairs that are the right way round.
        let near = [-0.01, 0.0, 0.01].map(|step| of_pair(scaled + step, 0.25));
        assert!(near[1] < near[0] && near[1] < near[2], "{near:?}");
    }
}
