//! The control with shuffled labels: what a configuration learns where there is nothing to learn but the rows themselves.
//!
//! Labels that were dealt out at random say nothing, so whatever the training loss falls by was learnt by heart. How much of the fall on the right
//! labels that is bounds how much of it may be.
//!
//! Source: Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding Deep Learning Requires Rethinking Generalization", arXiv:1611.03530, Section 2.1.

use kiln_eval::figure::Figure;
use kiln_train::observed::Observation;
use serde::Serialize;

/// A run and its control.
#[derive(Clone, Debug, Serialize)]
pub struct ShuffledControl {
    /// By how much the loss on training rows fell with the right labels.
    pub fall: Figure,
    /// By how much with shuffled ones.
    pub shuffled_fall: Figure,
    /// The second over the first: 0 if nothing is learnt of labels that mean nothing, 1 if as much.
    pub memorised: Figure,
}

/// From what the models before and after training say of rows they were trained on, with their right labels and with shuffled ones. `seed` draws the
/// resamples of rows.
///
/// # Panics
/// If there are no rows, or not as many before and after.
pub fn shuffled_control(right: [&[Observation]; 2], shuffled: [&[Observation]; 2], seed: u64) -> ShuffledControl {
    let falls = |[before, after]: [&[Observation]; 2]| -> Vec<Fall> {
        assert_eq!(before.len(), after.len(), "the same rows before and after");
        before.iter().zip(after).map(|(before, after)| Fall { by: before.loss - after.loss, n_items: before.n_items as f64 }).collect()
    };
    let (right, shuffled) = (falls(right), falls(shuffled));
    let sizes = vec![right.len(), shuffled.len()];
    let memorised = {
        let (right, shuffled) = (right.clone(), shuffled.clone());
        move |places: &[usize]| {
            let (one, other) = places.split_at(right.len());
            let take = |of: &[Fall], places: &[usize]| per_item(&places.iter().map(|&place| of[place]).collect::<Vec<_>>());
            take(&shuffled, other) / take(&right, one)
        }
    };
    ShuffledControl {
        fall: Figure::new("fall of the training loss", right, per_item, seed),
        shuffled_fall: Figure::new("fall with shuffled labels", shuffled, per_item, seed).lower_is_better(),
        memorised: Figure::of_strata("memorised share", sizes, memorised, seed).lower_is_better(),
    }
}

#[derive(Clone, Copy)]
struct Fall {
    by: f64,
    n_items: f64,
}

fn per_item(rows: &[Fall]) -> f64 {
    rows.iter().map(|row| row.by).sum::<f64>() / rows.iter().map(|row| row.n_items).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let rows = |losses: &[f64]| losses.iter().map(|&loss| Observation { loss, n_items: 2, answers: Vec::new() }).collect::<Vec<_>>();
        let (before, after, noisy) = (rows(&[4.0, 4.0]), rows(&[1.0, 3.0]), rows(&[3.5, 3.5]));
        let control = shuffled_control([&before, &after], [&before, &noisy], 1);
        assert_eq!((control.fall.value, control.shuffled_fall.value, control.memorised.value), (1.0, 0.25, 0.25));
        let same = shuffled_control([&before, &after], [&before, &after], 1);
        assert_eq!(same.memorised.value, 1.0);
        assert_eq!(shuffled_control([&before, &after], [&before, &before], 1).memorised.value, 0.0);
    }
}
