//! Exposure of planted canaries: how far up a canary stands among all the numbers it might have had, by the loss of the model.
//!
//! ```text
//! exposure = log₂|R| − log₂ rank = −log₂ P[loss(r) ≤ loss(canary)], r uniform in R
//! ```
//!
//! R: the 10⁹ numbers of [`kiln_data::canaries`]. A canary that was never seen has an exposure of 1/ln 2 ≈ 1.44 on average, whatever the model; one
//! that is likelier than all others has log₂ 10⁹ ≈ 29.9. The probability is estimated from a sample of R: counted, which cannot come to more than
//! log₂ of the sample's size, and by a skew-normal distribution fitted to the losses of the sample.
//!
//! Source: Carlini, Liu, Erlingsson, Kos and Song, "The Secret Sharer", arXiv:1802.08232, Definitions 4 and 6, Sections 4.2 to 4.4.
//! Differs from the source: an exposure is never more than log₂|R|, which the fitted distribution does not know of.

use super::skew_normal::SkewNormal;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model as _;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::canaries::{Canary, N_DIGITS};
use kiln_data::examples::{Example, completions, end_id, pack};
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::{Difference, Figure};
use kiln_kernels::random::Key;
use kiln_train::evaluate::batches;
use serde::Serialize;
use std::path::Path;

/// log₂ of how many numbers a canary might have had: the largest exposure.
pub fn most() -> f64 {
    N_DIGITS as f64 * 10f64.log2()
}

/// The exposure of what stands at `rank`, counted from 1, among `n` candidates.
pub fn of_rank(rank: u64, n: u64) -> f64 {
    (n as f64).log2() - (rank as f64).log2()
}

/// The exposure of a canary with this loss, counted in a sample of the others: at most log₂(n + 1).
pub fn counted(loss: f64, others: &[f64]) -> f64 {
    let n_below = others.iter().filter(|other| **other <= loss).count();
    of_rank(n_below as u64 + 1, others.len() as u64 + 1)
}

/// The exposure of a canary with this loss, by a skew-normal distribution fitted to a sample of the others. Where all of these have one loss, it is
/// [`counted`].
pub fn fitted(loss: f64, others: &[f64]) -> f64 {
    SkewNormal::fit(others).map_or_else(|| counted(loss, others), |fit| (-fit.log_below(loss) / std::f64::consts::LN_2).min(most()))
}

/// What a model knows of a canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exposed {
    /// What comes before its number.
    pub prompt: String,
    /// Its exposure to the trained model.
    pub exposure: f64,
    /// The same counted in the sample.
    pub counted: f64,
    /// Its exposure to the model before training, which has not seen it.
    pub before: f64,
    /// Whether the trained model goes on from the prompt with the number.
    pub extracted: bool,
}

/// What a model knows of all canaries.
#[derive(Clone, Debug, Serialize)]
pub struct Canaries {
    /// How often an epoch saw each.
    pub repetitions: usize,
    /// The mean exposure to the trained model.
    pub exposure: Figure,
    /// By how much it is larger than to the model before training.
    pub rise: Difference,
    /// The share whose number the trained model gives.
    pub extracted: Figure,
    /// Each of them.
    pub canaries: Vec<Exposed>,
}

