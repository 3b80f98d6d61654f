//! What a new head says before it has learnt anything: what the training rows are like on average.
//!
//! ```text
//! b_c = ln((n_c + 1) / (n + C)) of class c        b = Σ y / n of a number
//! ```
//!
//! n_c: the items of class c among n of C classes; y: the numbers. As the bias of a head it makes the first loss that of the frequencies. Without
//! it the trunk has to say them: where nearly all words have one tag, every word pushes all weights the same way until it does, which undoes what
//! they had learnt before, and what other heads would read from them.
//!
//! Source: Lin et al., arXiv:1708.02002, Section 4.1.
//! Differs from the source: the frequencies are those of the training rows, instead of one small number for all rare classes, and one item is
//! added to each class, so that a class without any has a finite bias.

/// The bias of a head for `n_classes` classes, `[classes]`.
pub fn of_classes(classes: impl IntoIterator<Item = u32>, n_classes: usize) -> Vec<f32> {
    let mut counts = vec![1usize; n_classes];
    classes.into_iter().for_each(|class| counts[class as usize] += 1);
    let n: usize = counts.iter().sum();
    counts.into_iter().map(|count| (count as f64 / n as f64).ln() as f32).collect()
}

/// The bias of a head for a number, `[1]`.
pub fn of_numbers(numbers: impl IntoIterator<Item = f32>) -> Vec<f32> {
    let (sum, n) = numbers.into_iter().fold((0.0, 0.0), |(sum, n), number| (sum + f64::from(number), n + 1.0));
    vec![(sum / n) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_by_hand() {
        // 4 + 1, 1 + 1 and 0 + 1 of 5 + 3.
        let found = of_classes([0, 0, 1, 0, 0], 3);
        let expected = [5.0f64, 2.0, 1.0].map(|count| (count / 8.0).ln() as f32);
        assert_eq!(found, expected);
        assert!((found.iter().map(|bias| bias.exp()).sum::<f32>() - 1.0).abs() < 1e-6, "they are log-probabilities");
    }

    #[test]
    fn a_number_is_at_first_the_mean() {
        assert_eq!(of_numbers([1.0, 4.0, 4.0]), [3.0]);
    }
}
