//! How likely each number of a file is wrong, by how far it lies from what a model says that has not seen it.
//!
//! A wrong number is taken to say nothing of its row: as if it had been dealt out from all numbers of the file at random. How far such numbers
//! lie from the predictions is known, by pairing predictions and numbers of all rows. What remains of the rows that lie far is right but hard:
//!
//! ```text
//! d_i       = |number_i - prediction_i|
//! W(d)      = share of pairs, of any row's number and any row's prediction, at least d apart
//! share     = min over d of (share of rows with d_i ≥ d) / W(d)             the most that can be dealt out
//! P(wrong)  = share · w(d_i) / f(d_i)                                       w, f: densities of d among pairs and rows
//! ```
//!
//! The ratio of densities is the isotonic fit to the pairs between each two neighbouring distances of rows: it never falls as the distance grows.
//! The minimum is over distances that a fiftieth of the rows reaches, because of fewer the share is a matter of luck.
//!
//! Source: the local false discovery rate of Efron, Tibshirani, Storey and Tusher (2001), doi:10.1198/016214501753382129, the other way round:
//! here what is wrong has the known distribution. The share is estimated as in Storey (2002), doi:10.1111/1467-9868.00346.
//! Differs from cleanlab's detection in numbers (Zhou et al., arXiv:2305.16583), which ranks residuals in units of their uncertainty and removes
//! the share after which models fit best, by training anew for each: residuals as they are rank better on real data (`docs/audit.md`).

/// Of so many rows one must lie as far, for the share of wrong numbers to be estimated there.
const ROWS_PER_FAR_ONE: usize = 50;

/// Numbers and predictions that are paired at most, evenly spaced by rank.
const MOST_PAIRED: usize = 1000;

/// What distances from predictions say.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The most rows whose number can be dealt out at random, as a share.
    pub share: f64,
    /// Of each row, the probability that its number is.
    pub probabilities: Vec<f64>,
}

/// How likely each number is wrong. `numbers`: of each row the predicted number, and its own.
pub fn estimate(numbers: &[(f64, f64)]) -> Estimate {
    let n = numbers.len();
    let furthest = furthest_first(numbers);
    let pairs = paired_distances(numbers);
    let among_pairs = |d: f64| (pairs.len() - pairs.partition_point(|&pair| pair < d)) as f64 / pairs.len() as f64;
    let at_least = n.div_ceil(ROWS_PER_FAR_ONE);
    let (mut share, mut n_before, mut pairs_before) = (1.0_f64, 0, 0.0);
    // Rows of one distance, the share of pairs between it and the next larger one for each of them.
    let mut between = Vec::new();
    for same in furthest.chunk_by(|&a, &b| distance(numbers[a]) == distance(numbers[b])) {
        let reached = among_pairs(distance(numbers[same[0]]));
        n_before += same.len();
        if n_before >= at_least && reached > 0.0 {
            share = share.min(n_before as f64 / n as f64 / reached);
        }
        between.push(((reached - pairs_before) / same.len() as f64, same.len()));
        pairs_before = reached;
    }
    let mut probabilities = vec![0.0; n];
    for (&row, pairs) in furthest.iter().zip(falling(between)) {
        probabilities[row] = (share * n as f64 * pairs).min(1.0);
    }
    Estimate { share, probabilities }
}

/// The rows whose number is likelier wrong than right, the furthest from its prediction first, with their probabilities. None where half of all
/// numbers could be wrong: there the model knows too little of them.
pub fn likelier_wrong(numbers: &[(f64, f64)]) -> Vec<(usize, f64)> {
    let Estimate { share, probabilities } = estimate(numbers);
    if share >= 0.5 {
        return Vec::new();
    }
    let found = furthest_first(numbers).into_iter().map(|row| (row, probabilities[row]));
    found.filter(|(_, probability)| *probability >= 0.5).collect()
}

fn distance((predicted, number): (f64, f64)) -> f64 {
    (number - predicted).abs()
}

fn furthest_first(numbers: &[(f64, f64)]) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..numbers.len()).collect();
    rows.sort_by(|&a, &b| distance(numbers[b]).total_cmp(&distance(numbers[a])));
    rows
}

