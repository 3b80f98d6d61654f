//! Reweighing and resampling: rows count, or come, as often as if their label did not depend on their group.
//!
//! ```text
//! w(g, y) = P(g)·P(y) / P(g, y)        reweighing: loss = Σ_i w(g_i, y_i)·ce_i / Σ_i w(g_i, y_i)
//! n(g, y) = |g|·|y| / n                resampling: an epoch sees so many rows of group g and label y
//! ```
//!
//! P: shares among the training rows; ce_i: the cross-entropy of row i; |g|, |y|: rows of the group and of the label; n: all rows.
//! Source: Kamiran and Calders, "Data preprocessing techniques for classification without discrimination" (2012), the algorithms Reweighing and
//! Uniform Sampling.  Differs from the source: any number of groups and labels; rows are drawn anew in each epoch, and without replacement until
//! all rows of a group and label have come equally often.

use kiln_kernels::random::Key;

/// How much a row of each cell counts; 0 where a cell has no rows.
///
/// # Shapes
/// `counts`: rows by group and label, `[groups, n_labels]`; so is the result.
pub fn weights(counts: &[usize], n_labels: usize) -> Vec<f64> {
    let weight = |(expected, &count): (f64, &usize)| if count == 0 { 0.0 } else { expected / count as f64 };
    independent(counts, n_labels).into_iter().zip(counts).map(weight).collect()
}

/// Rows by group and label as they would be if the label did not depend on the group; none in a cell without rows.
///
/// # Shapes
/// As [`weights`].
pub fn independent(counts: &[usize], n_labels: usize) -> Vec<f64> {
    let total = counts.iter().sum::<usize>().max(1) as f64;
    let of_label = |label: usize| counts.iter().skip(label).step_by(n_labels).sum::<usize>() as f64;
    let of_labels: Vec<f64> = (0..n_labels).map(of_label).collect();
    let row = |row: &[usize]| {
        let of_group = row.iter().sum::<usize>() as f64;
        row.iter().zip(&of_labels).map(|(&count, of_label)| if count == 0 { 0.0 } else { of_group * of_label / total }).collect::<Vec<_>>()
    };
    counts.chunks_exact(n_labels).flat_map(row).collect()
}

/// Rows of one epoch, so many of each cell as `targets` says, rounded: every row of a cell as often as any other, or once more. Those that come
/// once more are the next ones of a fixed order of the cell, which goes on from epoch to epoch.
///
/// `rows` are the indices of all rows, `cells` the cell of each.
pub fn draw(rows: &[usize], cells: &[usize], targets: &[f64], key: Key, epoch: u64) -> Vec<usize> {
    let mut of_cells = vec![Vec::new(); targets.len()];
    rows.iter().zip(cells).for_each(|(&row, &cell)| of_cells[cell].push(row));
    let mut drawn = Vec::with_capacity(rows.len());
    for (cell, (rows, target)) in of_cells.iter().zip(targets).enumerate().filter(|(_, (rows, _))| !rows.is_empty()) {
        let (n, target) = (rows.len(), target.round() as usize);
        (0..target / n).for_each(|_| drawn.extend(rows));
        let n_more = target % n;
        let first = (u128::from(epoch) * n_more as u128 % n as u128) as usize;
        let order = key.fold(cell as u64).permutation(n);
        drawn.extend(order.iter().cycle().skip(first).take(n_more).map(|&place| rows[place]));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the example of the paper: of 10 applicants 5 are men, of whom 4 were hired, and 5 women, of whom 2 were. A man who
    /// was hired counts 0.5·0.6 / 0.4 = 0.75, one who was not 0.5·0.4 / 0.1 = 2, a woman who was hired 1.5, one who was not 0.67.
    #[test]
    fn weights_by_hand() {
        let found = weights(&[1, 4, 3, 2], 2);
        for (found, expected) in found.iter().zip([2.0, 0.75, 2.0 / 3.0, 1.5]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(weights(&[4, 4, 2, 2], 2), [1.0; 4], "independent already");
    }

    /// Three groups and three labels, one cell empty: weighted, each group has the same shares of the labels, but for that cell.
    #[test]
    fn weighted_rows_are_independent() {
        let counts = [9, 1, 2, 3, 8, 4, 5, 6, 7];
        let found = weights(&counts, 3);
        let weighted: Vec<f64> = found.iter().zip(counts).map(|(weight, count)| weight * count as f64).collect();
        for row in weighted.chunks_exact(3) {
            let total: f64 = row.iter().sum();
            let shares: Vec<f64> = row.iter().map(|weighted| weighted / total).collect();
            for (share, expected) in shares.iter().zip([17.0, 15.0, 13.0]) {
                assert!((share - expected / 45.0).abs() < 1e-12);
            }
        }
        assert!((weighted.iter().sum::<f64>() - 45.0).abs() < 1e-12, "the mean weight is 1");
        assert_eq!(weights(&[5, 0, 1, 4], 2)[1], 0.0);
    }

    #[test]
    fn all_rows_of_a_cell_come_as_often() {
        // 3 rows of cell 0 of which 5 are wanted, 4 of cell 1 of which 3 are.
        let (rows, cells) = ([10, 11, 12, 13, 14, 15, 16], [0, 0, 0, 1, 1, 1, 1]);
        let mut times = [0; 17];
        for epoch in 0..12 {
            let drawn = draw(&rows, &cells, &[5.0, 3.2], Key::new(3), epoch);
            assert_eq!(drawn.iter().filter(|&&row| row < 13).count(), 5);
            assert_eq!(drawn.len(), 8);
            drawn.iter().for_each(|&row| times[row] += 1);
        }
        assert_eq!(times[10..], [20, 20, 20, 9, 9, 9, 9]);
        assert_eq!(draw(&rows, &cells, &[0.0, 4.0], Key::new(3), 1), [13, 14, 15, 16]);
    }
}
