//! Classes with too few rows.

/// A class is rare with less than this share of the rows it would have if all had as many.
pub const RARE: f64 = 0.1;

/// The classes that are rare, with their rows; of those that have any.
///
/// ```
/// use kiln_audit::balance::rare;
///
/// let labels: Vec<usize> = [vec![0; 60], vec![1; 38], vec![2; 2]].concat();
/// assert_eq!(rare(&labels), [(2, 2)]);
/// ```
pub fn rare(labels: &[usize]) -> Vec<(usize, usize)> {
    let counts = counts(labels);
    let n_classes = counts.iter().filter(|count| **count > 0).count();
    let fewest = RARE * labels.len() as f64 / n_classes as f64;
    counts.into_iter().enumerate().filter(|&(_, count)| count > 0 && (count as f64) < fewest).collect()
}

/// How many rows each class has.
pub fn counts(labels: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; labels.iter().max().map_or(0, |last| last + 1)];
    labels.iter().for_each(|&label| counts[label] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_classes_are_not_rare_however_many() {
        let labels: Vec<usize> = (0..770).map(|row| row % 77).collect();
        assert!(rare(&labels).is_empty());
        assert!(rare(&[]).is_empty());
        // A tenth of an even share is 5 rows of 100 in two classes.
        assert!(rare(&[vec![0; 95], vec![4; 5]].concat()).is_empty());
        assert_eq!(rare(&[vec![0; 96], vec![4; 4]].concat()), [(4, 4)]);
    }
}
