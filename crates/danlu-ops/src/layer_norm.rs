use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece, sum_rows};

/// Layer normalization (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) of each row: `x` `[tokens, channels]`,
/// `weight` and `bias` `[channels]` → `(x - mean) / sqrt(var + eps) · weight + bias`, with the biased variance.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "the norm's weight has one value for each channel");
    assert_eq!(x.dims()[1], bias.dims()[0], "the norm's bias has one value for each channel");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        run(LayerNorm { eps: eps as f32 }, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], move |[x, weight, bias]| {
            plain(Tensor::from_dispatch(x), Tensor::from_dispatch(weight), Tensor::from_dispatch(bias), eps)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    let narrow = x.dtype();
    let x = wide(x);
    let centred = x.clone() - x.mean_dim(1);
    let scale = (centred.clone().square().mean_dim(1) + eps).sqrt().recip();
    (centred * scale * weight.unsqueeze() + bias.unsqueeze()).cast(narrow)
}

simd_fn! {
    fn norm_rows(y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
        let width = weight.len();
        assert_eq!(bias.len(), width);
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let mean = simd::sum(x) / width as f32;
            let spread = simd::sum_by(width, |sum, i| simd::fma::<FMA>(x[i] - mean, x[i] - mean, sum));
            let scale = 1.0 / (spread / width as f32 + eps).sqrt();
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = simd::fma::<FMA>((x - mean) * scale, w, b);
            }
        }
    }

    /// Turns the gradient of the rows' norms into that of the rows, and adds to those of the weight and the bias.
    fn norm_rows_backward(dy: &mut [f32], sums: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
        let width = weight.len();
        let (dw, db) = sums.split_at_mut(width);
        for (dy, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let mean = simd::sum(x) / width as f32;
            let spread = simd::sum_by(width, |sum, i| simd::fma::<FMA>(x[i] - mean, x[i] - mean, sum));
            let scale = 1.0 / (spread / width as f32 + eps).sqrt();
            let level = simd::sum_by(width, |sum, i| simd::fma::<FMA>(dy[i], weight[i], sum)) / width as f32;
            let along = simd::sum_by(width, |sum, i| simd::fma::<FMA>(dy[i] * weight[i], (x[i] - mean) * scale, sum));
            let along = along / width as f32;
            for ((((dy, dw), db), &x), &w) in dy.iter_mut().zip(dw.iter_mut()).zip(db.iter_mut()).zip(x).zip(weight) {
                let normal = (x - mean) * scale;
                *dw = simd::fma::<FMA>(*dy, normal, *dw);
                *db += *dy;
                *dy = (*dy * w - level - normal * along) * scale;
            }
        }
    }
}

/// The CPU form of the forward pass, of the input, the weight and the bias.
pub(crate) fn layer_norm_of([x, weight, bias]: [&FlexTensor; 3], eps: f32) -> Buffer {
    let (from, w, b) = (values(x), values(weight), values(bias));
    let width = w.len();
    let mut y = Buffer::new(from.len());
    let piece = rows_per_piece(from.len() / width, width) * width;
    time(Part::Norm, || {
        for_each_piece([&mut y], [piece], |i, [y]| norm_rows(Isa::current(), y, &from[i * piece..], w, b, eps));
    });
    y
}

struct LayerNorm {
    eps: f32,
}

impl Operation<3> for LayerNorm {
    /// The input and the weight; mean and scale of each row are computed again.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let width = values(&weight).len();
        let y = layer_norm_of([&x, &weight, &bias], self.eps);
        let tokens = y.len() / width;
        (y.into_tensor([tokens, width]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, w) = (values(&x), values(&weight));
        let width = w.len();
        let piece = rows_per_piece(x.len() / width, width) * width;
        let mut dx = owned(dy);
        let mut sums = Buffer::new(2 * width);
        time(Part::Norm, || {
            let mut partial = vec![0.0; x.len().div_ceil(piece) * 2 * width];
            for_each_piece([values_mut(&mut dx), &mut partial], [piece, 2 * width], |i, [dy, sums]| {
                norm_rows_backward(Isa::current(), dy, sums, &x[i * piece..], w, self.eps);
            });
            sum_rows(&mut sums, &partial);
        });
        let sums = sums.into_tensor([2 * width]);
        [Some(dx), Some(sums.narrow(0, 0, width)), Some(sums.narrow(0, width, width))]
    }
}
