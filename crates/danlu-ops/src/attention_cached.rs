use burn::tensor::{Bool, Device, Tensor, TensorData, activation::softmax};

use crate::{Heads, Rope, attention};

/// Keys and values of one layer for one sequence, for generation.
#[derive(Clone, Debug)]
pub struct LayerCache {
    heads: Heads,
    capacity: usize,
    len: usize,
    /// Keys and values `[kv_heads, len, head_dim]`.
    tensors: Option<[Tensor<3>; 2]>,
    device: Device,
}

impl LayerCache {
    /// An empty cache for up to `capacity` tokens.
    pub fn new(heads: Heads, capacity: usize, device: &Device) -> Self {
        Self { heads, capacity, len: 0, tensors: None, device: device.clone() }
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
            self.tensors = self.tensors.take().map(|pair| pair.map(|x| x.narrow(1, 0, len)));
            self.len = len;
        }
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
    let total = cache.len + tokens;
    assert!(total <= cache.capacity, "{total} tokens do not fit in a cache of {}", cache.capacity);
    if let Some(rope) = rope {
        rope.check(heads.head_dim, total);
    }
    plain(qkv.inner(), heads, rope, cache)
}

pub(crate) fn plain(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, cache: &mut LayerCache) -> Tensor<2> {
    let tokens = qkv.dims()[0];
    let (past, total, group, dim) = (cache.len, cache.len + tokens, heads.group(), heads.head_dim);
    let positions: Vec<u32> = (past as u32..total as u32).collect();
    let [q, k, v] = attention::split(qkv, heads, rope, &positions);
    let [k, v] = [k, v].map(|x| x.swap_dims(0, 1));
    let [k, v] = match cache.tensors.take() {
        Some([old_k, old_v]) => [Tensor::cat(vec![old_k, k], 1), Tensor::cat(vec![old_v, v], 1)],
        None => [k, v],
    };
    cache.len = total;
    cache.tensors = Some([k.clone(), v.clone()]);
    let q = q.swap_dims(0, 1).reshape([heads.kv_heads, group * tokens, dim]);
    let scores = q.matmul(k.swap_dims(1, 2)) / (dim as f64).sqrt();
    let hidden: Vec<bool> = (0..tokens).flat_map(|t| (0..total).map(move |key| key > past + t)).collect();
    let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [tokens, total]), &cache.device.clone().inner());
    let scores: Tensor<4> = scores.reshape([heads.kv_heads, group, tokens, total]);
    let hidden = hidden.unsqueeze::<4>().expand([heads.kv_heads, group, tokens, total]);
    let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3);
    let y = weights.reshape([heads.kv_heads, group * tokens, total]).matmul(v);
    y.reshape([heads.heads, tokens, dim]).swap_dims(0, 1).reshape([tokens, heads.q()])
}
