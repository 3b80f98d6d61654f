//! Replay: every update also sees rows of what came before.
//!
//! Source: Rolnick et al., "Experience Replay for Continual Learning", arXiv:1811.11682; for language models Ibrahim et al.,
//! arXiv:2403.08763, Section 4.
//! Differs from the source: nothing is drawn at random with replacement. The sources take turns, row by row, and each is gone through in a
//! shuffled order before one of its rows comes again.

use kiln_data::split::order;
use kiln_kernels::random::Key;
use std::collections::BTreeMap;

/// A row: which corpus it is of, and its number there.
pub type RowId = (usize, usize);

/// The updates of one domain: `batches` are rows of the corpus `domain`, and each gets rows of `sources` on top, so that these are
/// `share` of all. A source is a corpus and how many rows it has. `key` orders them; `share` 0 or no source adds nothing.
pub fn plan(batches: &[Vec<usize>], domain: usize, sources: &[(usize, usize)], share: f64, key: Key) -> Vec<Vec<RowId>> {
    let mut orders: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    let mut row = |number: usize| {
        let (corpus, n_rows) = sources[number % sources.len()];
        let turn = number / sources.len();
        let pass = turn / n_rows;
        let order = orders.entry((corpus, pass)).or_insert_with(|| order(n_rows, key.fold(corpus as u64).bits(pass as u64)));
        (corpus, order[turn % n_rows])
    };
    let per_row = if sources.is_empty() { 0.0 } else { share / (1.0 - share) };
    let (mut n_own, mut n_replayed) = (0, 0);
    let update = |batch: &Vec<usize>| {
        n_own += batch.len();
        // Rounded over the whole run, so that small batches come to the share too.
        let wanted = (n_own as f64 * per_row).round() as usize;
        let replayed = (n_replayed..wanted).map(&mut row).collect::<Vec<_>>();
        n_replayed = wanted;
        batch.iter().map(|&row| (domain, row)).chain(replayed).collect()
    };
    batches.iter().map(update).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(n_rows: usize, batch_rows: usize) -> Vec<Vec<usize>> {
        (0..n_rows).collect::<Vec<_>>().chunks(batch_rows).map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn the_share_is_kept_and_sources_take_turns() {
        for (share, batch_rows) in [(0.1, 4), (0.25, 32), (0.5, 7), (0.8, 3)] {
            let plan = plan(&batches(600, batch_rows), 2, &[(0, 50), (1, 9)], share, Key::new(3));
            let all = plan.concat();
            let own: Vec<RowId> = all.iter().copied().filter(|(corpus, _)| *corpus == 2).collect();
            assert_eq!(own, (0..600).map(|row| (2, row)).collect::<Vec<_>>(), "the domain's rows as they were");
            let of = |corpus| all.iter().filter(|(other, _)| *other == corpus).count();
            assert!(((of(0) + of(1)) as f64 - share * all.len() as f64).abs() <= 1.0, "{share}: {} + {} of {}", of(0), of(1), all.len());
            assert!(of(0).abs_diff(of(1)) <= 1);
            let mut times = vec![0; 9];
            all.iter().filter(|(corpus, _)| *corpus == 1).for_each(|&(_, row)| times[row] += 1);
            let (least, most) = (times.iter().min().expect("nine"), times.iter().max().expect("nine"));
            assert!(most - least <= 1, "every row before one again: {times:?}");
        }
    }

    #[test]
    fn the_order_is_the_keys() {
        let with = |key| plan(&batches(100, 8), 1, &[(0, 40)], 0.5, Key::new(key));
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn without_a_share_or_a_source_nothing_is_added() {
        let plain: Vec<Vec<RowId>> = batches(10, 4).iter().map(|batch| batch.iter().map(|&row| (1, row)).collect()).collect();
        assert_eq!(plan(&batches(10, 4), 1, &[(0, 5)], 0.0, Key::new(1)), plain);
        assert_eq!(plan(&batches(10, 4), 1, &[], 0.5, Key::new(1)), plain);
    }
}
