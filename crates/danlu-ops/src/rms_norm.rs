use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::Heads;
use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece, sum_rows};

/// Root-mean-square normalization (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>) of each row: `x`
/// `[tokens, channels]`, `weight` `[channels]` → `x / sqrt(mean(x²) + eps) · weight`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "the norm's weight has one value for each channel");
    if on_cpu(&x) && on_cpu(&weight) {
        run(RmsNorm { eps: eps as f32 }, [x.into_dispatch(), weight.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch()], move |[x, weight]| {
            plain(Tensor::from_dispatch(x), Tensor::from_dispatch(weight), eps)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let narrow = x.dtype();
    let x = wide(x);
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    (x * scale * weight.unsqueeze()).cast(narrow)
}

/// Normalizes each query head and each key head of packed qkv (`[tokens, heads.qkv()]`) by its own root mean square, as
/// Qwen3 does before rope. `q_weight` and `k_weight` are `[head_dim]`; values pass through.
pub fn head_rms_norm(qkv: Tensor<2>, q_weight: Tensor<1>, k_weight: Tensor<1>, heads: Heads, eps: f64) -> Tensor<2> {
    heads.check(qkv.dims()[1]);
    for weight in [&q_weight, &k_weight] {
        assert_eq!(weight.dims()[0], heads.head_dim, "a head norm's weight has one value for each channel of a head");
    }
    if on_cpu(&qkv) && on_cpu(&q_weight) && on_cpu(&k_weight) {
        let inputs = [qkv.into_dispatch(), q_weight.into_dispatch(), k_weight.into_dispatch()];
        run(HeadRmsNorm { heads, eps: eps as f32 }, inputs)
    } else {
        let inputs = [qkv.into_dispatch(), q_weight.into_dispatch(), k_weight.into_dispatch()];
        again(inputs, move |[qkv, q_weight, k_weight]| {
            let [q_weight, k_weight] = [q_weight, k_weight].map(Tensor::from_dispatch);
            plain_heads(Tensor::from_dispatch(qkv), q_weight, k_weight, heads, eps)
        })
    }
}

pub(crate) fn plain_heads(qkv: Tensor<2>, q_weight: Tensor<1>, k_weight: Tensor<1>, heads: Heads, eps: f64) -> Tensor<2> {
    let tokens = qkv.dims()[0];
    let part = |start: usize, count: usize, weight: Tensor<1>| {
        let x = qkv.clone().narrow(1, start, count * heads.head_dim).reshape([tokens * count, heads.head_dim]);
        plain(x, weight, eps).reshape([tokens, count * heads.head_dim])
    };
    let q = part(0, heads.heads, q_weight);
    let k = part(heads.q(), heads.kv_heads, k_weight);
    let v = qkv.clone().narrow(1, heads.q() + heads.kv(), heads.kv());
    Tensor::cat(vec![q, k, v], 1)
}

simd_fn! {
    /// `y = x / rms(x) · weight` for every row.
    fn norm_rows(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
        let width = weight.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = 1.0 / (simd::dot::<FMA>(x, x) / width as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * w;
            }
        }
    }

    /// Turns the gradient of the rows' norms into that of the rows, and adds to that of the weight.
    fn norm_rows_backward(dy: &mut [f32], dw: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
        let width = weight.len();
        for (dy, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = 1.0 / (simd::dot::<FMA>(x, x) / width as f32 + eps).sqrt();
            let along = simd::sum_by(width, |sum, i| simd::fma::<FMA>(dy[i] * weight[i], x[i], sum));
            let along = along * scale * scale * scale / width as f32;
            for (((dy, dw), &x), &w) in dy.iter_mut().zip(dw.iter_mut()).zip(x).zip(weight) {
                *dw = simd::fma::<FMA>(*dy * x, scale, *dw);
                *dy = *dy * w * scale - x * along;
            }
        }
    }
}

/// The CPU form of the forward pass, of the input and the weight.
pub(crate) fn rms_norm_of([x, weight]: [&FlexTensor; 2], eps: f32) -> Buffer {
    let (from, w) = (values(x), values(weight));
    let width = w.len();
    let mut y = Buffer::new(from.len());
    let piece = rows_per_piece(from.len() / width, width) * width;
    time(Part::Norm, || {
        for_each_piece([&mut y], [piece], |i, [y]| norm_rows(Isa::current(), y, &from[i * piece..], w, eps));
    });
    y
}

struct RmsNorm {
    eps: f32,
}

impl Operation<2> for RmsNorm {
    /// The input, which the residual stream holds anyway, and the weight; the scale of each row is computed again.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2], needed: [bool; 2]) -> (FlexTensor, Option<Self::Saved>) {
        let width = values(&weight).len();
        let y = rms_norm_of([&x, &weight], self.eps);
        let tokens = y.len() / width;
        (y.into_tensor([tokens, width]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (x, w) = (values(&x), values(&weight));
        let width = w.len();
        let piece = rows_per_piece(x.len() / width, width) * width;
        let mut dx = owned(dy);
        let mut dw = Buffer::new(width);
        time(Part::Norm, || {
            let mut partial = vec![0.0; x.len().div_ceil(piece) * width];
            for_each_piece([values_mut(&mut dx), &mut partial], [piece, width], |i, [dy, dw]| {
                norm_rows_backward(Isa::current(), dy, dw, &x[i * piece..], w, self.eps);
            });
            sum_rows(&mut dw, &partial);
        });
        [Some(dx), Some(dw.into_tensor([width]))]
    }
}

struct HeadRmsNorm {
    heads: Heads,
    eps: f32,
}

impl Operation<3> for HeadRmsNorm {
    type Saved = [FlexTensor; 3];

    fn forward(&self, [qkv, q_weight, k_weight]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let (from, width) = (values(&qkv), self.heads.qkv());
        let (q, qk) = (self.heads.q(), self.heads.q() + self.heads.kv());
        let (wq, wk) = (values(&q_weight), values(&k_weight));
        let tokens = from.len() / width;
        let mut y = Buffer::new(from.len());
        let piece = rows_per_piece(tokens, width) * width;
        time(Part::Norm, || {
            for_each_piece([&mut y], [piece], |i, [y]| {
                for (y, x) in y.chunks_exact_mut(width).zip(from[i * piece..].chunks_exact(width)) {
                    norm_rows(Isa::current(), &mut y[..q], &x[..q], wq, self.eps);
                    norm_rows(Isa::current(), &mut y[q..qk], &x[q..qk], wk, self.eps);
                    y[qk..].copy_from_slice(&x[qk..]);
                }
            });
        });
        (y.into_tensor([tokens, width]), needed.contains(&true).then_some([qkv, q_weight, k_weight]))
    }

    fn backward(&self, [qkv, q_weight, k_weight]: Self::Saved, dy: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, width, dim) = (values(&qkv), self.heads.qkv(), self.heads.head_dim);
        let (q, qk) = (self.heads.q(), self.heads.q() + self.heads.kv());
        let (wq, wk) = (values(&q_weight), values(&k_weight));
        let piece = rows_per_piece(x.len() / width, width) * width;
        let mut dx = owned(dy);
        let mut dw = Buffer::new(2 * dim);
        time(Part::Norm, || {
            let mut partial = vec![0.0; x.len().div_ceil(piece) * 2 * dim];
            for_each_piece([values_mut(&mut dx), &mut partial], [piece, 2 * dim], |i, [dy, dw]| {
                let (dwq, dwk) = dw.split_at_mut(dim);
                for (dy, x) in dy.chunks_exact_mut(width).zip(x[i * piece..].chunks_exact(width)) {
                    norm_rows_backward(Isa::current(), &mut dy[..q], dwq, &x[..q], wq, self.eps);
                    norm_rows_backward(Isa::current(), &mut dy[q..qk], dwk, &x[q..qk], wk, self.eps);
                }
            });
            sum_rows(&mut dw, &partial);
        });
        let dw = dw.into_tensor([2 * dim]);
        [Some(dx), Some(dw.narrow(0, 0, dim)), Some(dw.narrow(0, dim, dim))]
    }
}
