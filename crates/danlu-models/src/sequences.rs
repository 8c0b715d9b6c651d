//! Many sequences that are read together, each with its own keys and values.

use burn::tensor::{Int, Tensor, TensorData};
use danlu_ops::{Ids, KvFormat, PagedCache};

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
    /// An empty sequence with room for `capacity` tokens, at most the decoder's context, whose keys and values are kept as they were computed:
    /// what it gets is what [`Decoder::logits`] gives, up to the order of sums.
    pub fn new(decoder: &Decoder, capacity: usize) -> Self {
        Self::holding(decoder, capacity, KvFormat::F32)
    }

    /// [`Sequence::new`] with keys and values kept as `format` says.
    pub fn holding(decoder: &Decoder, capacity: usize, format: KvFormat) -> Self {
        let capacity = capacity.min(decoder.context());
        Self { layers: decoder.paged(capacity, format), capacity }
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
    /// After how many of its last tokens logits are wanted, for each sequence.
    wanted: Vec<usize>,
    least: usize,
}

impl Parts {
    pub fn new(parts: &[&[u32]], wanted: &[usize], least: usize) -> Self {
        assert_eq!(parts.len(), wanted.len(), "one number of wanted rows for each sequence");
        let right = parts.iter().zip(wanted).all(|(part, wanted)| (1..=part.len()).contains(wanted));
        assert!(right, "a step reads at least one token of each sequence, and gives logits for at least the last");
        let mut ids = parts.concat();
        ids.resize(ids.len().max(least), 0);
        Self { ids: ids.into(), counts: parts.iter().map(|part| part.len()).collect(), wanted: wanted.to_vec(), least }
    }

    /// Where each token stands in its sequence; call it before any layer has read them.
    pub fn positions(&self, sequences: &[&mut [PagedCache]]) -> Ids {
        let past = sequences.iter().map(|layers| layers.first().map_or(0, PagedCache::len));
        let real = self.counts.iter().zip(past).flat_map(|(&count, past)| past as u32..(past + count) as u32);
        let padding = self.ids.len() - self.counts.iter().sum::<usize>();
        real.chain(std::iter::repeat_n(0, padding)).collect()
    }

    /// Of all tokens' rows, those after which logits are wanted, and more up to the least number.
    pub fn wanted_rows(&self, x: Tensor<2>) -> Tensor<2> {
        if self.counts == self.wanted {
            // They are all there is, besides the padding.
            return x;
        }
        let ends = self.counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        let mut rows: Vec<i32> =
            ends.zip(&self.wanted).flat_map(|(end, wanted)| (end - wanted..end).map(|row| row as i32)).collect();
        rows.resize(rows.len().max(self.least), 0);
        let (count, device) = (rows.len(), x.device());
        x.select(0, Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device))
    }
}

/// One layer's caches of all sequences.
pub(crate) fn layer_of<'a>(sequences: &'a mut [&mut [PagedCache]], layer: usize) -> Vec<&'a mut PagedCache> {
    sequences.iter_mut().map(|layers| &mut layers[layer]).collect()
}
