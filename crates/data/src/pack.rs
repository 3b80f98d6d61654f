//! Which rows share a batch.
//!
//! A batch is sequences laid end to end, so its size is a number of tokens, and no batch wastes any on padding. Sequences of
//! like length still go together: it keeps the number of rows per batch, and the work of attention, even within a batch.

use crate::random::SplitMix64;

/// A bucket, the run of shuffled rows that is sorted by length, holds about this many batches: enough for like lengths to
/// meet, few enough that a row has many possible companions from epoch to epoch.
const BATCHES_PER_BUCKET: usize = 32;

/// Cuts `order` into batches of `rows_per_batch` rows, in order; the last one may be smaller.
pub fn by_rows(order: &[usize], rows_per_batch: usize) -> Vec<Vec<usize>> {
    order.chunks(rows_per_batch.max(1)).map(<[usize]>::to_vec).collect()
}

/// Batches the rows with these `lengths` (in tokens) so that no batch holds more than `max_tokens` tokens or `max_rows` rows;
/// a row longer than that gets a batch of its own.
///
/// Every row is in exactly one batch. Rows are shuffled, sorted by length within buckets, cut into batches, and the batches
/// shuffled, all decided by `seed` and `epoch`.
pub fn by_tokens(lengths: &[usize], max_tokens: usize, max_rows: Option<usize>, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut random = SplitMix64::keyed(&[seed, epoch]);
    let mut rows: Vec<usize> = (0..lengths.len()).collect();
    random.shuffle(&mut rows);

    let mut batches = Vec::new();
    for bucket in buckets(rows, lengths, max_tokens.saturating_mul(BATCHES_PER_BUCKET)) {
        let (mut batch, mut n_tokens) = (Vec::new(), 0);
        for row in bucket {
            let is_full = n_tokens + lengths[row] > max_tokens || max_rows.is_some_and(|max| batch.len() >= max);
            if is_full && !batch.is_empty() {
                batches.push(std::mem::take(&mut batch));
                n_tokens = 0;
            }
            batch.push(row);
            n_tokens += lengths[row];
        }
        batches.push(batch);
    }
    random.shuffle(&mut batches);
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

/// Runs of `rows` with about `bucket_tokens` tokens each, sorted by length.
fn buckets(rows: Vec<usize>, lengths: &[usize], bucket_tokens: usize) -> Vec<Vec<usize>> {
    let mut buckets = Vec::new();
    let (mut bucket, mut n_tokens) = (Vec::new(), 0);
    for row in rows {
        if n_tokens >= bucket_tokens && !bucket.is_empty() {
            buckets.push(std::mem::take(&mut bucket));
            n_tokens = 0;
        }
        n_tokens += lengths[row];
        bucket.push(row);
    }
    if !bucket.is_empty() {
        buckets.push(bucket);
    }
    // A stable sort: rows of equal length stay shuffled.
    buckets.iter_mut().for_each(|bucket| bucket.sort_by_key(|&row| lengths[row]));
    buckets
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
            let batches = by_tokens(&lengths, max_tokens, max_rows, seed, epoch);
            prop_assert!(batches.iter().all(|batch| !batch.is_empty()));
            let mut rows = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn no_batch_is_over_the_budget(
            lengths in arbitrary_lengths(), max_tokens in 1_usize..200, max_rows in prop::option::of(1_usize..9), seed: u64,
        ) {
            for batch in by_tokens(&lengths, max_tokens, max_rows, seed, 0) {
                let n_tokens: usize = batch.iter().map(|&row| lengths[row]).sum();
                prop_assert!(n_tokens <= max_tokens || batch.len() == 1, "{n_tokens} tokens in {batch:?}");
                prop_assert!(batch.len() <= max_rows.unwrap_or(usize::MAX));
            }
        }

        #[test]
        fn seed_and_epoch_decide(lengths in prop::collection::vec(1_usize..60, 60..200), seed: u64, epoch in 0_u64..100) {
            let batches = |seed, epoch| by_tokens(&lengths, 128, None, seed, epoch);
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
    fn like_lengths_go_together_and_the_budget_is_used() {
        let mut random = SplitMix64::new(1);
        let lengths: Vec<usize> = (0..5000).map(|_| 5 + random.below(120)).collect();
        let batches = by_tokens(&lengths, 1024, None, 1, 0);
        let spread = |batch: &[usize]| {
            let of_batch = || batch.iter().map(|&row| lengths[row]);
            (of_batch().max().unwrap() - of_batch().min().unwrap()) as f64
        };
        let mean_spread = batches.iter().map(|batch| spread(batch)).sum::<f64>() / batches.len() as f64;
        assert!(mean_spread < 12.0, "lengths within a batch differ by {mean_spread}, of 120");
        let n_tokens: usize = lengths.iter().sum();
        assert!(batches.len() <= n_tokens.div_ceil(1024) * 11 / 10, "{} batches for {n_tokens} tokens", batches.len());
    }

    #[test]
    fn short_and_long_batches_are_mixed() {
        let lengths: Vec<usize> = (0..2000).map(|row| 1 + row % 100).collect();
        let firsts: Vec<usize> = by_tokens(&lengths, 500, None, 9, 0).iter().map(|batch| lengths[batch[0]]).collect();
        let rising = firsts.windows(2).filter(|pair| pair[0] <= pair[1]).count() as f64 / (firsts.len() - 1) as f64;
        assert!((0.35..0.65).contains(&rising), "{rising} of the batches are longer than the one before");
    }
}
