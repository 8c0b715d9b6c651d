use burn::tensor::{Bool, DType, Device, Tensor, TensorData, activation::softmax};

use crate::bridge::{on_cpu, primitive, tensor, values};
use crate::buffer::Buffer;
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::{Heads, KvFormat, Rope, attention, kernels};

/// Keys and values of one layer for one sequence, for generation. Its memory grows with what it holds.
#[derive(Clone, Debug)]
pub struct LayerCache {
    heads: Heads,
    capacity: usize,
    len: usize,
    held: Held,
    device: Device,
}

/// Keys and values, the keys turned by rope.
#[derive(Clone, Debug)]
enum Held {
    Nothing,
    /// `[kv_heads, room, head_dim]` each, of which the first `len` tokens of every head count.
    Cpu {
        room: usize,
        pair: [Buffer; 2],
    },
    /// `[kv_heads, len, head_dim]` each.
    Tensors(Box<[Tensor<3>; 2]>),
}

impl LayerCache {
    /// An empty cache for up to `capacity` tokens.
    pub fn new(heads: Heads, capacity: usize, device: &Device) -> Self {
        Self { heads, capacity, len: 0, held: Held::Nothing, device: device.clone().inner() }
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
        if len < self.len {
            self.len = len;
            if len == 0 {
                self.held = Held::Nothing;
            }
            if let Held::Tensors(pair) = &mut self.held {
                pair.iter_mut().for_each(|x| *x = x.clone().narrow(1, 0, len));
            }
        }
    }

    /// Buffers with room for `total` tokens, which keep those there are: at least twice as much as before, so that growing costs little.
    fn grow(&mut self, total: usize) -> (usize, &mut [Buffer; 2]) {
        let (old_room, old) = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Cpu { room, pair } => (room, Some(pair)),
            _ => (0, None),
        };
        self.held = match old {
            Some(pair) if old_room >= total => Held::Cpu { room: old_room, pair },
            old => {
                let room = total.max(2 * old_room).max(64).min(self.capacity);
                let dim = self.heads.head_dim;
                let mut pair = [(); 2].map(|()| Buffer::new(self.heads.kv_heads * room * dim));
                for (new, old) in pair.iter_mut().zip(old.iter().flatten()) {
                    for (new, old) in new.chunks_exact_mut(room * dim).zip(old.chunks_exact(old_room * dim)) {
                        new[..self.len * dim].copy_from_slice(&old[..self.len * dim]);
                    }
                }
                Held::Cpu { room, pair }
            }
        };
        let Held::Cpu { room, pair } = &mut self.held else { unreachable!("just put there") };
        (*room, pair)
    }
}

/// Attention of new tokens of one sequence to themselves and to everything in the cache, which they join: `qkv`
/// `[tokens, heads.qkv()]` → `[tokens, heads.q()]`. For inference; nothing is differentiated.
///
/// # Panics
/// When the cache has no room for the tokens.
pub fn attention_cached(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, cache: &mut LayerCache) -> Tensor<2> {
    let [tokens, channels] = qkv.dims();
    heads.check(channels);
    assert_eq!(heads, cache.heads, "the cache was made for other heads");
    let (past, total) = (cache.len, cache.len + tokens);
    assert!(total <= cache.capacity, "{total} tokens do not fit in a cache of {}", cache.capacity);
    if let Some(rope) = rope {
        rope.check(heads.head_dim, total);
    }
    let qkv = qkv.inner();
    if !on_cpu(&qkv) || matches!(cache.held, Held::Tensors(_)) {
        return plain(qkv, heads, rope, cache, KvFormat::F32);
    }
    let qkv = primitive(qkv);
    let mut y = Buffer::new(tokens * heads.q());
    let (room, [k, v]) = cache.grow(total);
    time(Part::Attention, || {
        kernels::attention_cached(&attention::shape(heads, rope, true), &mut y, values(&qkv), k, v, room, past);
    });
    cache.len = total;
    tensor(y.into_tensor([tokens, heads.q()]))
}

/// Keys and values are held as halves, or as the activations are.
pub(crate) fn plain(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, cache: &mut LayerCache, format: KvFormat) -> Tensor<2> {
    let (tokens, narrow) = (qkv.dims()[0], qkv.dtype());
    let (past, total, group, dim) = (cache.len, cache.len + tokens, heads.group(), heads.head_dim);
    let positions: Vec<u32> = (past as u32..total as u32).collect();
    let [q, k, v] = attention::split(qkv, heads, rope, &positions);
    let held = if format == KvFormat::F16 { DType::F16 } else { narrow };
    let [k, v] = [k, v].map(|x| x.swap_dims(0, 1).cast(held));
    let [k, v] = match std::mem::replace(&mut cache.held, Held::Nothing) {
        Held::Tensors(old) => {
            let [old_k, old_v] = *old;
            [Tensor::cat(vec![old_k, k], 1), Tensor::cat(vec![old_v, v], 1)]
        }
        _ => [k, v],
    };
    cache.len = total;
    cache.held = Held::Tensors(Box::new([k.clone(), v.clone()]));
    let [k, v] = [k, v].map(|x| x.cast(narrow));
    let q = q.swap_dims(0, 1).reshape([heads.kv_heads, group * tokens, dim]);
    let scores = q.matmul(k.swap_dims(1, 2)) / (dim as f64).sqrt();
    let hidden: Vec<bool> = (0..tokens).flat_map(|t| (0..total).map(move |key| key > past + t)).collect();
    let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [tokens, total]), &cache.device);
    let scores: Tensor<4> = scores.reshape([heads.kv_heads, group, tokens, total]);
    let hidden = hidden.unsqueeze::<4>().expand([heads.kv_heads, group, tokens, total]);
    let weights = softmax(wide(scores).mask_fill(hidden, f32::NEG_INFINITY), 3).cast(narrow);
    let y = weights.reshape([heads.kv_heads, group * tokens, total]).matmul(v);
    y.reshape([heads.heads, tokens, dim]).swap_dims(0, 1).reshape([tokens, heads.q()])
}
