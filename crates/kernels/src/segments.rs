//! Where each sequence of a packed batch starts and ends.

use std::ops::Range;
use std::sync::Arc;

/// The boundaries of sequences laid end to end: `[0, 7, 18]` is a sequence of 7 tokens, then one of 11.
///
/// Held on the host and cheap to clone. A sequence may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    bounds: Arc<[usize]>,
}

impl Segments {
    /// Segments of the given lengths, in tokens.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0;
        let ends = lengths.into_iter().map(|length| {
            end += length;
            end
        });
        Self { bounds: std::iter::once(0).chain(ends).collect() }
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of all sequences together.
    pub fn n_tokens(&self) -> usize {
        self.bounds[self.len()]
    }

    /// The token rows of sequence `index`.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.bounds[index]..self.bounds[index + 1]
    }

    /// The token rows of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.bounds.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Tokens of the longest sequence, 0 if there is none.
    pub fn longest(&self) -> usize {
        self.ranges().map(|range| range.len()).max().unwrap_or(0)
    }

    /// Each token's position within its own sequence, `[tokens]`.
    pub fn positions(&self) -> Vec<usize> {
        self.ranges().flat_map(|range| 0..range.len()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_become_ranges_and_positions() {
        let segments = Segments::from_lengths([3, 0, 2]);
        assert_eq!(segments.len(), 3);
        assert_eq!(segments.n_tokens(), 5);
        assert_eq!(segments.ranges().collect::<Vec<_>>(), [0..3, 3..3, 3..5]);
        assert_eq!(segments.positions(), [0, 1, 2, 0, 1]);
        assert_eq!(segments.longest(), 3);
    }
}
