//! Ranks with ties, as rank correlations and areas under curves need them.

/// The place of each value in ascending order, from 1; equal values share the mean of their places. `None` if a value is NaN,
/// which has no place.
pub(crate) fn ranks(values: &[f64]) -> Option<Vec<f64>> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut n_below = 0;
    // Not by `total_cmp`, which tells -0 from 0.
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &index in tied {
            ranks[index] = n_below as f64 + (tied.len() + 1) as f64 / 2.0;
        }
        n_below += tied.len();
    }
    Some(ranks)
}

#[cfg(test)]
mod tests {
    use super::ranks;

    #[test]
    fn ties_share_the_mean_of_their_places() {
        assert_eq!(ranks(&[30.0, 10.0, 20.0, 10.0, 10.0]), Some(vec![5.0, 2.0, 4.0, 2.0, 2.0]));
        assert_eq!(ranks(&[0.0, -0.0, f64::NEG_INFINITY]), Some(vec![2.5, 2.5, 1.0]));
        assert_eq!(ranks(&[]), Some(vec![]));
        assert_eq!(ranks(&[1.0, f64::NAN]), None);
    }
}
