//! Many sequences that are read together, each with its own keys and values.

use burn::tensor::{Int, Tensor, TensorData};
use danlu_ops::{Ids, PagedCache};

use crate::Decoder;

/// Rows under which products of floats take another path, whose sums are in another order: fewer are filled up to so many, so that what a
/// sequence gets does not depend on how many others are read with it. Products in blocks have one path for any number.
pub(crate) const LEAST_ROWS: usize = 8;

/// Keys and values of one of many sequences, for [`Decoder::step_many`]. A clone shares what has been read, so that one prompt that is
/// continued many times is kept once.
#[derive(Clone, Debug)]
pub struct Sequence {
    layers: Vec<PagedCache>,
    capacity: usize,
}

impl Sequence {
    /// An empty sequence with room for `capacity` tokens, at most the decoder's context.
    pub fn new(decoder: &Decoder, capacity: usize) -> Self {
        let capacity = capacity.min(decoder.context());
        Self { layers: decoder.paged(capacity), capacity }
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, PagedCache::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
    }

    pub(crate) fn layers_mut(&mut self) -> &mut [PagedCache] {
        &mut self.layers
    }
}

/// New tokens of many sequences, one after the other, filled up to the least number of rows.
pub(crate) struct Parts {
    pub ids: Ids,
    pub counts: Vec<usize>,
    least: usize,
}

impl Parts {
    pub fn new(parts: &[&[u32]], least: usize) -> Self {
        assert!(parts.iter().all(|part| !part.is_empty()), "a step reads at least one token of each sequence");
        let mut ids = parts.concat();
        ids.resize(ids.len().max(least), 0);
        Self { ids: ids.into(), counts: parts.iter().map(|part| part.len()).collect(), least }
    }

    /// Where each token stands in its sequence; call it before any layer has read them.
    pub fn positions(&self, sequences: &[&mut [PagedCache]]) -> Ids {
        let past = sequences.iter().map(|layers| layers.first().map_or(0, PagedCache::len));
        let real = self.counts.iter().zip(past).flat_map(|(&count, past)| past as u32..(past + count) as u32);
        let padding = self.ids.len() - self.counts.iter().sum::<usize>();
        real.chain(std::iter::repeat_n(0, padding)).collect()
    }

    /// Of all tokens' rows, those of each sequence's last token, and more up to the least number.
    pub fn last_rows(&self, x: Tensor<2>) -> Tensor<2> {
        if self.counts.iter().all(|&count| count == 1) {
            // They are all there is, besides the padding.
            return x;
        }
        let ends = self.counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end as i32 - 1)
        });
        let mut ends: Vec<i32> = ends.collect();
        ends.resize(ends.len().max(self.least), 0);
        let (count, device) = (ends.len(), x.device());
        x.select(0, Tensor::<1, Int>::from_data(TensorData::new(ends, [count]), &device))
    }
}

/// One layer's caches of all sequences.
pub(crate) fn layer_of<'a>(sequences: &'a mut [&mut [PagedCache]], layer: usize) -> Vec<&'a mut PagedCache> {
    sequences.iter_mut().map(|layers| &mut layers[layer]).collect()
}
