//! The keys and values that generation keeps of the tokens it has seen.

use burn::tensor::{Device, Tensor};
use kiln_kernels::rows::write_rows;
use kiln_kernels::segments::Segments;

/// Keys and values of all layers for a batch of sequences under generation.
#[derive(Debug)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    /// Tokens each sequence has so far.
    pub(crate) lengths: Vec<usize>,
}

impl Cache {
    /// A cache of copies of the sequences numbered `from`, one after the other, of up to `capacity` tokens each.
    pub fn copies(&self, from: &[usize], capacity: usize) -> Self {
        let layers = self.layers.iter().map(|layer| layer.copies(from, capacity)).collect();
        Self { layers, lengths: from.iter().map(|&sequence| self.lengths[sequence]).collect() }
    }

    /// Bytes of all keys and values.
    pub fn n_bytes(&self) -> usize {
        let numbers = |layer: &LayerCache| layer.keys().shape().num_elements() + layer.values().shape().num_elements();
        self.layers.iter().map(numbers).sum::<usize>() * size_of::<f32>()
    }
}

/// Keys and values of one layer, `[rows, kv width]`; each sequence owns as many rows, one after the other, of which it uses the first. In a
/// layer with a window these are its newest tokens only, and the rows are bounded by the window, whatever the length of the sequence.
#[derive(Debug)]
pub struct LayerCache {
    // Options only so that the tensors can be moved out, written in place and moved back.
    keys: Option<Tensor<2>>,
    values: Option<Tensor<2>>,
    /// Rows of each sequence.
    rows: usize,
    /// Rows each sequence uses.
    lengths: Vec<usize>,
    /// As [`kiln_kernels::attention::AttentionShape::window`].
    window: Option<usize>,
    /// The most rows a sequence owns between two passes.
    most: usize,
}

/// Rows of a window's tokens, and as many again but no fewer than this, so that they move to the front only now and then.
const MIN_SLACK: usize = 64;

/// The most rows that a sequence of up to `capacity` tokens owns between two passes.
fn most_rows(capacity: usize, window: Option<usize>) -> usize {
    window.map_or(capacity, |window| capacity.min(window.saturating_add(window.max(MIN_SLACK))))
}

impl LayerCache {
    pub(crate) fn new(n_sequences: usize, capacity: usize, window: Option<usize>, width: usize, device: &Device) -> Self {
        let most = most_rows(capacity, window);
        let empty = || Some(Tensor::zeros([n_sequences * most, width], device));
        Self { keys: empty(), values: empty(), rows: most, lengths: vec![0; n_sequences], window, most }
    }

    /// Adds the keys and values of new tokens of the sequences. While they are read there may be more rows than between two passes.
    pub(crate) fn append(&mut self, key: Tensor<2>, value: Tensor<2>, segments: &Segments) {
        let news: Vec<usize> = segments.ranges().map(|new| new.len()).collect();
        let needed = |lengths: &[usize]| lengths.iter().zip(&news).map(|(length, new)| length + new).max().unwrap_or(0);
        if needed(&self.lengths) > self.rows {
            let kept = self.kept();
            *self = self.moved(self.most.max(needed(&kept)), kept);
        }
        let moves =
            segments.ranges().enumerate().map(|(sequence, new)| (sequence * self.rows + self.lengths[sequence], new.start, new.len()));
        let moves: Vec<(usize, usize, usize)> = moves.collect();
        self.keys = self.keys.take().map(|keys| write_rows(keys, key, &moves));
        self.values = self.values.take().map(|values| write_rows(values, value, &moves));
        self.lengths.iter_mut().zip(news).for_each(|(length, new)| *length += new);
    }

    /// Gives back the rows that only the tokens of the last pass needed.
    pub(crate) fn shrink(&mut self) {
        if self.rows > self.most {
            *self = self.moved(self.most, self.kept());
        }
    }

    /// The rows of each sequence that it uses: where they start, and how many.
    pub(crate) fn spans(&self) -> Vec<(usize, usize)> {
        self.lengths.iter().enumerate().map(|(sequence, &length)| (sequence * self.rows, length)).collect()
    }

    pub(crate) fn keys(&self) -> Tensor<2> {
        self.keys.clone().expect("the tensors are only away inside append")
    }

    pub(crate) fn values(&self) -> Tensor<2> {
        self.values.clone().expect("the tensors are only away inside append")
    }

    /// How many of the newest tokens of each sequence later ones look at.
    fn kept(&self) -> Vec<usize> {
        let most = self.window.map_or(usize::MAX, |window| window.saturating_sub(1));
        self.lengths.iter().map(|&length| length.min(most)).collect()
    }

    /// The newest `lengths` tokens of each sequence, which then owns `rows` rows.
    fn moved(&self, rows: usize, lengths: Vec<usize>) -> Self {
        let from: Vec<usize> = (0..lengths.len()).collect();
        self.copied(&from, rows, lengths)
    }

    fn copies(&self, from: &[usize], capacity: usize) -> Self {
        let (most, kept) = (most_rows(capacity, self.window), self.kept());
        let lengths = from.iter().map(|&sequence| kept[sequence]).collect();
        Self { most, ..self.copied(from, most, lengths) }
    }

    /// The newest `lengths` tokens of each of the sequences numbered `from`, which then own `rows` rows.
    fn copied(&self, from: &[usize], rows: usize, lengths: Vec<usize>) -> Self {
        let row = |(copy, &sequence): (usize, &usize)| {
            let count = lengths[copy];
            (copy * rows, sequence * self.rows + self.lengths[sequence] - count, count)
        };
        let moves: Vec<(usize, usize, usize)> = from.iter().enumerate().map(row).collect();
        let copied = |tensor: Tensor<2>| {
            let empty = Tensor::zeros([from.len() * rows, tensor.dims()[1]], &tensor.device());
            Some(write_rows(empty, tensor, &moves))
        };
        Self { keys: copied(self.keys()), values: copied(self.values()), rows, lengths, window: self.window, most: self.most }
    }
}
