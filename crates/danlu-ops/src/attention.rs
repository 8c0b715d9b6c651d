use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::softmax};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::{self, attention_backward, attention_forward};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::{Heads, Rope, Segments};

/// Causal self-attention within each segment, scaled by `1/√head_dim`: `qkv` `[tokens, heads.qkv()]` →
/// `[tokens, heads.q()]`. Queries and keys are turned by `rope` when it is given.
///
/// The CPU form keeps no `row_len × row_len` matrix (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).
pub fn attention(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    masked(qkv, heads, rope, segments, true)
}

/// [`attention`] in which every token sees the whole of its segment, as in encoders (Devlin et al. 2018,
/// <https://arxiv.org/abs/1810.04805>).
pub fn bidirectional_attention(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    masked(qkv, heads, rope, segments, false)
}

fn masked(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments, causal: bool) -> Tensor<2> {
    let [tokens, channels] = qkv.dims();
    heads.check(channels);
    assert_eq!(tokens, segments.tokens(), "qkv has {tokens} tokens, the segments {}", segments.tokens());
    if let Some(rope) = rope {
        rope.check(heads.head_dim, segments.longest());
    }
    if on_cpu(&qkv) {
        let attention = Attention { heads, rope: rope.cloned(), segments: segments.iter().collect(), causal };
        run(attention, [qkv.into_dispatch()])
    } else {
        let (rope, segments) = (rope.cloned(), segments.clone());
        again([qkv.into_dispatch()], move |[qkv]| plain(Tensor::from_dispatch(qkv), heads, rope.as_ref(), &segments, causal))
    }
}

pub(crate) fn plain(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments, causal: bool) -> Tensor<2> {
    let Segments { rows, row_len, .. } = *segments;
    let (group, dim) = (heads.group(), heads.head_dim);
    let narrow = qkv.dtype();
    let [q, k, v] = split(qkv, heads, rope, &segments.positions());
    // Query heads that share a key head stand one below the other, so that no key is repeated.
    let q = q.reshape([rows, row_len, heads.heads, dim]).swap_dims(1, 2).reshape([rows * heads.kv_heads, group * row_len, dim]);
    let [k, v] = [k, v]
        .map(|x| x.reshape([rows, row_len, heads.kv_heads, dim]).swap_dims(1, 2).reshape([rows * heads.kv_heads, row_len, dim]));
    let scores = q.matmul(k.swap_dims(1, 2)) / (dim as f64).sqrt();
    let scores: Tensor<5> = scores.reshape([rows, heads.kv_heads, group, row_len, row_len]);
    let hidden: Tensor<5, Bool> = hidden(segments, causal, &scores.device()).unsqueeze_dims(&[1, 1]);
    let hidden = hidden.expand([rows, heads.kv_heads, group, row_len, row_len]);
    let weights = softmax(wide(scores).mask_fill(hidden, f32::NEG_INFINITY), 4).cast(narrow);
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
fn hidden(segments: &Segments, causal: bool, device: &Device) -> Tensor<3, Bool> {
    let Segments { rows, row_len, .. } = *segments;
    // Of each query, the first key that it sees and the one after the last, within its row.
    let mut ends = [const { Vec::new() }; 2];
    for segment in segments.iter() {
        let row_start = segment.start / row_len * row_len;
        for query in segment.clone() {
            let last = if causal { query + 1 } else { segment.end };
            ends[0].push((segment.start - row_start) as i32);
            ends[1].push((last - row_start) as i32);
        }
    }
    let device = &device.clone().inner();
    let [first, last] = ends.map(|ends| Tensor::<3, Int>::from_data(TensorData::new(ends, [rows, row_len, 1]), device));
    let keys = Tensor::<1, Int>::arange(0..row_len as i64, device).reshape([1, 1, row_len]);
    keys.clone().lower(first).bool_or(keys.greater_equal(last))
}

/// What the kernels need to know.
pub(crate) fn shape(heads: Heads, rope: Option<&Rope>, causal: bool) -> kernels::Attention<'_> {
    let Heads { heads, kv_heads, head_dim } = heads;
    kernels::Attention { heads, kv_heads, head_dim, causal, rope: rope.map(|rope| (rope.cos(), rope.sin())) }
}

struct Attention {
    heads: Heads,
    rope: Option<Rope>,
    segments: Vec<Range<usize>>,
    causal: bool,
}

/// Input, output, and the logarithm of each row's sum of exponentials.
struct Saved {
    qkv: FlexTensor,
    y: FlexTensor,
    lse: Buffer,
}

impl Operation<1> for Attention {
    type Saved = Saved;

    fn forward(&self, [qkv]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Saved>) {
        let from = values(&qkv);
        let tokens = from.len() / self.heads.qkv();
        let (mut y, mut lse) = (Buffer::new(tokens * self.heads.q()), Buffer::new(tokens * self.heads.heads));
        let shape = shape(self.heads, self.rope.as_ref(), self.causal);
        time(Part::Attention, || attention_forward(&shape, &mut y, &mut lse, from, &self.segments));
        let y = y.into_tensor([tokens, self.heads.q()]);
        (y.clone(), needed[0].then(|| Saved { qkv, y, lse }))
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let Saved { qkv, y, lse } = saved;
        let qkv = values(&qkv);
        let mut dqkv = Buffer::new(qkv.len());
        let shape = shape(self.heads, self.rope.as_ref(), self.causal);
        time(Part::Attention, || {
            attention_backward(&shape, &mut dqkv, values(&dy), values(&y), &lse, qkv, &self.segments);
        });
        [Some(dqkv.into_tensor([qkv.len() / self.heads.qkv(), self.heads.qkv()]))]
    }
}
