//! A batch of token sequences laid end to end.

use kiln_kernels::segments::Segments;
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
