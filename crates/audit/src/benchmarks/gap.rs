//! How far the means of groups lie apart at most, and whether chance makes as much of it.

use kiln_eval::bootstrap::mean;
use kiln_kernels::random::Key;
use std::collections::BTreeMap;

/// How often values are dealt out anew.
const N_PERMUTATIONS: u64 = 1000;

/// The largest mean of a group's values less the smallest.
pub fn largest_gap(values: &[Vec<f64>]) -> f64 {
    let means = values.iter().map(|values| mean(values));
    means.clone().fold(f64::NEG_INFINITY, f64::max) - means.fold(f64::INFINITY, f64::min)
}

/// The share of ways to deal the values of each block out to the groups anew that have a gap at least as large. A value stands with its block: what is
/// alike but for the group.
pub fn p_of_gap(of_groups: &[Vec<(usize, f64)>], seed: u64) -> f64 {
    let values: Vec<Vec<f64>> = of_groups.iter().map(|group| group.iter().map(|(_, value)| *value).collect()).collect();
    let mut blocks: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (group, of_group) in of_groups.iter().enumerate() {
        of_group.iter().enumerate().for_each(|(index, (block, _))| blocks.entry(*block).or_default().push((group, index)));
    }
    let found = largest_gap(&values);
    let is_as_large = |&draw: &u64| {
        let mut dealt = values.clone();
        for (&block, slots) in &blocks {
            let order = Key::new(seed).fold(draw).fold(block as u64).permutation(slots.len());
            for (&(group, index), other) in slots.iter().zip(order) {
                let (from_group, from_index) = slots[other];
                dealt[group][index] = values[from_group][from_index];
            }
        }
        largest_gap(&dealt) >= found - 1e-12
    };
    (1 + (0..N_PERMUTATIONS).filter(is_as_large).count()) as f64 / (1 + N_PERMUTATIONS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n_groups` groups of `n` uniform values, each block one of each group; in a block all values are raised alike.
    fn drawn(seed: u64, n_groups: usize, n: usize) -> Vec<Vec<(usize, f64)>> {
        let key = Key::new(seed);
        let value = |group: usize, block: usize| block as f64 + f64::from(key.fold(group as u64).uniform(block as u64));
        (0..n_groups).map(|group| (0..n).map(|block| (block, value(group, block))).collect()).collect()
    }

    #[test]
    fn p_is_uniform_where_groups_are_alike() {
        let found: Vec<f64> = (0..30).map(|seed| p_of_gap(&drawn(seed, 4, 60), seed)).collect();
        assert!((0.35..0.65).contains(&mean(&found)), "{found:?}");
        // 1.5 are expected; more than 5 would come once in 300 times.
        assert!(found.iter().filter(|p| **p < 0.05).count() <= 5, "{found:?}");
    }

    #[test]
    fn what_blocks_differ_by_hides_no_gap() {
        let mut groups = drawn(3, 3, 60);
        groups[1].iter_mut().for_each(|(_, value)| *value += 0.3);
        assert!(p_of_gap(&groups, 1) < 0.01, "values of blocks lie up to 60 apart, the groups 0.3");
        let values: Vec<Vec<f64>> = groups.iter().map(|group| group.iter().map(|(_, value)| *value).collect()).collect();
        assert!((0.2..0.45).contains(&largest_gap(&values)));
    }
}
