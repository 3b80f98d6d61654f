//! Membership inference by the loss: how well one can tell from a row's loss whether the model was trained on it.
//!
//! A model that has learnt nothing by heart has the same losses on rows it was trained on and on others of the same kind: an area under the ROC
//! curve of one half. The model before training shows whether they are of the same kind.
//!
//! Source: Yeom, Giacomelli, Fredrikson and Jha, "Privacy Risk in Machine Learning", arXiv:1709.01604, Section 3 (the attack by a loss against the
//! mean training loss, and its advantage); the area over all thresholds: Carlini et al., arXiv:2112.03570, Section II.

use kiln_eval::binary::roc_auc;
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Figure;
use serde::Serialize;

/// How well losses tell rows that were trained on from others.
#[derive(Clone, Debug, Serialize)]
pub struct Membership {
    /// The chance that a row that was trained on has a lower loss than one held out.
    pub auc: Figure,
    /// The advantage of guessing that rows with at most the mean training loss were trained on: true less false positive rate.
    pub advantage: Figure,
}

/// From the losses of rows that were trained on and of rows held out. `seed` draws the resamples, of each side by itself.
///
/// # Panics
/// If a side is empty.
pub fn membership(members: &[f64], others: &[f64], seed: u64) -> Membership {
    let sizes = vec![members.len(), others.len()];
    let n_members = members.len();
    let figure = |metric, score: fn(&[f64], &[f64]) -> f64| {
        let (members, others) = (members.to_vec(), others.to_vec());
        let of_places = move |places: &[usize]| {
            let take = |losses: &[f64], places: &[usize]| places.iter().map(|&place| losses[place]).collect::<Vec<_>>();
            score(&take(&members, &places[..n_members]), &take(&others, &places[n_members..]))
        };
        Figure::of_strata(metric, sizes.clone(), of_places, seed).lower_is_better()
    };
    Membership { auc: figure("membership AUC", auc), advantage: figure("membership advantage", advantage) }
}

fn auc(members: &[f64], others: &[f64]) -> f64 {
    let pairs: Vec<(f64, bool)> = members.iter().map(|&loss| (-loss, true)).chain(others.iter().map(|&loss| (-loss, false))).collect();
    roc_auc(&pairs)
}

fn advantage(members: &[f64], others: &[f64]) -> f64 {
    let most = mean(members);
    let share = |losses: &[f64]| losses.iter().filter(|loss| **loss <= most).count() as f64 / losses.len() as f64;
    share(members) - share(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    #[test]
    fn by_hand() {
        // Of 3·2 pairs the member's loss is lower in four and the same in one; the mean of the members is 2, which two of them and one other reach.
        let found = membership(&[1.0, 2.0, 3.0], &[2.0, 4.0], 7);
        assert!((found.auc.value - 4.5 / 6.0).abs() < 1e-12, "{}", found.auc.value);
        assert!((found.advantage.value - (2.0 / 3.0 - 0.5)).abs() < 1e-12);
    }

    #[test]
    fn limits_and_coverage() {
        let apart = membership(&[0.1; 20], &[2.0; 20], 7);
        assert_eq!([apart.auc.value, apart.advantage.value, apart.auc.interval.low], [1.0, 1.0, 1.0]);
        let same = membership(&[1.0; 20], &[1.0; 20], 7);
        assert_eq!([same.auc.value, same.advantage.value], [0.5, 0.0]);
        // Losses of one kind on both sides: one half is in the interval nearly always.
        let drawn = |key: Key| (0..80).map(|row| f64::from(key.uniform(row))).collect::<Vec<_>>();
        let n_covered = (0..60).filter(|&trial| {
            let key = Key::new(trial);
            membership(&drawn(key.fold(0)), &drawn(key.fold(1)), trial).auc.interval.contains(0.5)
        });
        let n_covered = n_covered.count();
        assert!(n_covered >= 52, "{n_covered} of 60");
    }
}
