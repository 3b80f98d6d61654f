//! Which rows are trained on, and in which order.

use crate::random::SplitMix64;
use rayon::prelude::*;

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

/// Whether each row is in the share that is drawn of rows with these `keys`: those of one key are on one side. Where no two are the same it
/// is what [`split`] holds out.
///
/// Groups of rows are drawn as [`split`] draws rows, and each goes in that the share still has room for; if none fits, the smallest does. Rows
/// that all have one key are split as if they had none.
pub fn split_alike(keys: &[u64], share: f64, seed: u64) -> Vec<bool> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.par_sort_unstable_by_key(|&row| (keys[row as usize], row));
    let mut groups: Vec<&[u32]> = order.chunk_by(|&a, &b| keys[a as usize] == keys[b as usize]).collect();
    let mut is_drawn = vec![false; keys.len()];
    if groups.len() == keys.len() || groups.len() < 2 {
        split(keys.len(), share, seed).1.into_iter().for_each(|row| is_drawn[row] = true);
        return is_drawn;
    }
    groups.sort_unstable_by_key(|group| group[0]);
    let n_wanted = ((keys.len() as f64 * share).round() as usize).clamp(1, keys.len() - 1);
    let mut shuffled: Vec<usize> = (0..groups.len()).collect();
    SplitMix64::keyed(&[seed, groups.len() as u64]).shuffle(&mut shuffled);
    let (mut n_drawn, mut drawn) = (0, Vec::new());
    for &group in shuffled.iter().rev() {
        if n_drawn + groups[group].len() <= n_wanted {
            n_drawn += groups[group].len();
            drawn.push(group);
        }
    }
    if drawn.is_empty() {
        drawn.extend(shuffled.into_iter().min_by_key(|&group| groups[group].len()));
    }
    drawn.into_iter().flat_map(|group| groups[group]).for_each(|&row| is_drawn[row as usize] = true);
    is_drawn
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

    #[test]
    fn where_groups_are_large_the_smallest_is_drawn() {
        let is_drawn = |keys: &[u64], share| split_alike(keys, share, 5);
        assert_eq!(is_drawn(&[7, 7, 7, 4, 4, 7, 7], 0.1), [false, false, false, true, true, false, false]);
        assert_eq!(is_drawn(&[7; 10], 0.3).into_iter().filter(|&is_drawn| is_drawn).count(), 3, "one text cannot be kept apart");
        assert!(is_drawn(&[], 0.3).is_empty());
        assert_eq!(is_drawn(&[7], 0.3), [false]);
    }

    proptest! {
        #[test]
        fn rows_alike_are_on_one_side(keys in prop::collection::vec(0_u64..60, 2..300), share in 0.01..0.9_f64, seed: u64) {
            let is_drawn = split_alike(&keys, share, seed);
            let n_drawn = is_drawn.iter().filter(|&&is_drawn| is_drawn).count();
            prop_assert!(0 < n_drawn && n_drawn < keys.len());
            let mut sizes = std::collections::BTreeMap::new();
            keys.iter().for_each(|&key| *sizes.entry(key).or_insert(0) += 1);
            if sizes.len() > 1 {
                let of_key = |key: u64, row: usize| keys[row] == key && is_drawn[row];
                for (&key, &size) in &sizes {
                    let n = (0..keys.len()).filter(|&row| of_key(key, row)).count();
                    prop_assert!(n == 0 || n == size);
                }
                let largest = *sizes.values().max().unwrap();
                prop_assert!((n_drawn as f64 - keys.len() as f64 * share).abs() <= largest as f64 + 1.0);
            }
        }

        #[test]
        fn rows_that_all_differ_are_split_as_rows(n in 2_u64..300, share in 0.01..0.9_f64, seed: u64) {
            let keys: Vec<u64> = (0..n).map(|row| row.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let drawn: Vec<usize> = split_alike(&keys, share, seed).iter().enumerate().filter_map(|(row, &drawn)| drawn.then_some(row)).collect();
            prop_assert_eq!(drawn, split(n as usize, share, seed).1);
        }

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
