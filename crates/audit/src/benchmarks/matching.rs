//! What two sequences have in common: the blocks that Ratcliff and Obershelp's matching finds.
//!
//! The longest block that both have, of equally long ones the first in `a`, then the first in `b`; then the same left and right of it. It is what
//! `get_opcodes` of Python's difflib calls equal, by which CrowS-Pairs is defined. difflib's leaving out of frequent elements, in sequences
//! of 200 and more, is not repeated.
//!
//! Source: Ratcliff and Metzener, "Pattern Matching: The Gestalt Approach", Dr. Dobb's Journal (1988).

use std::ops::Range;

/// The places in `a` and in `b` of what both have, in order.
///
/// ```
/// use kiln_audit::benchmarks::matching::common;
///
/// let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
/// let (a, b) = (words("he told her that he left"), words("my aunt told him that she left"));
/// assert_eq!(common(&a, &b), [(1, 2), (3, 4), (5, 6)]);
/// ```
pub fn common<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    match_within(a, b, 0..a.len(), 0..b.len(), &mut pairs);
    pairs
}

fn match_within<T: PartialEq>(a: &[T], b: &[T], in_a: Range<usize>, in_b: Range<usize>, pairs: &mut Vec<(usize, usize)>) {
    let (start_a, start_b, length) = longest_block(a, b, in_a.clone(), in_b.clone());
    if length == 0 {
        return;
    }
    match_within(a, b, in_a.start..start_a, in_b.start..start_b, pairs);
    pairs.extend((0..length).map(|step| (start_a + step, start_b + step)));
    match_within(a, b, start_a + length..in_a.end, start_b + length..in_b.end, pairs);
}

/// Where the longest block starts in both, and its length.
fn longest_block<T: PartialEq>(a: &[T], b: &[T], in_a: Range<usize>, in_b: Range<usize>) -> (usize, usize, usize) {
    let mut best = (in_a.start, in_b.start, 0);
    // The length of the block that ends at each place of `b` and at the last place of `a`.
    let mut ending = vec![0; in_b.len()];
    for place_a in in_a {
        let mut before = 0;
        for (ending, place_b) in ending.iter_mut().zip(in_b.clone()) {
            let here = if a[place_a] == b[place_b] { before + 1 } else { 0 };
            before = std::mem::replace(ending, here);
            if here > best.2 {
                best = (place_a + 1 - here, place_b + 1 - here, here);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    #[test]
    fn equal_sequences_match_whole_and_others_not_at_all() {
        assert_eq!(common(&[1, 2, 3], &[1, 2, 3]), [(0, 0), (1, 1), (2, 2)]);
        assert!(common(&[1, 2], &[3, 4]).is_empty() && common::<u32>(&[], &[1]).is_empty());
    }

    #[test]
    fn the_longest_block_comes_first_and_of_equal_ones_the_first() {
        // difflib: the block 3 4 5, though 1 2 stands before it in one and after it in the other.
        assert_eq!(common(&[1, 2, 3, 4, 5], &[3, 4, 5, 1, 2]), [(2, 0), (3, 1), (4, 2)]);
        assert_eq!(common(&[7, 8], &[8, 7]), [(0, 1)]);
    }

    #[test]
    fn places_rise_and_hold_the_same() {
        let key = Key::new(4);
        for case in 0..200 {
            let draw = |stream: u64| (0..12).map(|i| key.fold(case).fold(stream).below(i, 4)).collect::<Vec<u64>>();
            let (a, b) = (draw(0), draw(1));
            let pairs = common(&a, &b);
            assert!(pairs.iter().all(|&(i, j)| a[i] == b[j]));
            assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
        }
    }
}
