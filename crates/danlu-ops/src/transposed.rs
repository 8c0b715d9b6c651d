//! Transposed convolutions of images: what a convolution's backward pass does to its outputs' gradients, as a layer that makes images
//! larger (Zeiler et al. 2010, "Deconvolutional Networks"; Radford et al. 2015, <https://arxiv.org/abs/1511.06434>). So its forward pass is
//! that backward pass, and its backward pass the convolution.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::module::conv_transpose2d;
use burn::tensor::ops::ConvTransposeOptions;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::convolution::{Convolution, Geometry, add_planes, sum_over_images};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// The transpose of a convolution, named by the convolution `of`: reads rows of `of.output()` and gives rows of `of.input`. `weight` is that
/// convolution's, `[read channels, given channels, rows, columns]`, which is `torch`'s for `ConvTranspose2d` too; `bias` is `[given channels]`.
///
/// # Panics
/// When the tensors are not of the shape that `of` says.
pub fn transposed_convolution(x: Tensor<2>, weight: Tensor<4>, bias: Tensor<1>, of: Convolution) -> Tensor<2> {
    of.output().check(x.dims()[1]);
    let [rows, columns] = of.kernel;
    assert_eq!(weight.dims(), [of.outputs, of.input.channels, rows, columns], "the weight of the transpose of {of:?}");
    assert_eq!(bias.dims(), [of.input.channels], "the bias has one value for each channel that is given");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        run(Transposed(of), [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], move |[x, weight, bias]| {
            plain(Tensor::from_dispatch(x), Tensor::from_dispatch(weight), Tensor::from_dispatch(bias), of)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<4>, bias: Tensor<1>, of: Convolution) -> Tensor<2> {
    let (narrow, images, read) = (x.dtype(), x.dims()[0], of.output());
    let x = wide(x).reshape([images, read.channels, read.height, read.width]);
    // What windows of this stride leave over of the image.
    let left = |given: usize, read: usize, kernel: usize| given + 2 * of.padding - (read - 1) * of.stride - kernel;
    let left_over = [left(of.input.height, read.height, of.kernel[0]), left(of.input.width, read.width, of.kernel[1])];
    let options = ConvTransposeOptions::new([of.stride; 2], [of.padding; 2], left_over, [1, 1], 1);
    conv_transpose2d(x, weight, Some(bias), options).reshape([images, of.input.len()]).cast(narrow)
}

/// Fills each plane of images with its channel's value.
fn fill_planes(images: &mut [f32], plane: usize, channels: &[f32]) {
    images.chunks_exact_mut(plane).zip(channels.iter().cycle()).for_each(|(plane, value)| plane.fill(*value));
}

struct Transposed(Convolution);

impl Operation<3> for Transposed {
    /// The images and the weight.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let Self(of) = self;
        let (images, read, given) = (values(&x), of.output().len(), of.input.len());
        let count = images.len() / read;
        let geometry = Geometry::new(of, count);
        let mut y = Buffer::new(count * given);
        time(Part::Gemm, || {
            let (weight, bias) = (values(&weight), values(&bias));
            for_each_piece([&mut y], [geometry.images * given], |i, [y]| {
                fill_planes(y, of.input.plane(), bias);
                let images = &images[i * geometry.images * read..][..y.len() / given * read];
                geometry.input_gradient(y, images, weight);
            });
        });
        (y.into_tensor([count, given]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Self(of) = self;
        let (images, dy, kernel) = (values(&x), values(&dy), values(&weight));
        let (read, given) = (of.output().len(), of.input.len());
        let count = images.len() / read;
        let geometry = Geometry::new(of, count);
        let weights = of.outputs * of.depth();
        let mut gradients = [None, None, None];
        time(Part::Gemm, || {
            if needed[0] {
                let mut dx = Buffer::new(count * read);
                for_each_piece([&mut dx], [geometry.images * read], |i, [dx]| {
                    let dy = &dy[i * geometry.images * given..][..dx.len() / read * given];
                    geometry.forward(dx, dy, kernel, None);
                });
                gradients[0] = Some(dx.into_tensor([count, read]));
            }
            if needed[1] || needed[2] {
                let channels = of.input.channels;
                let sums = sum_over_images(count, weights + channels, |sums, Range { start, end }| {
                    let (x, dy) = (&images[start * read..end * read], &dy[start * given..end * given]);
                    let (dw, db) = sums.split_at_mut(weights);
                    add_planes(db, dy, of.input.plane());
                    geometry.weight_gradient(dw, dy, x);
                });
                if needed[1] {
                    let shape = [of.outputs, channels, of.kernel[0], of.kernel[1]];
                    gradients[1] = Some(Buffer::copy_of(&sums[..weights]).into_tensor(shape));
                }
                if needed[2] {
                    gradients[2] = Some(Buffer::copy_of(&sums[weights..]).into_tensor([channels]));
                }
            }
        });
        gradients
    }
}
