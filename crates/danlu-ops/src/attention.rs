use burn::tensor::{Bool, Tensor, TensorData, activation::softmax};

use crate::{Heads, Rope, Segments};

/// Causal self-attention within each segment, scaled by `1/√head_dim`: `qkv` `[tokens, heads.qkv()]` →
/// `[tokens, heads.q()]`. Queries and keys are turned by `rope` when it is given.
///
/// The CPU form keeps no `row_len × row_len` matrix (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).
pub fn attention(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    let [tokens, channels] = qkv.dims();
    heads.check(channels);
    assert_eq!(tokens, segments.tokens(), "qkv has {tokens} tokens, the segments {}", segments.tokens());
    if let Some(rope) = rope {
        rope.check(heads.head_dim, segments.longest());
    }
    plain(qkv, heads, rope, segments)
}

pub(crate) fn plain(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    let Segments { rows, row_len, .. } = *segments;
    let (group, dim) = (heads.group(), heads.head_dim);
    let [q, k, v] = split(qkv, heads, rope, &segments.positions());
    // Query heads that share a key head stand one below the other, so that no key is repeated.
    let q = q.reshape([rows, row_len, heads.heads, dim]).swap_dims(1, 2).reshape([rows * heads.kv_heads, group * row_len, dim]);
    let [k, v] = [k, v]
        .map(|x| x.reshape([rows, row_len, heads.kv_heads, dim]).swap_dims(1, 2).reshape([rows * heads.kv_heads, row_len, dim]));
    let scores = q.matmul(k.swap_dims(1, 2)) / (dim as f64).sqrt();
    let scores: Tensor<5> = scores.reshape([rows, heads.kv_heads, group, row_len, row_len]);
    let hidden: Tensor<5, Bool> = hidden(segments, &scores.device()).unsqueeze_dims(&[1, 1]);
    let hidden = hidden.expand([rows, heads.kv_heads, group, row_len, row_len]);
    let weights = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 4);
    let y = weights.reshape([rows * heads.kv_heads, group * row_len, row_len]).matmul(v);
    y.reshape([rows, heads.heads, row_len, dim]).swap_dims(1, 2).reshape([rows * row_len, heads.q()])
}

/// Queries, keys and values `[tokens, heads, head_dim]`, turned by rope.
pub(crate) fn split(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, positions: &[u32]) -> [Tensor<3>; 3] {
    let tokens = qkv.dims()[0];
    let part = |start: usize, count: usize| {
        qkv.clone().narrow(1, start, count * heads.head_dim).reshape([tokens, count, heads.head_dim])
    };
    let q = part(0, heads.heads);
    let k = part(heads.q(), heads.kv_heads);
    let v = part(heads.q() + heads.kv(), heads.kv_heads);
    match rope {
        Some(rope) => [rope.plain(q, positions), rope.plain(k, positions), v],
        None => [q, k, v],
    }
}

/// `[rows, row_len, row_len]`: whether the query of the second axis must not see the key of the third.
fn hidden(segments: &Segments, device: &burn::tensor::Device) -> Tensor<3, Bool> {
    let row_len = segments.row_len;
    let mut hidden = vec![true; segments.rows * row_len * row_len];
    for segment in segments.iter() {
        let row_start = segment.start / row_len * row_len;
        for query in segment.clone() {
            let keys = query * row_len + (segment.start - row_start)..=query * row_len + (query - row_start);
            hidden[keys].fill(false);
        }
    }
    Tensor::from_data(TensorData::new(hidden, [segments.rows, row_len, row_len]), device)
}
