//! Which rows share a batch.
//!
//! A batch is sequences laid end to end, so its size is a number of tokens, and no batch wastes any on padding. What is left of the budget
//! when no row fits any more is not wasted either, but more batches than needed are more updates for the same tokens.

use crate::random::SplitMix64;
use std::collections::BTreeSet;

/// Rows are packed in shuffled windows of about this many batches: enough for rows to find the gap they fit, few enough that a row has many
/// possible companions from epoch to epoch.
const BATCHES_PER_WINDOW: usize = 32;

/// Cuts `order` into batches of `rows_per_batch` rows, in order; the last one may be smaller.
pub fn by_rows(order: &[usize], rows_per_batch: usize) -> Vec<Vec<usize>> {
    order.chunks(rows_per_batch.max(1)).map(<[usize]>::to_vec).collect()
}

/// Batches `rows`, indices of these `lengths` (in tokens), so that no batch holds more than `max_tokens` tokens or `max_rows` rows; a row longer
/// than that gets a batch of its own.
///
/// Every one of the `rows` is in exactly one batch. Rows are shuffled and packed window by window, the longest first, each into the fullest
/// batch that still has room for it (best fit decreasing; Johnson, "Near-optimal bin packing algorithms", 1973); the emptiest batch of a window
/// is taken apart for the next. Then the batches are shuffled. All is decided by `seed` and `epoch`.
pub fn by_tokens(
    mut rows: Vec<usize>,
    lengths: &[usize],
    max_tokens: usize,
    max_rows: Option<usize>,
    seed: u64,
    epoch: u64,
) -> Vec<Vec<usize>> {
    let mut random = SplitMix64::keyed(&[seed, epoch]);
    random.shuffle(&mut rows);

    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut carried = Vec::new();
    for window in windows(rows, lengths, max_tokens.saturating_mul(BATCHES_PER_WINDOW)) {
        carried.extend(window);
        batches.extend(best_fit(carried, lengths, max_tokens, max_rows.unwrap_or(usize::MAX)));
        carried = batches.pop().unwrap_or_default();
    }
    if !carried.is_empty() {
        batches.push(carried);
    }
    random.shuffle(&mut batches);
    batches
}

/// Batches of `rows`, the emptiest last.
fn best_fit(mut rows: Vec<usize>, lengths: &[usize], max_tokens: usize, max_rows: usize) -> Vec<Vec<usize>> {
    // A stable sort: rows of equal length stay shuffled.
    rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    // The tokens still free in each batch.
    let mut free: Vec<usize> = Vec::new();
    let mut open = BTreeSet::new();
    for row in rows {
        let fullest = open.range((lengths[row], 0)..).next().copied();
        let batch = fullest.map_or(batches.len(), |(_, batch)| batch);
        match fullest {
            Some(place) => {
                open.remove(&place);
            }
            None => {
                batches.push(Vec::new());
                free.push(max_tokens);
            }
        }
        batches[batch].push(row);
        free[batch] = free[batch].saturating_sub(lengths[row]);
        if batches[batch].len() < max_rows && lengths[row] <= max_tokens {
            open.insert((free[batch], batch));
        }
    }
    if let Some(emptiest) = (0..batches.len()).max_by_key(|&batch| free[batch]) {
        let batch = batches.remove(emptiest);
        batches.push(batch);
    }
    batches
}

/// Cuts a batch of `rows` into consecutive parts of at most `max_tokens` tokens each, a longer row alone; 0 never cuts.
pub fn parts(rows: &[usize], lengths: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut n_tokens = 0;
    for &row in rows {
        n_tokens += lengths[row];
        match parts.last_mut() {
            Some(part) if max_tokens == 0 || n_tokens <= max_tokens => part.push(row),
            _ => {
                parts.push(vec![row]);
                n_tokens = lengths[row];
            }
        }
    }
    parts
}

