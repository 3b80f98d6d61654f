//! Which rows of which task are in each batch.
//!
//! ```text
//! p_i = n_i^(1/T) / Σ_j n_j^(1/T)
//! ```
//!
//! n_i: the rows of task i, by the weights of their files; T: the temperature, 1 for proportional and ∞ for uniform sampling. An epoch is Σ n_i rows, of which task i gets the
//! share p_i, spread so evenly that at any place it is within a row or so of what it should have: with proportional sampling every row is in an
//! epoch once. A task that has too few rows begins anew, in another order.
//!
//! Source: Raffel et al., arXiv:1910.10683, Section 3.5.2.
//! Differs from the source: tasks are not drawn at random for each row, and there is no limit on n_i.

use crate::config::{MultitaskConfig, Sampling};

/// A row of a batch: its task, and its place among the task's rows.
pub type Pick = (usize, usize);

/// The share of each task, of `sizes` rows.
pub fn shares(sizes: &[usize], sampling: Sampling, temperature: f64) -> Vec<f64> {
    let exponent = match sampling {
        Sampling::Uniform => 0.0,
        Sampling::Proportional => 1.0,
        Sampling::Temperature => 1.0 / temperature,
    };
    let powers: Vec<f64> = sizes.iter().map(|&size| (size as f64).powf(exponent)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The rows of every update of a run over tasks of `sizes` rows, those of a task side by side. `order` is that of a task's rows when they are
/// dealt for the first time, the second and so on.
pub fn batches(config: &MultitaskConfig, sizes: &[usize], order: impl Fn(usize, u64) -> Vec<usize>) -> Vec<Vec<Pick>> {
    let shares = shares(sizes, config.sampling, config.temperature);
    let n_rows: usize = sizes.iter().sum();
    let mut decks: Vec<Deck> = sizes.iter().map(|&size| Deck { size, n_dealt: 0, order: Vec::new() }).collect();
    let per_epoch = n_rows.div_ceil(config.batch_rows);
    let n_steps = if config.steps > 0 { config.steps } else { config.epochs * per_epoch };
    let mut batches = Vec::with_capacity(n_steps);
    for epoch in 0..n_steps.div_ceil(per_epoch) {
        let tasks = turns(&shares, n_rows);
        for tasks in tasks.chunks(config.batch_rows).take(n_steps - epoch * per_epoch) {
            let mut tasks = tasks.to_vec();
            tasks.sort_unstable();
            batches.push(tasks.into_iter().map(|task| (task, decks[task].deal(|pass| order(task, pass)))).collect());
        }
    }
    batches
}

/// Whose turn it is at each of `n` places: always the task that is furthest behind its share, of equals the first.
fn turns(shares: &[f64], n: usize) -> Vec<usize> {
    let mut given = vec![0.0; shares.len()];
    let mut turns = Vec::with_capacity(n);
    for place in 1..=n {
        let behind = |task: usize| shares[task] * place as f64 - given[task];
        // Shares are rounded: what differs by less than their rounding is equal.
        let next = (0..shares.len()).reduce(|best, task| if behind(task) > behind(best) + 1e-9 { task } else { best });
        let next = next.expect("there is a task");
        given[next] += 1.0;
        turns.push(next);
    }
    turns
}

/// The rows of a task, again and again, each time in another order.
struct Deck {
    size: usize,
    n_dealt: usize,
    order: Vec<usize>,
}

impl Deck {
    fn deal(&mut self, order: impl Fn(u64) -> Vec<usize>) -> usize {
        let place = self.n_dealt % self.size;
        if place == 0 {
            self.order = order((self.n_dealt / self.size) as u64);
        }
        self.n_dealt += 1;
        self.order[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_data::split::order;
    use std::collections::BTreeMap;

    fn config(batch_rows: usize, epochs: usize, sampling: Sampling) -> MultitaskConfig {
        MultitaskConfig { batch_rows, epochs, sampling, ..MultitaskConfig::default() }
    }

    /// Of rows that all come once in an epoch.
    fn batches(config: &MultitaskConfig, sizes: &[usize]) -> Vec<Vec<Pick>> {
        super::batches(config, sizes, |task, pass| order(sizes[task], config.seed.wrapping_add(pass)))
    }

    #[test]
    fn shares_by_hand() {
        let close = |found: Vec<f64>, expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12), "{found:?} {expected:?}");
        };
        close(shares(&[90, 10], Sampling::Proportional, 2.0), [0.9, 0.1]);
        close(shares(&[90, 10], Sampling::Uniform, 2.0), [0.5, 0.5]);
        // Square roots 3√10 and √10.
        close(shares(&[90, 10], Sampling::Temperature, 2.0), [0.75, 0.25]);
        close(shares(&[90, 10], Sampling::Temperature, 1.0), [0.9, 0.1]);
    }

    #[test]
    fn in_proportion_every_row_is_in_an_epoch_once_and_every_batch_has_its_share() {
        let sizes = [70, 200, 33, 1];
        let batches = batches(&config(32, 2, Sampling::Proportional), &sizes);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [vec![32; 9], vec![16]].concat().repeat(2));
        for epoch in batches.chunks(10) {
            let mut rows = epoch.concat();
            rows.sort_unstable();
            let all: Vec<Pick> = sizes.iter().enumerate().flat_map(|(task, &size)| (0..size).map(move |row| (task, row))).collect();
            assert_eq!(rows, all);
            for batch in &epoch[..9] {
                for (task, &size) in sizes.iter().enumerate() {
                    let n = batch.iter().filter(|pick| pick.0 == task).count() as f64;
                    assert!((n - 32.0 * size as f64 / 304.0).abs() <= 2.0, "{n} of task {task}");
                }
            }
        }
        assert_ne!(batches[0], batches[10]);
    }

    #[test]
    fn small_tasks_begin_anew() {
        let mut config = config(10, 1, Sampling::Uniform);
        config.steps = 7;
        let batches = batches(&config, &[4, 36]);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [10; 7]);
        let mut times: BTreeMap<Pick, usize> = BTreeMap::new();
        batches.concat().into_iter().for_each(|pick| *times.entry(pick).or_default() += 1);
        assert!((0..4).all(|row| (8..=9).contains(&times[&(0, row)])), "{times:?}");
        assert!((0..36).all(|row| times.get(&(1, row)).is_none_or(|&n| n <= 1)), "{times:?}");
        let firsts: Vec<usize> = batches.concat().iter().filter(|pick| pick.0 == 0).map(|pick| pick.1).collect();
        assert_ne!(firsts[..4], firsts[4..8]);
    }

    #[test]
    fn a_task_alone_is_read_in_the_order_of_the_seed() {
        let batches = batches(&config(4, 2, Sampling::Proportional), &[6]);
        let of = |order: Vec<usize>| order.chunks(4).map(|rows| rows.iter().map(|&row| (0, row)).collect()).collect::<Vec<Vec<Pick>>>();
        assert_eq!(batches, [of(order(6, 0)), of(order(6, 1))].concat());
    }
}
