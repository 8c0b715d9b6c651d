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

/// Group normalization (Wu and He 2018, <https://arxiv.org/abs/1803.08494>): each image's channels in `groups` of equally many, each group
/// brought to mean 0 and variance 1 over all its values, then each channel scaled by `weight` and shifted by `bias`, both `[channels]`.
/// No image's result depends on another's, unlike with batches' statistics. `x` is `[images, channels × height × width]`.
///
/// # Panics
/// When the groups do not divide the channels, or the tensors do not fit.
pub fn group_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, planes: Planes, groups: usize, eps: f64) -> Tensor<2> {
    planes.check(x.dims()[1]);
    let channels = planes.channels;
    assert!(groups > 0 && channels.is_multiple_of(groups), "{channels} channels cannot be put into {groups} equal groups");
    assert_eq!(weight.dims()[0], channels, "the norm's weight has one value for each channel");
    assert_eq!(bias.dims()[0], channels, "the norm's bias has one value for each channel");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        let norm = GroupNorm { planes, groups, eps: eps as f32 };
        run(norm, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], move |[x, weight, bias]| {
            let [weight, bias] = [weight, bias].map(Tensor::from_dispatch);
            plain(Tensor::from_dispatch(x), weight, bias, planes, groups, eps)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, planes: Planes, groups: usize, eps: f64) -> Tensor<2> {
    let (narrow, images, channels) = (x.dtype(), x.dims()[0], planes.channels);
    let x = wide(x).reshape([images, groups, planes.len() / groups]);
    let centred = x.clone() - x.mean_dim(2);
    let scale = (centred.clone().square().mean_dim(2) + eps).sqrt().recip();
    let normal = (centred * scale).reshape([images, channels, planes.plane()]);
    let [weight, bias] = [weight, bias].map(|vector| vector.reshape([1, channels, 1]));
    (normal * weight + bias).reshape([images, planes.len()]).cast(narrow)
}

simd_fn! {
    /// One group: its channels' planes of `plane` values.
    fn norm(y: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], plane: usize, eps: f32) {
        let (mean, scale) = statistics::<FMA>(x, eps);
        for (((y, x), &w), &b) in y.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).zip(weight).zip(bias) {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = simd::fma::<FMA>((x - mean) * scale, w, b));
        }
    }

    /// Turns the gradient of a group's norm into that of the group, and adds to those of the weight and the bias.
    fn norm_backward(dy: &mut [f32], dw: &mut [f32], db: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
        let (mean, scale) = statistics::<FMA>(x, eps);
        let (count, plane) = (x.len() as f32, x.len() / weight.len());
        let (mut level, mut along) = (0.0, 0.0);
        for (channel, (dy, x)) in dy.chunks_exact(plane).zip(x.chunks_exact(plane)).enumerate() {
            let sum = simd::sum(dy);
            let product = simd::sum_by(plane, |sum, i| simd::fma::<FMA>(dy[i], (x[i] - mean) * scale, sum));
            db[channel] += sum;
            dw[channel] += product;
            level += weight[channel] * sum;
            along += weight[channel] * product;
        }
        let (level, along) = (level / count, along / count);
        for ((dy, x), &w) in dy.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).zip(weight) {
            dy.iter_mut().zip(x).for_each(|(dy, &x)| *dy = (*dy * w - level - (x - mean) * scale * along) * scale);
        }
    }
}

/// The mean of some values, and what brings their variance to one.
#[inline(always)]
fn statistics<const FMA: bool>(x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = simd::sum(x) / count;
    let spread = simd::sum_by(x.len(), |sum, i| simd::fma::<FMA>(x[i] - mean, x[i] - mean, sum));
    (mean, 1.0 / (spread / count + eps).sqrt())
}

struct GroupNorm {
    planes: Planes,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Channels and values of a group.
    fn group(&self) -> (usize, usize) {
        (self.planes.channels / self.groups, self.planes.len() / self.groups)
    }
}

impl Operation<3> for GroupNorm {
    /// The input and the weight; mean and scale of each group are computed again.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let (from, w, b) = (values(&x), values(&weight), values(&bias));
        let (channels, width) = self.group();
        let plane = self.planes.plane();
        let mut y = Buffer::new(from.len());
        let piece = rows_per_piece(from.len() / width, width);
        time(Part::Norm, || {
            for_each_piece([&mut y], [piece * width], |i, [y]| {
                for (group, y) in (i * piece..).zip(y.chunks_exact_mut(width)) {
                    let first = group % self.groups * channels;
                    let (w, b) = (&w[first..first + channels], &b[first..first + channels]);
                    norm(Isa::current(), y, &from[group * width..][..width], w, b, plane, self.eps);
                }
            });
        });
        let images = y.len() / self.planes.len();
        (y.into_tensor([images, self.planes.len()]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, w) = (values(&x), values(&weight));
        let (channels, width) = self.group();
        let (of_image, all) = (self.planes.len(), self.planes.channels);
        let piece = rows_per_piece(x.len() / of_image, of_image);
        let mut dx = owned(dy);
        let mut sums = Buffer::new(2 * all);
        time(Part::Norm, || {
            let mut partial = vec![0.0; (x.len() / of_image).div_ceil(piece) * 2 * all];
            for_each_piece([values_mut(&mut dx), &mut partial], [piece * of_image, 2 * all], |i, [dy, sums]| {
                let (dw, db) = sums.split_at_mut(all);
                let from = &x[i * piece * of_image..];
                for (group, (dy, x)) in dy.chunks_exact_mut(width).zip(from.chunks_exact(width)).enumerate() {
                    let first = group % self.groups * channels;
                    let (dw, db) = (&mut dw[first..first + channels], &mut db[first..first + channels]);
                    let w = &w[first..first + channels];
                    norm_backward(Isa::current(), dy, dw, db, x, w, self.eps);
                }
            });
            sum_rows(&mut sums, &partial);
        });
        let sums = sums.into_tensor([2 * all]);
        [Some(dx), Some(sums.narrow(0, 0, all)), Some(sums.narrow(0, all, all))]
    }
}
