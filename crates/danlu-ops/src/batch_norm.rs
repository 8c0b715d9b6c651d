use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::planes::Planes;
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece, sum_rows};

/// Batch normalization (Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>) by the statistics of this very batch: each channel brought
/// to mean 0 and variance 1 over all images and places, then scaled by `weight` and shifted by `bias`, both `[channels]`. `x` is
/// `[images, channels × height × width]`.
///
/// # Panics
/// When the tensors do not fit.
pub fn batch_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, planes: Planes, eps: f64) -> Tensor<2> {
    planes.check(x.dims()[1]);
    assert_eq!(weight.dims()[0], planes.channels, "the norm's weight has one value for each channel");
    assert_eq!(bias.dims()[0], planes.channels, "the norm's bias has one value for each channel");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        run(BatchNorm { planes, eps: eps as f32 }, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], move |[x, weight, bias]| {
            let [weight, bias] = [weight, bias].map(Tensor::from_dispatch);
            plain(Tensor::from_dispatch(x), weight, bias, planes, eps)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, planes: Planes, eps: f64) -> Tensor<2> {
    fixed_norm(x.clone(), channel_statistics(x, planes), weight, bias, planes, eps)
}

/// The mean of each channel over all images and places, and the mean square of what is left without it: `[channels]` each. Of many images
/// these are the population's, by which [`fixed_norm`] needs no batch.
///
/// # Panics
/// When rows are not of `planes`.
pub fn channel_statistics(x: Tensor<2>, planes: Planes) -> [Tensor<1>; 2] {
    planes.check(x.dims()[1]);
    let (images, channels) = (x.dims()[0], planes.channels);
    let x = wide(x).reshape([images, channels, planes.plane()]);
    let mean = |x: Tensor<3>| x.mean_dim(2).mean_dim(0);
    let middle = mean(x.clone());
    let spread = mean((x - middle.clone()).square());
    [middle.reshape([channels]), spread.reshape([channels])]
}

/// [`batch_norm`] by statistics that are known, a mean and a variance of each channel.
///
/// # Panics
/// As [`batch_norm`].
pub fn fixed_norm(
    x: Tensor<2>,
    [mean, variance]: [Tensor<1>; 2],
    weight: Tensor<1>,
    bias: Tensor<1>,
    planes: Planes,
    eps: f64,
) -> Tensor<2> {
    planes.check(x.dims()[1]);
    let (narrow, images, channels) = (x.dtype(), x.dims()[0], planes.channels);
    let [mean, variance, weight, bias] = [mean, variance, weight, bias].map(|vector| vector.reshape([1, channels, 1]));
    let normal = (wide(x).reshape([images, channels, planes.plane()]) - mean) * (variance + eps).sqrt().recip();
    (normal * weight + bias).reshape([images, planes.len()]).cast(narrow)
}

simd_fn! {
    /// Adds the sum of each channel of an image.
    fn add_sums(sums: &mut [f32], x: &[f32], plane: usize) {
        sums.iter_mut().zip(x.chunks_exact(plane)).for_each(|(sum, x)| *sum += simd::sum(x));
    }

    /// Adds the squares of each channel of an image around its mean.
    fn add_squares(sums: &mut [f32], x: &[f32], mean: &[f32], plane: usize) {
        for ((sum, x), &mean) in sums.iter_mut().zip(x.chunks_exact(plane)).zip(mean) {
            *sum += simd::sum_by(plane, |sum, i| simd::fma::<FMA>(x[i] - mean, x[i] - mean, sum));
        }
    }

    /// One image: `x · factor + shift`, by channels.
    fn affine(y: &mut [f32], x: &[f32], factor: &[f32], shift: &[f32], plane: usize) {
        for (((y, x), &factor), &shift) in y.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).zip(factor).zip(shift) {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = simd::fma::<FMA>(x, factor, shift));
        }
    }

    /// Adds to the gradients of the weight and of the bias, which lie one after the other in `sums`, an image's part.
    fn add_gradients(sums: &mut [f32], dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], plane: usize) {
        let (dw, db) = sums.split_at_mut(mean.len());
        for (channel, (dy, x)) in dy.chunks_exact(plane).zip(x.chunks_exact(plane)).enumerate() {
            let (mean, scale) = (mean[channel], scale[channel]);
            dw[channel] += simd::sum_by(plane, |sum, i| simd::fma::<FMA>(dy[i], (x[i] - mean) * scale, sum));
            db[channel] += simd::sum(dy);
        }
    }

    /// One image: turns the gradient of what the norm gives into that of what it reads, `dy · a + x · b + c` by channels.
    fn input_gradient(dy: &mut [f32], x: &[f32], factors: &[[f32; 3]], plane: usize) {
        for ((dy, x), &[a, b, c]) in dy.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).zip(factors) {
            dy.iter_mut().zip(x).for_each(|(dy, &x)| *dy = simd::fma::<FMA>(*dy, a, simd::fma::<FMA>(x, b, c)));
        }
    }
}

