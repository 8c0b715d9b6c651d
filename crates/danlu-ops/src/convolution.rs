//! Convolutions of images, as products with the images' columns (Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>).

mod columns;

pub(crate) use columns::Geometry;

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::planes::Planes;
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, sum_rows};

/// Shares of a batch that sum up their gradients of the weights, at most: each keeps a copy of the weights' size.
const SHARES: usize = 16;

/// A convolution with windows of `kernel` rows and columns that move by `stride`, over images with `padding` zeros on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// What it reads.
    pub input: Planes,
    /// Channels that it gives.
    pub outputs: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: usize,
}

impl Convolution {
    /// What it gives.
    ///
    /// # Panics
    /// When the window does not fit into the padded image.
    pub fn output(&self) -> Planes {
        let [rows, columns] = self.kernel;
        let (height, width) = (self.input.height + 2 * self.padding, self.input.width + 2 * self.padding);
        assert!(
            self.stride > 0 && rows > 0 && columns > 0 && rows <= height && columns <= width,
            "windows of {rows}×{columns} with stride {} do not fit into {height}×{width}",
            self.stride
        );
        Planes { channels: self.outputs, height: (height - rows) / self.stride + 1, width: (width - columns) / self.stride + 1 }
    }

    /// Values of a window: those that one output is a sum of.
    pub fn depth(&self) -> usize {
        self.input.channels * self.kernel[0] * self.kernel[1]
    }

    /// The image's row under the window's row `ky` at row `y` of the output.
    #[inline(always)]
    fn row(&self, y: usize, ky: usize) -> Option<usize> {
        (y * self.stride + ky).checked_sub(self.padding).filter(|row| *row < self.input.height)
    }
}

/// Convolution (in the sense of networks: correlation) of images: `x` `[images, channels × height × width]`, `weight`
/// `[outputs, channels, rows, columns]` and `bias` `[outputs]`, as `torch` has them → `[images, outputs × height × width]` of
/// [`Convolution::output`].
///
/// # Panics
/// When the tensors are not of the shape that `shape` says.
pub fn convolution(x: Tensor<2>, weight: Tensor<4>, bias: Tensor<1>, shape: Convolution) -> Tensor<2> {
    shape.input.check(x.dims()[1]);
    let [rows, columns] = shape.kernel;
    assert_eq!(weight.dims(), [shape.outputs, shape.input.channels, rows, columns], "the weight of {shape:?}");
    assert_eq!(bias.dims(), [shape.outputs], "the bias has one value for each output channel");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        run(shape, [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()])
    } else {
        again([x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()], move |[x, weight, bias]| {
            plain(Tensor::from_dispatch(x), Tensor::from_dispatch(weight), Tensor::from_dispatch(bias), shape)
        })
    }
}

pub(crate) fn plain(x: Tensor<2>, weight: Tensor<4>, bias: Tensor<1>, shape: Convolution) -> Tensor<2> {
    let (narrow, images, input) = (x.dtype(), x.dims()[0], shape.input);
    let x = wide(x).reshape([images, input.channels, input.height, input.width]);
    let options = ConvOptions::new([shape.stride; 2], [shape.padding; 2], [1, 1], 1);
    conv2d(x, weight, Some(bias), options).reshape([images, shape.output().len()]).cast(narrow)
}

simd_fn! {
    fn total(x: &[f32]) -> f32 {
        simd::sum(x)
    }
}

/// Adds the sum of each plane of images to that of its channel: the gradient of a bias.
pub(crate) fn add_planes(sums: &mut [f32], images: &[f32], plane: usize) {
    for image in images.chunks_exact(sums.len() * plane) {
        sums.iter_mut().zip(image.chunks_exact(plane)).for_each(|(sum, plane)| *sum += total(Isa::current(), plane));
    }
}

/// Sums over images `0..count`, each `width` long, to which `add(sums, images)` adds the part of some. Which images a share has depends on
/// their number alone, and shares are added up in their order.
pub(crate) fn sum_over_images(count: usize, width: usize, add: impl Fn(&mut [f32], Range<usize>) + Sync) -> Buffer {
    let share = count.div_ceil(SHARES).max(1);
    let mut partial = Buffer::new(count.div_ceil(share) * width);
    for_each_piece([&mut partial], [width], |i, [sums]| {
        sums.fill(0.0);
        add(sums, i * share..count.min((i + 1) * share));
    });
    let mut sums = Buffer::new(width);
    sum_rows(&mut sums, &partial);
    sums
}

impl Operation<3> for Convolution {
    /// The images and the weight.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let (images, of_input, of_output) = (values(&x), self.input.len(), self.output().len());
        let count = images.len() / of_input;
        let geometry = Geometry::new(self, count);
        let mut y = Buffer::new(count * of_output);
        time(Part::Gemm, || {
            let (weight, bias) = (values(&weight), values(&bias));
            for_each_piece([&mut y], [geometry.images * of_output], |i, [y]| {
                let images = &images[i * geometry.images * of_input..][..y.len() / of_output * of_input];
                geometry.forward(y, images, weight, Some(bias));
            });
        });
        (y.into_tensor([count, of_output]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (images, dy, kernel) = (values(&x), values(&dy), values(&weight));
        let (of_input, of_output) = (self.input.len(), self.output().len());
        let count = images.len() / of_input;
        let geometry = Geometry::new(self, count);
        let weights = self.outputs * self.depth();
        let mut gradients = [None, None, None];
        time(Part::Gemm, || {
            if needed[0] {
                let mut dx = Buffer::new(count * of_input);
                for_each_piece([&mut dx], [geometry.images * of_input], |i, [dx]| {
                    dx.fill(0.0);
                    let dy = &dy[i * geometry.images * of_output..][..dx.len() / of_input * of_output];
                    geometry.input_gradient(dx, dy, kernel);
                });
                gradients[0] = Some(dx.into_tensor([count, of_input]));
            }
            if needed[1] || needed[2] {
                let sums = sum_over_images(count, weights + self.outputs, |sums, Range { start, end }| {
                    let (x, dy) = (&images[start * of_input..end * of_input], &dy[start * of_output..end * of_output]);
                    let (dw, db) = sums.split_at_mut(weights);
                    add_planes(db, dy, self.output().plane());
                    geometry.weight_gradient(dw, x, dy);
                });
                if needed[1] {
                    let shape = [self.outputs, self.input.channels, self.kernel[0], self.kernel[1]];
                    gradients[1] = Some(Buffer::copy_of(&sums[..weights]).into_tensor(shape));
                }
                if needed[2] {
                    gradients[2] = Some(Buffer::copy_of(&sums[weights..]).into_tensor([self.outputs]));
                }
            }
        });
        gradients
    }
}
