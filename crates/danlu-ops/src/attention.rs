use std::ops::{Deref, Range};

use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::softmax};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::embedding::{add_to_rows, embedding, rows_of};
use crate::kernels::{self, attention_backward, attention_forward};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::{Heads, Ids, Rope, Segments};

/// Causal self-attention within each segment, scaled by `1/√head_dim`: `qkv` `[tokens, heads.qkv()]` →
/// `[tokens, heads.q()]`. Queries and keys are turned by `rope` when it is given.
///
/// The CPU form keeps no `row_len × row_len` matrix (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).
pub fn attention(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    masked(qkv, heads, rope, segments, true, None)
}

/// [`attention`] where several tokens are given by one row of `qkv` `[rows, heads.qkv()]`, which are the same at the same place of several
/// segments: `of` names for each token its row, and `first` for each row one of its tokens, whose output is the row's → `[rows, heads.q()]`.
///
/// The CPU form keeps rows, not tokens.
///
/// # Panics
/// When `of` has another number of tokens than the segments, or either names what is not there.
pub fn attention_shared(
    qkv: Tensor<2>,
    heads: Heads,
    rope: Option<&Rope>,
    segments: &Segments,
    [first, of]: [&Ids; 2],
) -> Tensor<2> {
    let rows = qkv.dims()[0];
    assert!(first.len() == rows && of.len() == segments.tokens(), "one token for each row, and one row for each token");
    assert!(of.iter().all(|&row| (row as usize) < rows), "a token is of a row that is not there");
    assert!(first.iter().all(|&token| (token as usize) < of.len()), "a row is of a token that is not there");
    if on_cpu(&qkv) {
        return masked(qkv, heads, rope, segments, true, Some([first, of].map(Ids::clone)));
    }
    embedding(attention(embedding(qkv, of), heads, rope, segments), first)
}

/// [`attention`] in which every token sees the whole of its segment, as in encoders (Devlin et al. 2018,
/// <https://arxiv.org/abs/1810.04805>).
pub fn bidirectional_attention(qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
    masked(qkv, heads, rope, segments, false, None)
}

fn masked(
    qkv: Tensor<2>,
    heads: Heads,
    rope: Option<&Rope>,
    segments: &Segments,
    causal: bool,
    shared: Option<[Ids; 2]>,
) -> Tensor<2> {
    let [rows, channels] = qkv.dims();
    heads.check(channels);
    let tokens = shared.as_ref().map_or(rows, |[_, of]| of.len());
    assert_eq!(tokens, segments.tokens(), "qkv has {tokens} tokens, the segments {}", segments.tokens());
    if let Some(rope) = rope {
        rope.check(heads.head_dim, segments.longest());
    }
    if on_cpu(&qkv) {
        let attention = Attention { heads, rope: rope.cloned(), segments: segments.iter().collect(), causal, shared };
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
    /// The token of each row and the row of each token, where those differ.
    shared: Option<[Ids; 2]>,
}

impl Attention {
    /// The rows there are, `width` long, become one for each token.
    fn tokens<'a>(&self, rows: &'a [f32], width: usize) -> Tokens<'a> {
        match &self.shared {
            Some([_, of]) => Tokens::Made(rows_of(rows, of, width)),
            None => Tokens::AsTheyAre(rows),
        }
    }
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
        let (heads, width) = (self.heads, self.heads.q());
        time(Part::Attention, || {
            let from = self.tokens(values(&qkv), heads.qkv());
            let tokens = from.len() / heads.qkv();
            let (mut y, mut lse) = (Buffer::new(tokens * width), Buffer::new(tokens * heads.heads));
            attention_forward(&shape(heads, self.rope.as_ref(), self.causal), &mut y, &mut lse, &from, &self.segments);
            if let Some([first, _]) = &self.shared {
                (y, lse) = (rows_of(&y, first, width), rows_of(&lse, first, heads.heads));
            }
            let y = y.into_tensor([lse.len() / heads.heads, width]);
            drop(from);
            (y.clone(), needed[0].then(|| Saved { qkv, y, lse }))
        })
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (heads, width, Saved { qkv, y, lse }) = (self.heads, self.heads.q(), saved);
        time(Part::Attention, || {
            let from = self.tokens(values(&qkv), heads.qkv());
            let (y, lse) = (self.tokens(values(&y), width), self.tokens(&lse, heads.heads));
            let mut dy = Tokens::AsTheyAre(values(&dy));
            if let Some([first, _]) = &self.shared {
                // The tokens that stand for no row have no output of their own.
                let mut all = Buffer::new(y.len());
                add_to_rows(&mut all, true, &dy, first, width);
                dy = Tokens::Made(all);
            }
            let mut dqkv = Buffer::new(from.len());
            let shape = shape(heads, self.rope.as_ref(), self.causal);
            attention_backward(&shape, &mut dqkv, &dy, &y, &lse, &from, &self.segments);
            if let Some([_, of]) = &self.shared {
                let mut rows = Buffer::new(values(&qkv).len());
                add_to_rows(&mut rows, true, &dqkv, of, heads.qkv());
                dqkv = rows;
            }
            let rows = dqkv.len() / heads.qkv();
            [Some(dqkv.into_tensor([rows, heads.qkv()]))]
        })
    }
}

/// A row for each token: those there are, or copies of them.
enum Tokens<'a> {
    AsTheyAre(&'a [f32]),
    Made(Buffer),
}

impl Deref for Tokens<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::AsTheyAre(rows) => rows,
            Self::Made(rows) => rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tests::{assert_close, tensor, to_vec};

    /// What three segments begin with alike is one row each; outputs and gradients are those of attention to rows that were copied before.
    #[test]
    fn shared_rows_are_rows_that_were_copied() {
        let device = Device::flex().autodiff();
        let heads = Heads { heads: 4, kv_heads: 2, head_dim: 8 };
        let frequencies: Vec<f64> = (0..4).map(|i| 10f64.powi(-i)).collect();
        let rope = Rope::from_frequencies(&frequencies, 32);
        let segments = Segments::new(1, 27, vec![0, 9, 18]);
        let of: Ids = (0..27).map(|token| if token % 9 < 5 { token % 9 } else { 5 + token / 9 * 4 + token % 9 - 5 }).collect();
        let first: Ids = (0..17).map(|row| of.iter().position(|&of| of == row).unwrap() as u32).collect();
        let weights = tensor([17, heads.q()], 2, &device);
        let found = |attention: &dyn Fn(Tensor<2>) -> Tensor<2>| {
            let qkv = tensor([17, heads.qkv()], 1, &device).require_grad();
            let y = attention(qkv.clone());
            let mut gradients = (y.clone() * weights.clone()).sum().backward();
            [to_vec(y.inner()), to_vec(qkv.grad_remove(&mut gradients).unwrap())]
        };
        let got = found(&|qkv| attention_shared(qkv, heads, Some(&rope), &segments, [&first, &of]));
        let want = found(&|qkv| embedding(attention(embedding(qkv, &of), heads, Some(&rope), &segments), &first));
        for (got, want) in got.iter().zip(&want) {
            assert_close("attention of shared rows", got, want, 1e-6);
        }
    }
}
