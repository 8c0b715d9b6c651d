//! Convolutions of images, as products with the images' columns (Chellapilla et al. 2006,
//! <https://inria.hal.science/inria-00112631>): an image is unfolded a few rows at a time into scratch memory that stays in the second
//! cache, so that no matrix of all columns is ever written to memory, neither forward nor backward.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::kernels::scratch::{self, Use};
use crate::kernels::{Isa, Mat, MatMut, gemm_here, simd, simd_fn};
use crate::planes::Planes;
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, sum_rows};

/// Values of columns that are unfolded at once: 512 KB, which the second cache holds beside the weights.
const COLUMNS: usize = 1 << 17;
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

    /// Columns of the output for which the window's column `kx` lies on the image, and the image's column for the first of them.
    #[inline(always)]
    fn span(&self, kx: usize, width: usize) -> (usize, usize, usize) {
        let end = (self.input.width + self.padding).saturating_sub(kx).div_ceil(self.stride).min(width);
        let start = self.padding.saturating_sub(kx).div_ceil(self.stride).min(end);
        // Of an empty span nothing is read, whatever its place.
        (start, end, (start * self.stride + kx).saturating_sub(self.padding))
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
    /// The columns `[depth, rows × width]` of `rows` rows of the output, from row `first` on, of one image.
    fn unfold(columns: &mut [f32], image: &[f32], shape: &Convolution, width: usize, first: usize, rows: usize) {
        let plane = shape.input.plane();
        let mut all = columns.chunks_exact_mut(rows * width);
        for image in image.chunks_exact(plane) {
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    let Some(to) = all.next() else { return };
                    let (start, end, from) = shape.span(kx, width);
                    for (y, to) in to.chunks_exact_mut(width).enumerate() {
                        let Some(row) = shape.row(first + y, ky).filter(|_| start < end) else {
                            to.fill(0.0);
                            continue;
                        };
                        let source = &image[row * shape.input.width..][..shape.input.width][from..];
                        to[..start].fill(0.0);
                        to[end..].fill(0.0);
                        if shape.stride == 1 {
                            to[start..end].copy_from_slice(&source[..end - start]);
                        } else {
                            to[start..end].iter_mut().zip(source.iter().step_by(shape.stride)).for_each(|(to, x)| *to = *x);
                        }
                    }
                }
            }
        }
    }

    /// Adds columns to where [`unfold`] took them from.
    fn fold(image: &mut [f32], columns: &[f32], shape: &Convolution, width: usize, first: usize, rows: usize) {
        let plane = shape.input.plane();
        let mut all = columns.chunks_exact(rows * width);
        for image in image.chunks_exact_mut(plane) {
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    let Some(columns) = all.next() else { return };
                    let (start, end, to) = shape.span(kx, width);
                    for (y, columns) in columns.chunks_exact(width).enumerate() {
                        let Some(row) = shape.row(first + y, ky).filter(|_| start < end) else { continue };
                        let target = &mut image[row * shape.input.width..][..shape.input.width][to..];
                        if shape.stride == 1 {
                            target[..end - start].iter_mut().zip(&columns[start..end]).for_each(|(to, x)| *to += x);
                        } else {
                            let target = target.iter_mut().step_by(shape.stride);
                            target.zip(&columns[start..end]).for_each(|(to, x)| *to += x);
                        }
                    }
                }
            }
        }
    }

    fn total(x: &[f32]) -> f32 {
        simd::sum(x)
    }
}

/// Fills each plane of an image with its channel's value.
pub(crate) fn fill_planes(image: &mut [f32], channels: &[f32]) {
    let plane = image.len() / channels.len();
    image.chunks_exact_mut(plane).zip(channels).for_each(|(plane, value)| plane.fill(*value));
}

/// Adds the sum of each plane of an image to that of its channel: the gradient of a bias.
pub(crate) fn add_planes(sums: &mut [f32], image: &[f32], plane: usize) {
    sums.iter_mut().zip(image.chunks_exact(plane)).for_each(|(sum, plane)| *sum += total(Isa::current(), plane));
}

/// Sums over images `0..count`, each `width` long, to which `add(sums, image)` adds one image's part. Which images a share has depends on
/// their number alone, and shares are added up in their order.
pub(crate) fn sum_over_images(count: usize, width: usize, add: impl Fn(&mut [f32], usize) + Sync) -> Buffer {
    let share = count.div_ceil(SHARES).max(1);
    let mut partial = Buffer::new(count.div_ceil(share) * width);
    for_each_piece([&mut partial], [width], |i, [sums]| {
        sums.fill(0.0);
        (i * share..count.min((i + 1) * share)).for_each(|image| add(sums, image));
    });
    let mut sums = Buffer::new(width);
    sum_rows(&mut sums, &partial);
    sums
}

