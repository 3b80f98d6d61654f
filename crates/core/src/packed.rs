//! A batch of token sequences laid end to end.

use kiln_kernels::segments::Segments;
use std::ops::Range;
use std::sync::Arc;

/// Sequences without padding: what every model takes in.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Token ids, `[tokens]`.
    pub ids: Arc<[u32]>,
    /// Token type ids (0 first text, 1 second text), `[tokens]`; families without token types ignore them.
    pub token_types: Arc<[u32]>,
    /// Where each sequence starts and ends.
    pub segments: Segments,
}

impl Packed {
    /// Lays sequences end to end, all of token type 0.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut ids = Vec::new();
        let lengths: Vec<usize> = sequences
            .into_iter()
            .map(|sequence| {
                ids.extend_from_slice(sequence);
                sequence.len()
            })
            .collect();
        Self { token_types: vec![0; ids.len()].into(), ids: ids.into(), segments: Segments::from_lengths(lengths) }
    }

    /// Lays sequences end to end, each its ids and the type of every token.
    pub fn typed<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Self {
        let mut all_types = Vec::new();
        let packed = Self::new(sequences.into_iter().map(|(ids, token_types)| {
            all_types.extend_from_slice(token_types);
            ids
        }));
        Self { token_types: all_types.into(), ..packed }
    }
}

/// Sequences that may share a beginning: what several go on from is computed once.
#[derive(Clone, Debug)]
pub struct Branched {
    /// The beginnings, and what goes on from them, each a sequence.
    pub packed: Packed,
    /// The rows that each sequence goes on from; empty where it begins by itself.
    pub prefixes: Vec<Range<usize>>,
}

impl Branched {
    /// Lays groups of sequences end to end, all of token type 0: the beginning of each group, then what goes on from it.
    pub fn new<'a>(groups: impl IntoIterator<Item = (&'a [u32], Vec<&'a [u32]>)>) -> Self {
        let (mut sequences, mut prefixes, mut n_tokens) = (Vec::new(), Vec::new(), 0);
        for (beginning, branches) in groups {
            let rows = n_tokens..n_tokens + beginning.len();
            n_tokens = rows.end + branches.iter().map(|branch| branch.len()).sum::<usize>();
            prefixes.push(0..0);
            prefixes.extend(branches.iter().map(|_| rows.clone()));
            sequences.push(beginning);
            sequences.extend(branches);
        }
        Self { packed: Packed::new(sequences), prefixes }
    }

    /// Each token's position in its sequence with what it goes on from, `[tokens]`.
    pub fn positions(&self) -> Arc<[u32]> {
        let own = self.packed.segments.ranges().zip(&self.prefixes);
        own.flat_map(|(own, prefix)| prefix.len()..prefix.len() + own.len()).map(|position| position as u32).collect()
    }

    /// What the tokens of each sequence look at: the sequences with what they go on from, and the row of each of their tokens. `None` if all
    /// begin by themselves.
    pub fn keys(&self) -> Option<(Segments, Arc<[u32]>)> {
        self.prefixes.iter().any(|prefix| !prefix.is_empty()).then(|| {
            let both = || self.packed.segments.ranges().zip(&self.prefixes);
            let rows = both().flat_map(|(own, prefix)| prefix.clone().chain(own)).map(|row| row as u32).collect();
            (Segments::from_lengths(both().map(|(own, prefix)| prefix.len() + own.len())), rows)
        })
    }
}

/// Which tokens of a batch are predicted from, and what: the only rows an output head ever sees.
#[derive(Clone, Debug)]
pub struct Supervised {
    /// Rows of the hidden states, `[supervised]`.
    pub rows: Arc<[u32]>,
    /// The token each row should predict, `[supervised]`.
    pub targets: Arc<[u32]>,
    /// The factor of each row's loss, `[supervised]`.
    pub weights: Arc<[f32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_go_on_from_their_beginning() {
        let branched = Branched::new([(&[7, 8][..], vec![&[1, 2][..], &[], &[3]]), (&[9], vec![&[4]])]);
        assert_eq!(*branched.packed.ids, [7, 8, 1, 2, 3, 9, 4]);
        assert_eq!(*branched.positions(), [0, 1, 2, 3, 2, 0, 1]);
        let (segments, rows) = branched.keys().unwrap();
        assert_eq!(segments, Segments::from_lengths([2, 4, 2, 3, 1, 2]));
        assert_eq!(*rows, [0, 1, 0, 1, 2, 3, 0, 1, 0, 1, 4, 5, 5, 6]);
        assert!(Branched::new([(&[7, 8][..], Vec::new())]).keys().is_none());
    }
}