struct BatchNorm {
    planes: Planes,
    eps: f32,
}

impl BatchNorm {
    /// Sums over all images, to which `add(sums, image)` adds one image's part, in an order that depends on shapes only.
    fn sums(&self, images: usize, width: usize, add: impl Fn(&mut [f32], usize) + Sync) -> Buffer {
        let piece = rows_per_piece(images, self.planes.len());
        let mut partial = Buffer::new(images.div_ceil(piece) * width);
        for_each_piece([&mut partial], [width], |i, [sums]| {
            sums.fill(0.0);
            (i * piece..images.min((i + 1) * piece)).for_each(|image| add(sums, image));
        });
        let mut sums = Buffer::new(width);
        sum_rows(&mut sums, &partial);
        sums
    }

    /// Of each channel: the mean, and what brings its variance to one.
    fn statistics(&self, x: &[f32]) -> [Buffer; 2] {
        let (channels, plane, each) = (self.planes.channels, self.planes.plane(), self.planes.len());
        let images = x.len() / each;
        let count = (images * plane).max(1) as f32;
        let image = |i: usize| &x[i * each..][..each];
        let mut mean = self.sums(images, channels, |sums, i| add_sums(Isa::current(), sums, image(i), plane));
        mean.iter_mut().for_each(|mean| *mean /= count);
        let mut scale = self.sums(images, channels, |sums, i| add_squares(Isa::current(), sums, image(i), &mean, plane));
        scale.iter_mut().for_each(|scale| *scale = 1.0 / (*scale / count + self.eps).sqrt());
        [mean, scale]
    }
}

impl Operation<3> for BatchNorm {
    /// The input and the weight, and the statistics, mean after scale.
    type Saved = ([FlexTensor; 2], [Buffer; 2]);

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let (from, w, b) = (values(&x), values(&weight), values(&bias));
        let (plane, each) = (self.planes.plane(), self.planes.len());
        let images = from.len() / each;
        let mut y = Buffer::new(from.len());
        let statistics = time(Part::Norm, || {
            let [mean, scale] = self.statistics(from);
            let factor: Vec<f32> = w.iter().zip(&*scale).map(|(w, scale)| w * scale).collect();
            let shift: Vec<f32> = b.iter().zip(&*mean).zip(&factor).map(|((b, mean), factor)| b - mean * factor).collect();
            let piece = rows_per_piece(images, each);
            for_each_piece([&mut y], [piece * each], |i, [y]| {
                for (y, x) in y.chunks_exact_mut(each).zip(from[i * piece * each..].chunks_exact(each)) {
                    affine(Isa::current(), y, x, &factor, &shift, plane);
                }
            });
            [mean, scale]
        });
        (y.into_tensor([images, each]), needed.contains(&true).then_some(([x, weight], statistics)))
    }

    fn backward(&self, ([x, weight], [mean, scale]): Self::Saved, dy: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, w) = (values(&x), values(&weight));
        let (channels, plane, each) = (self.planes.channels, self.planes.plane(), self.planes.len());
        let images = x.len() / each;
        let mut dx = owned(dy);
        let sums = time(Part::Norm, || {
            let dy = values(&dx);
            let sums = self.sums(images, 2 * channels, |sums, i| {
                let at = i * each..(i + 1) * each;
                add_gradients(Isa::current(), sums, &dy[at.clone()], &x[at], &mean, &scale, plane);
            });
            let count = (images * plane).max(1) as f32;
            // w · scale · (dy - level - (x - mean) · scale · along), where level and along are the gradients of bias and weight for a value.
            let factors = |channel: usize| {
                let (along, level) = (sums[channel] / count, sums[channels + channel] / count);
                let (a, bend) = (w[channel] * scale[channel], scale[channel] * along);
                [a, -a * bend, a * (mean[channel] * bend - level)]
            };
            let factors: Vec<[f32; 3]> = (0..channels).map(factors).collect();
            let piece = rows_per_piece(images, each);
            for_each_piece([values_mut(&mut dx)], [piece * each], |i, [dy]| {
                for (dy, x) in dy.chunks_exact_mut(each).zip(x[i * piece * each..].chunks_exact(each)) {
                    input_gradient(Isa::current(), dy, x, &factors, plane);
                }
            });
            sums
        });
        let sums = sums.into_tensor([2 * channels]);
        [Some(dx), Some(sums.narrow(0, 0, channels)), Some(sums.narrow(0, channels, channels))]
    }
}