/// Runs of `rows` with about `window_tokens` tokens each.
fn windows(rows: Vec<usize>, lengths: &[usize], window_tokens: usize) -> Vec<Vec<usize>> {
    let mut windows: Vec<Vec<usize>> = Vec::new();
    let mut n_tokens = window_tokens;
    for row in rows {
        match windows.last_mut() {
            Some(window) if n_tokens < window_tokens => window.push(row),
            _ => {
                windows.push(vec![row]);
                n_tokens = 0;
            }
        }
        n_tokens += lengths[row];
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arbitrary_lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0_usize..60, 0..400)
    }

    #[test]
    fn parts_are_consecutive_and_within_the_budget() {
        let lengths = [4, 3, 9, 1, 1];
        assert_eq!(parts(&[0, 1, 2, 3, 4], &lengths, 7), [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(parts(&[2, 0], &lengths, 0), [vec![2, 0]]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_batch(
            lengths in arbitrary_lengths(), max_tokens in 0_usize..200, max_rows in prop::option::of(0_usize..9), seed: u64, epoch in 0_u64..5,
        ) {
            let batches = by_tokens((0..lengths.len()).collect(), &lengths, max_tokens, max_rows, seed, epoch);
            prop_assert!(batches.iter().all(|batch| !batch.is_empty()));
            let mut rows = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn no_batch_is_over_the_budget(
            lengths in arbitrary_lengths(), max_tokens in 1_usize..200, max_rows in prop::option::of(1_usize..9), seed: u64,
        ) {
            for batch in by_tokens((0..lengths.len()).collect(), &lengths, max_tokens, max_rows, seed, 0) {
                let n_tokens: usize = batch.iter().map(|&row| lengths[row]).sum();
                prop_assert!(n_tokens <= max_tokens || batch.len() == 1, "{n_tokens} tokens in {batch:?}");
                prop_assert!(batch.len() <= max_rows.unwrap_or(usize::MAX));
            }
        }

        #[test]
        fn seed_and_epoch_decide(lengths in prop::collection::vec(1_usize..60, 60..200), seed: u64, epoch in 0_u64..100) {
            let batches = |seed, epoch| by_tokens((0..lengths.len()).collect(), &lengths, 128, None, seed, epoch);
            prop_assert_eq!(batches(seed, epoch), batches(seed, epoch));
            prop_assert_ne!(batches(seed, epoch), batches(seed, epoch + 1));
            prop_assert_ne!(batches(seed, epoch), batches(seed.wrapping_add(1), epoch));
        }

        #[test]
        fn by_rows_keeps_the_order(n in 0_usize..100, rows_per_batch in 1_usize..20) {
            let order = crate::split::order(n, 3);
            let batches = by_rows(&order, rows_per_batch);
            prop_assert_eq!(batches.len(), n.div_ceil(rows_per_batch));
            prop_assert!(batches.iter().rev().skip(1).all(|batch| batch.len() == rows_per_batch));
            prop_assert_eq!(batches.concat(), order);
        }
    }

    #[test]
    fn the_budget_is_used() {
        let mut random = SplitMix64::new(1);
        for (shortest, more, max_tokens, fill) in [(5, 120, 1024, 0.99), (5, 120, 256, 0.97), (60, 400, 512, 0.93)] {
            let lengths: Vec<usize> = (0..5000).map(|_| shortest + random.below(more)).collect();
            let batches = by_tokens((0..lengths.len()).collect(), &lengths, max_tokens, None, 1, 0);
            let found = lengths.iter().sum::<usize>() as f64 / (batches.len() * max_tokens) as f64;
            println!("{shortest} to {} tokens in {max_tokens}: {found:.4} full", shortest + more - 1);
            assert!(found > fill, "{} batches, {found} full", batches.len());
        }
    }

    /// By hand: of 5, 4, 3, 3, 2 in 6 the longest come first, and 2 fits behind 4.
    #[test]
    fn the_fullest_batch_with_room_is_taken() {
        let lengths = [3, 5, 2, 4, 3];
        assert_eq!(best_fit(vec![0, 1, 2, 3, 4], &lengths, 6, usize::MAX), [vec![3, 2], vec![0, 4], vec![1]]);
        assert_eq!(best_fit(vec![0, 1, 2, 3, 4], &lengths, 6, 1), [vec![1], vec![3], vec![0], vec![4], vec![2]]);
        assert_eq!(best_fit(vec![1], &lengths, 2, usize::MAX), [vec![1]], "longer than the budget");
    }

    #[test]
    fn short_and_long_batches_are_mixed() {
        let lengths: Vec<usize> = (0..2000).map(|row| 1 + row % 100).collect();
        let firsts: Vec<usize> = by_tokens((0..2000).collect(), &lengths, 500, None, 9, 0).iter().map(|batch| lengths[batch[0]]).collect();
        let rising = firsts.windows(2).filter(|pair| pair[0] <= pair[1]).count() as f64 / (firsts.len() - 1) as f64;
        assert!((0.35..0.65).contains(&rising), "{rising} of the batches are longer than the one before");
    }
}
