use burn::backend::flex::FlexTensor;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::softmax};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::{Across, Attention, Pair, Seen, cross_attention_backward, cross_attention_forward};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::{Heads, Segments};

/// Attention of a decoder's tokens to those of an encoder (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, 3.2.3), scaled by
/// `1/√head_dim`: `q` `[targets, heads.q()]`, and keys beside values, `kv` `[sources, 2 · heads.kv()]` → `[targets, heads.q()]`. The tokens
/// of the i-th segment of `targets` see all those of the i-th of `sources`, and no others.
///
/// # Panics
/// When the two have different numbers of segments, or tensors and segments different numbers of tokens.
pub fn cross_attention(q: Tensor<2>, kv: Tensor<2>, heads: Heads, targets: &Segments, sources: &Segments) -> Tensor<2> {
    let [queries, width] = q.dims();
    let [keys, both] = kv.dims();
    heads.check(width + both);
    assert_eq!(width, heads.q(), "q has {width} channels, {heads:?} needs {}", heads.q());
    assert_eq!(queries, targets.tokens(), "q has {queries} tokens, its segments {}", targets.tokens());
    assert_eq!(keys, sources.tokens(), "kv has {keys} tokens, its segments {}", sources.tokens());
    let (of_targets, of_sources) = (targets.iter(), sources.iter());
    assert_eq!(of_targets.len(), of_sources.len(), "each segment of queries needs one of keys");
    if on_cpu(&q) && on_cpu(&kv) {
        run(CrossAttention { heads, pairs: of_targets.zip(of_sources).collect() }, [q.into_dispatch(), kv.into_dispatch()])
    } else {
        let (targets, sources) = (targets.clone(), sources.clone());
        again([q.into_dispatch(), kv.into_dispatch()], move |[q, kv]| {
            plain(Tensor::from_dispatch(q), Tensor::from_dispatch(kv), heads, &targets, &sources)
        })
    }
}

pub(crate) fn plain(q: Tensor<2>, kv: Tensor<2>, heads: Heads, targets: &Segments, sources: &Segments) -> Tensor<2> {
    let (narrow, dim, group) = (q.dtype(), heads.head_dim, heads.group());
    let (queries, keys) = (targets.tokens(), sources.tokens());
    let kv = kv.cast(narrow);
    // Query heads that share a key head stand one below the other.
    let q = q.reshape([queries, heads.heads, dim]).swap_dims(0, 1).reshape([heads.kv_heads, group * queries, dim]);
    let [k, v] =
        [0, 1].map(|i| kv.clone().narrow(1, i * heads.kv(), heads.kv()).reshape([keys, heads.kv_heads, dim]).swap_dims(0, 1));
    let scores = q.matmul(k.swap_dims(1, 2)) / (dim as f64).sqrt();
    let scores: Tensor<4> = scores.reshape([heads.kv_heads, group, queries, keys]);
    let hidden: Tensor<4, Bool> = hidden(targets, sources, &scores.device()).unsqueeze();
    let hidden = hidden.expand([heads.kv_heads, group, queries, keys]);
    let weights = softmax(wide(scores).mask_fill(hidden, f32::NEG_INFINITY), 3).cast(narrow);
    let y = weights.reshape([heads.kv_heads, group * queries, keys]).matmul(v);
    y.reshape([heads.heads, queries, dim]).swap_dims(0, 1).reshape([queries, heads.q()])
}

/// `[targets, sources]`: whether two tokens are of different segments.
fn hidden(targets: &Segments, sources: &Segments, device: &Device) -> Tensor<2, Bool> {
    let device = &device.clone().inner();
    let [of_targets, of_sources] = [targets, sources].map(|segments| {
        let of_each = segments.iter().enumerate().flat_map(|(i, segment)| segment.map(move |_| i as i32));
        of_each.collect::<Vec<i32>>()
    });
    let (queries, keys) = (of_targets.len(), of_sources.len());
    let of_targets = Tensor::<2, Int>::from_data(TensorData::new(of_targets, [queries, 1]), device).expand([queries, keys]);
    let of_sources = Tensor::<2, Int>::from_data(TensorData::new(of_sources, [1, keys]), device).expand([queries, keys]);
    of_targets.not_equal(of_sources)
}

struct CrossAttention {
    heads: Heads,
    pairs: Vec<Pair>,
}

/// Inputs, output, and the logarithm of each row's sum of exponentials.
struct Saved {
    q: FlexTensor,
    kv: FlexTensor,
    y: FlexTensor,
    lse: Buffer,
}

impl CrossAttention {
    fn shape(&self) -> Attention<'static> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        Attention { heads, kv_heads, head_dim, causal: false, rope: None }
    }
}

impl Operation<2> for CrossAttention {
    type Saved = Saved;

    fn forward(&self, [q, kv]: [FlexTensor; 2], needed: [bool; 2]) -> (FlexTensor, Option<Saved>) {
        let queries = values(&q).len() / self.heads.q();
        let (mut y, mut lse) = (Buffer::new(queries * self.heads.q()), Buffer::new(queries * self.heads.heads));
        let across = Across { q: values(&q), kv: values(&kv), pairs: &self.pairs };
        time(Part::Attention, || cross_attention_forward(&self.shape(), &mut y, &mut lse, across));
        let y = y.into_tensor([queries, self.heads.q()]);
        (y.clone(), needed.contains(&true).then(|| Saved { q, kv, y, lse }))
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Saved { q, kv, y, lse } = saved;
        let (q, kv) = (values(&q), values(&kv));
        let (mut dq, mut dkv) = (Buffer::new(q.len()), Buffer::new(kv.len()));
        let seen = Seen { y: values(&y), lse: &lse, dy: values(&dy) };
        let across = Across { q, kv, pairs: &self.pairs };
        time(Part::Attention, || cross_attention_backward(&self.shape(), &mut dq, &mut dkv, seen, across));
        let (queries, both) = (q.len() / self.heads.q(), 2 * self.heads.kv());
        let keys = kv.len() / both;
        [needed[0].then(|| dq.into_tensor([queries, self.heads.q()])), needed[1].then(|| dkv.into_tensor([keys, both]))]
    }
}