/// How far numbers are from predictions of other rows, in rising order.
fn paired_distances(numbers: &[(f64, f64)]) -> Vec<f64> {
    let spaced = |side: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = numbers.iter().map(side).collect();
        values.sort_by(f64::total_cmp);
        let taken = values.len().min(MOST_PAIRED);
        (0..taken).map(|place| values[(2 * place + 1) * values.len() / (2 * taken)]).collect::<Vec<_>>()
    };
    let (predicted, own) = (spaced(|pair| pair.0), spaced(|pair| pair.1));
    let mut distances: Vec<f64> = predicted.iter().flat_map(|a| own.iter().map(move |b| (a - b).abs())).collect();
    distances.sort_by(f64::total_cmp);
    distances
}

/// The sequence nearest to `values`, each of which stands there so many times, by squares, that never rises: neighbours that rise are put together
/// until none does.
fn falling(values: Vec<(f64, usize)>) -> Vec<f64> {
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for mut block in values {
        while let Some(&(mean, count)) = blocks.last().filter(|(mean, _)| *mean < block.0) {
            blocks.pop();
            let both = count + block.1;
            block = ((mean * count as f64 + block.0 * block.1 as f64) / both as f64, both);
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    /// Numbers from 0 to 5, predicted with an error of a sum of three uniform ones, the first `n_wrong` dealt out at random.
    fn drawn(n: u64, n_wrong: u64, seed: u64) -> Vec<(f64, f64)> {
        let key = Key::new(seed);
        let uniform = |stream: u64, row: u64| f64::from(key.fold(stream).uniform(row));
        let row = |row: u64| {
            let truth = 5.0 * uniform(0, row);
            let error = (1..4).map(|stream| uniform(stream, row) - 0.5).sum::<f64>();
            (truth + error, if row < n_wrong { 5.0 * uniform(4, row) } else { truth })
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn blocks_that_rise_are_put_together() {
        let found = falling(vec![(3.0, 1), (1.0, 1), (2.0, 1), (0.5, 2), (1.25, 1)]);
        assert_eq!(found, [3.0, 1.5, 1.5, 0.75, 0.75, 0.75]);
    }

    #[test]
    fn numbers_dealt_out_at_random_are_found_and_about_as_many_as_is_said() {
        for seed in 0..5 {
            let (numbers, n_wrong) = (drawn(1000, 100, seed), 100);
            let found = likelier_wrong(&numbers);
            let right = found.iter().filter(|(row, _)| *row < n_wrong).count() as f64;
            let said: f64 = found.iter().map(|(_, probability)| probability).sum();
            assert!(right / found.len() as f64 > 0.8 && right > 45.0, "{} found, {right} of them wrong", found.len());
            // The smallest of many ratios is rather too small than too large.
            assert!((0.65..1.1).contains(&(said / right)), "{right} wrong of {}, said {said}", found.len());
            let probabilities = estimate(&numbers).probabilities;
            let rows = furthest_first(&numbers);
            assert!(rows.windows(2).all(|two| probabilities[two[0]] >= probabilities[two[1]]), "a row further off is likelier wrong");
        }
    }

    #[test]
    fn of_right_numbers_few_are_found_whatever_the_unit() {
        let numbers = drawn(1000, 0, 7);
        assert!(likelier_wrong(&numbers).len() <= 20);
        let (numbers, scaled) = (drawn(1000, 100, 7), |(a, b): &(f64, f64)| (64.0 * a, 64.0 * b));
        assert_eq!(likelier_wrong(&numbers), likelier_wrong(&numbers.iter().map(scaled).collect::<Vec<_>>()));
    }

    #[test]
    fn where_the_model_knows_nothing_no_number_is_named() {
        let unknown: Vec<(f64, f64)> = drawn(1000, 1000, 3);
        assert!(estimate(&unknown).share > 0.8);
        for numbers in [&unknown[..], &[(1.0, 1.0); 4], &[(1.0, 2.0); 60], &[]] {
            assert!(likelier_wrong(numbers).is_empty());
        }
    }
}
