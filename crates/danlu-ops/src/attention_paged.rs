use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::bridge::{on_cpu, primitive, tensor, values};
use crate::buffer::Buffer;
use crate::kernels::threads::for_each_chunk;
use crate::kernels::{self, KvFormat, Page, Rows};
use crate::profile::{Part, time};
use crate::{Heads, LayerCache, Rope, attention, attention_cached};

/// Keys and values of one layer for one of many sequences that are read together. They lie in pages of 32 tokens; a clone shares the pages
/// and copies one only when it writes into it, so that many continuations of one prompt keep it once.
///
/// In halves they take half the memory, and a step that reads one token half the time for them. Every token, also one of a step itself, is
/// looked at as the cache holds it, so that what a text gets is the same however it is cut into steps.
#[derive(Clone, Debug)]
pub struct PagedCache {
    heads: Heads,
    format: KvFormat,
    capacity: usize,
    len: usize,
    held: Held,
}

#[derive(Clone, Debug)]
enum Held {
    Nothing(Device),
    Pages(Vec<Arc<Page>>),
    /// Devices other than the CPU keep tensors.
    Tensors(LayerCache),
}

impl PagedCache {
    /// An empty cache for up to `capacity` tokens, kept as `format` says. Other devices than the CPU keep the type of the activations for
    /// [`KvFormat::F32`].
    pub fn new(heads: Heads, capacity: usize, format: KvFormat, device: &Device) -> Self {
        Self { heads, format, capacity, len: 0, held: Held::Nothing(device.clone().inner()) }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        match &mut self.held {
            Held::Nothing(_) => {}
            Held::Pages(pages) => pages.truncate(self.len.div_ceil(kernels::PAGE)),
            Held::Tensors(cache) => cache.truncate(self.len),
        }
    }
}

/// Attention of new tokens of many sequences, each to itself and to everything in its cache, which they join: the rows of `qkv`
/// `[tokens, heads.qkv()]` are `counts[0]` tokens of the first sequence, then `counts[1]` of the second, and so on; rows after the last
/// sequence's are padding and give zeros → `[tokens, heads.q()]`. What one sequence gets does not depend on the others. For inference;
/// nothing is differentiated.
///
/// # Panics
/// When a cache has no room for its tokens, or there are more tokens than rows.
pub fn attention_paged(
    qkv: Tensor<2>,
    heads: Heads,
    rope: Option<&Rope>,
    caches: &mut [&mut PagedCache],
    counts: &[usize],
) -> Tensor<2> {
    let [tokens, channels] = qkv.dims();
    heads.check(channels);
    assert_eq!(caches.len(), counts.len(), "one count of tokens for each sequence");
    let firsts: Vec<usize> = counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
    let real: usize = counts.iter().sum();
    assert!(real <= tokens, "{real} tokens of sequences in {tokens} rows");
    for (cache, count) in caches.iter().zip(counts) {
        let total = cache.len + count;
        assert_eq!(heads, cache.heads, "the cache was made for other heads");
        assert!(total <= cache.capacity, "{total} tokens do not fit in a cache of {}", cache.capacity);
        if let Some(rope) = rope {
            rope.check(heads.head_dim, total);
        }
    }
    let qkv = qkv.inner();
    if !on_cpu(&qkv) || caches.iter().any(|cache| matches!(cache.held, Held::Tensors(_))) {
        return plain(qkv, heads, rope, caches, &firsts, counts);
    }
    let qkv = primitive(qkv);
    let from = values(&qkv);
    let shape = attention::shape(heads, rope, true);
    let mut y = Buffer::new(tokens * heads.q());
    y[real * heads.q()..].fill(0.0);
    time(Part::Attention, || {
        for_each_chunk(caches, 1, |i, cache| {
            let cache = &mut *cache[0];
            if matches!(cache.held, Held::Nothing(_)) {
                cache.held = Held::Pages(Vec::new());
            }
            if let Held::Pages(pages) = &mut cache.held {
                kernels::store_paged(
                    &shape,
                    cache.format,
                    pages,
                    cache.len,
                    &from[firsts[i] * channels..][..counts[i] * channels],
                );
            }
        });
        let sequences: Vec<Rows> = caches
            .iter()
            .zip(firsts.iter().zip(counts))
            .filter_map(|(cache, (&first, &count))| match &cache.held {
                Held::Pages(pages) => Some(Rows { first, count, past: cache.len, pages }),
                _ => None,
            })
            .collect();
        kernels::attention_paged(&shape, &mut y, from, &sequences);
    });
    caches.iter_mut().zip(counts).for_each(|(cache, count)| cache.len += count);
    tensor(y.into_tensor([tokens, heads.q()]))
}

/// One sequence after the other.
pub(crate) fn plain(
    qkv: Tensor<2>,
    heads: Heads,
    rope: Option<&Rope>,
    caches: &mut [&mut PagedCache],
    firsts: &[usize],
    counts: &[usize],
) -> Tensor<2> {
    let (tokens, device, narrow) = (qkv.dims()[0], qkv.device(), qkv.dtype());
    let mut parts = Vec::with_capacity(caches.len() + 1);
    for (cache, (&first, &count)) in caches.iter_mut().zip(firsts.iter().zip(counts)) {
        if let Held::Nothing(device) = &cache.held {
            cache.held = Held::Tensors(LayerCache::new(heads, cache.capacity, device));
        }
        let Held::Tensors(held) = &mut cache.held else { panic!("a cache that was begun on the CPU is used on another device") };
        if count > 0 {
            parts.push(attention_cached::plain(qkv.clone().narrow(0, first, count), heads, rope, held, cache.format));
        }
        cache.len += count;
    }
    let real: usize = counts.iter().sum();
    if real < tokens {
        parts.push(Tensor::zeros([tokens - real, heads.q()], (&device, narrow)));
    }
    Tensor::cat(parts, 0)
}
