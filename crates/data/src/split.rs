//! Which rows are trained on, and in which order.

use crate::random::SplitMix64;

/// The indices `0..n` in the order of `seed`: Fisher and Yates's shuffle with splitmix64, simple enough to be repeated by any
/// other program.
///
/// ```text
/// state = seed;  index = [0, 1, .., n-1]
/// for i = n-1, n-2, .., 1:  swap index[i] and index[splitmix64(state) mod (i+1)]
/// ```
///
/// ```
/// assert_eq!(kiln_data::split::order(10, 42), [0, 9, 5, 8, 6, 4, 7, 2, 1, 3]);
/// ```
pub fn order(n: usize, seed: u64) -> Vec<usize> {
    shuffled((0..n).collect(), seed)
}

/// `rows` in the order of `seed`: that of [`order`].
pub fn shuffled(mut rows: Vec<usize>, seed: u64) -> Vec<usize> {
    SplitMix64::new(seed).shuffle(&mut rows);
    rows
}

/// Splits `n` rows at random into `(training, held_out)`, each in ascending order.
///
/// `held_out_share` of the rows are held out, rounded to whole rows, but at least one and never all. Fewer than two rows cannot
/// be split: all of them are for training.
pub fn split(n: usize, held_out_share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let n_held_out = match n {
        0 | 1 => 0,
        _ => ((n as f64 * held_out_share).round() as usize).clamp(1, n - 1),
    };
    // Another key than that of `order`: the training order must not depend on who was held out.
    let mut indices: Vec<usize> = (0..n).collect();
    SplitMix64::keyed(&[seed, n as u64]).shuffle(&mut indices);
    let mut held_out = indices.split_off(n - n_held_out);
    indices.sort_unstable();
    held_out.sort_unstable();
    (indices, held_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_is_the_documented_one() {
        assert_eq!(order(10, 0), [6, 3, 2, 9, 8, 1, 4, 7, 0, 5]);
        assert_eq!(order(10, 42), [0, 9, 5, 8, 6, 4, 7, 2, 1, 3]);
        assert_eq!(order(1, 7), [0]);
        assert!(order(0, 7).is_empty());
    }

    #[test]
    fn every_row_is_held_out_about_as_often() {
        let mut times = [0; 20];
        for seed in 0..2000 {
            split(20, 0.25, seed).1.into_iter().for_each(|row| times[row] += 1);
        }
        assert!(times.iter().all(|&n| (420..580).contains(&n)), "{times:?}");
    }

    proptest! {
        #[test]
        fn every_row_is_on_one_side(n in 2_usize..300, share in 0.0..1.0_f64, seed: u64) {
            let (train, held_out) = split(n, share, seed);
            prop_assert!(!train.is_empty() && !held_out.is_empty());
            prop_assert!((held_out.len() as f64 - n as f64 * share).abs() <= 1.0);
            let mut all = [train, held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