/// What the passes over images share.
pub(crate) struct Geometry<'a> {
    shape: &'a Convolution,
    output: Planes,
    /// Rows of the output whose columns are unfolded at once.
    rows: usize,
}

impl<'a> Geometry<'a> {
    pub(crate) fn new(shape: &'a Convolution) -> Self {
        let output = shape.output();
        let rows = (COLUMNS / (shape.depth() * output.width).max(1)).clamp(1, output.height);
        Self { shape, output, rows }
    }

    /// Runs `body` with room for the columns of some rows: the first of them, how many, and the room.
    fn for_each_block(&self, mut body: impl FnMut(usize, usize, &mut [f32])) {
        scratch::with(Use::Columns, self.shape.depth() * self.rows * self.output.width, |room| {
            for first in (0..self.output.height).step_by(self.rows) {
                let rows = self.rows.min(self.output.height - first);
                body(first, rows, &mut room[..self.shape.depth() * rows * self.output.width]);
            }
        });
    }

    /// Adds the convolution of an image to `y`.
    pub(crate) fn forward(&self, y: &mut [f32], image: &[f32], weight: &[f32]) {
        let (depth, outputs, plane, width) = (self.shape.depth(), self.shape.outputs, self.output.plane(), self.output.width);
        self.for_each_block(|first, rows, columns| {
            unfold(Isa::current(), columns, image, self.shape, width, first, rows);
            gemm_here(
                MatMut::new(&mut y[first * width..], outputs, rows * width, plane),
                Mat::row_major(weight, outputs, depth),
                Mat::row_major(columns, depth, rows * width),
                1.0,
                true,
            );
        });
    }

    /// Adds to the gradient of the weight.
    pub(crate) fn weight_gradient(&self, dw: &mut [f32], image: &[f32], dy: &[f32]) {
        let (depth, outputs, plane, width) = (self.shape.depth(), self.shape.outputs, self.output.plane(), self.output.width);
        self.for_each_block(|first, rows, columns| {
            unfold(Isa::current(), columns, image, self.shape, width, first, rows);
            gemm_here(
                MatMut::row_major(dw, outputs, depth),
                Mat::new(&dy[first * width..], outputs, rows * width, plane, 1),
                Mat::row_major(columns, depth, rows * width).t(),
                1.0,
                true,
            );
        });
    }

    /// Adds the gradient of an image to `dx`.
    pub(crate) fn input_gradient(&self, dx: &mut [f32], dy: &[f32], weight: &[f32]) {
        let (depth, outputs, plane, width) = (self.shape.depth(), self.shape.outputs, self.output.plane(), self.output.width);
        self.for_each_block(|first, rows, columns| {
            gemm_here(
                MatMut::row_major(columns, depth, rows * width),
                Mat::row_major(weight, outputs, depth).t(),
                Mat::new(&dy[first * width..], outputs, rows * width, plane, 1),
                1.0,
                false,
            );
            fold(Isa::current(), dx, columns, self.shape, width, first, rows);
        });
    }
}

impl Operation<3> for Convolution {
    /// The images and the weight.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3], needed: [bool; 3]) -> (FlexTensor, Option<Self::Saved>) {
        let geometry = Geometry::new(self);
        let (images, of_image) = (values(&x), self.output().len());
        let count = images.len() / self.input.len();
        let mut y = Buffer::new(count * of_image);
        time(Part::Gemm, || {
            let (weight, bias) = (values(&weight), values(&bias));
            for_each_piece([&mut y], [of_image], |i, [y]| {
                fill_planes(y, bias);
                geometry.forward(y, &images[i * self.input.len()..][..self.input.len()], weight);
            });
        });
        (y.into_tensor([count, of_image]), needed.contains(&true).then_some([x, weight]))
    }

    fn backward(&self, [x, weight]: Self::Saved, dy: FlexTensor, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let geometry = Geometry::new(self);
        let (images, dy, kernel) = (values(&x), values(&dy), values(&weight));
        let (of_input, of_output) = (self.input.len(), self.output().len());
        let count = images.len() / of_input;
        let weights = self.outputs * self.depth();
        let mut gradients = [None, None, None];
        time(Part::Gemm, || {
            if needed[0] {
                let mut dx = Buffer::new(count * of_input);
                for_each_piece([&mut dx], [of_input], |i, [dx]| {
                    dx.fill(0.0);
                    geometry.input_gradient(dx, &dy[i * of_output..][..of_output], kernel);
                });
                gradients[0] = Some(dx.into_tensor([count, of_input]));
            }
            if needed[1] || needed[2] {
                let sums = sum_over_images(count, weights + self.outputs, |sums, image| {
                    let (x, dy) = (&images[image * of_input..][..of_input], &dy[image * of_output..][..of_output]);
                    let (dw, db) = sums.split_at_mut(weights);
                    add_planes(db, dy, geometry.output.plane());
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