/// The exposure of `canaries` to the model before training and to the trained one in `folder`, each by `n_others` other numbers. `seed` draws these, and
/// the resamples of canaries.
///
/// # Errors
/// If the model names no end token, or its tokenizer cannot represent a canary.
pub fn exposures(
    [before, after]: [&LanguageModel; 2],
    folder: &Path,
    tokenizer: &Tokenizer,
    canaries: &[Canary],
    n_others: usize,
    seed: u64,
) -> Result<Canaries> {
    let end = end_id(&after.config().end_ids, folder)?;
    let mut found = Vec::with_capacity(canaries.len());
    let mut prompts = Vec::with_capacity(canaries.len());
    let mut secrets: Vec<Vec<u32>> = Vec::with_capacity(canaries.len());
    for (index, canary) in canaries.iter().enumerate() {
        let others = canary.alternatives(n_others, Key::new(seed).fold(OTHERS).fold(index as u64));
        let texts = [canary.completion.clone()].into_iter().chain(others).map(|number| [canary.prompt.clone(), number]).collect();
        let examples = completions(texts, tokenizer, end)?;
        let [before, after] = [before, after].map(|model| losses(model, &examples));
        let start = examples[0].supervised[0].start;
        prompts.push(examples[0].ids[..start].to_vec());
        secrets.push(examples[0].ids[start..].to_vec());
        found.push(Exposed {
            prompt: canary.prompt.clone(),
            exposure: fitted(after[0], &after[1..]),
            counted: counted(after[0], &after[1..]),
            before: fitted(before[0], &before[1..]),
            extracted: false,
        });
    }
    let most_tokens = secrets.iter().map(Vec::len).max().ok_or_else(|| Error::config("canaries", "there are none"))?;
    let sampling = Sampling { max_new_tokens: most_tokens, ..Sampling::default() };
    let continued = generate(after, &prompts, &sampling, &[end], Key::new(seed))?;
    for ((found, continued), secret) in found.iter_mut().zip(&continued).zip(&secrets) {
        // The end token aside: a number is given away whatever comes after it.
        let secret = secret.strip_suffix(&[end]).unwrap_or(secret);
        found.extracted = continued.starts_with(secret);
    }
    let figure =
        |metric, of: fn(&Exposed) -> f64| Figure::new(metric, found.iter().map(of).collect::<Vec<_>>(), mean, seed).lower_is_better();
    let exposure = figure("exposure", |canary| canary.exposure);
    Ok(Canaries {
        repetitions: canaries[0].repetitions,
        rise: exposure.minus(&figure("exposure", |canary| canary.before)),
        extracted: figure("extracted", |canary| f64::from(u8::from(canary.extracted))),
        exposure,
        canaries: found,
    })
}

/// The stream of randomness that draws other numbers.
const OTHERS: u64 = 1;

/// The summed loss of each example, in nats.
fn losses(model: &LanguageModel, examples: &[Example]) -> Vec<f64> {
    let of_batch = |batch: Vec<&Example>| {
        let (packed, supervised) = pack(&batch);
        model.sequence_losses(&packed, &supervised)
    };
    batches(examples, |example| example.ids.len()).flat_map(of_batch).map(|(loss, _)| loss).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // First of 1024 numbers: all 10 bits; the last: none.
        assert_eq!([of_rank(1, 1024), of_rank(4, 1024), of_rank(1024, 1024)], [10.0, 8.0, 0.0]);
        // Of three others one is at most as large: second of four.
        assert_eq!(counted(2.0, &[1.0, 3.0, 4.0]), 1.0);
        assert_eq!(counted(2.0, &[2.0, 3.0, 4.0]), 1.0, "a tie stands before it");
        assert_eq!(counted(0.5, &[1.0; 7]), 3.0);
        assert!((most() - 29.897_352_853_986_26).abs() < 1e-12);
        // Nothing to fit to.
        assert_eq!(fitted(0.5, &[1.0; 7]), 3.0);
    }

    #[test]
    fn what_is_one_of_many_has_their_exposure() {
        let key = Key::new(3);
        let losses: Vec<f64> = (0..1000).map(|index| 30.0 + 2.0 * f64::from(key.normal(index))).collect();
        let mean_of = |exposure: fn(f64, &[f64]) -> f64| {
            let unseen = |index: u64| 30.0 + 2.0 * f64::from(key.fold(9).normal(index));
            (0..300).map(|index| exposure(unseen(index), &losses)).sum::<f64>() / 300.0
        };
        // The mean of −log₂ of a uniform number, with a standard error of 0.08.
        let expected = 1.0 / std::f64::consts::LN_2;
        assert!((mean_of(counted) - expected).abs() < 0.25, "{}", mean_of(counted));
        assert!((mean_of(fitted) - expected).abs() < 0.25, "{}", mean_of(fitted));
        // Where both can tell, they agree; further out only the fit can.
        for deviations in [-1.0, 0.0, 1.0, 1.5] {
            let loss = 30.0 - 2.0 * deviations;
            assert!((counted(loss, &losses) - fitted(loss, &losses)).abs() < 0.3, "{deviations}");
        }
        assert!(fitted(18.0, &losses) > 20.0 && counted(18.0, &losses) < 10.0);
        assert_eq!(fitted(-300.0, &losses), most());
    }
}
