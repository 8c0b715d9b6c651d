//! The columns of images, which convolutions are products with: a few images, or a few rows of one, are unfolded at a time into scratch
//! memory that stays in the second cache, so that no matrix of all columns is ever written to memory, neither forward nor backward.
//!
//! With a stride, what lies beside each other in a row of columns lies apart in the image. So a plane is taken apart first, once for all
//! places of the window: into what lies under its first column, its second, up to the stride, and rows alike. Of such a phase a row of
//! columns has rows as they are.

use std::ops::Range;

use super::Convolution;
use crate::kernels::scratch::{self, Use};
use crate::kernels::{Isa, Mat, MatMut, gemm_here, simd_fn};
use crate::planes::Planes;

/// Values of columns that are unfolded at once: 512 KB, which the second cache holds beside the weights.
const COLUMNS: usize = 1 << 17;
/// Pieces that a batch is cut into, at least, so that all threads have some.
const PIECES: usize = 16;
/// Rows of columns are written in steps of so many values, so that there must be room behind the last.
const STEP: usize = 8;

/// What the passes over images share.
pub(crate) struct Geometry<'a> {
    shape: &'a Convolution,
    output: Planes,
    /// Images whose columns are unfolded at once; more than one only when all their rows are.
    pub images: usize,
    /// Rows of the output whose columns are unfolded at once.
    rows: usize,
}

/// Which columns are unfolded at once, of how many images.
#[derive(Clone, Copy)]
struct Block {
    images: usize,
    /// Rows of the output.
    first: usize,
    rows: usize,
    /// Of the output.
    width: usize,
}

/// The phases of a plane under a block.
#[derive(Clone, Copy)]
struct Phases {
    rows: usize,
    width: usize,
}

impl Block {
    /// Columns.
    fn len(&self) -> usize {
        self.images * self.rows * self.width
    }

    #[inline(always)]
    fn phases(&self, shape: &Convolution) -> Phases {
        let [rows, columns] = shape.kernel;
        let steps = |places: usize, window: usize| ((places - 1) * shape.stride + window).div_ceil(shape.stride);
        Phases { rows: steps(self.rows, rows), width: steps(self.width, columns) }
    }
}

impl Phases {
    /// Values of all phases of a plane.
    #[inline(always)]
    fn of_plane(&self, stride: usize) -> usize {
        stride * stride * self.rows * self.width
    }

    /// Where the first row lies that the window's place (`ky`, `kx`) sees.
    #[inline(always)]
    fn place(&self, ky: usize, kx: usize, stride: usize) -> usize {
        let phase = ky % stride * stride + kx % stride;
        phase * self.rows * self.width + ky / stride * self.width + kx / stride
    }
}

simd_fn! {
    /// Takes the rows of a plane that lie under a block apart.
    fn take_apart(phases: &mut [f32], plane: &[f32], shape: &Convolution, block: Block) {
        let Phases { rows, width } = block.phases(shape);
        let mut all = phases.chunks_exact_mut(width);
        for ky in 0..shape.stride {
            for kx in 0..shape.stride {
                let (start, end, from) = shape.span(kx, width);
                for (y, to) in all.by_ref().take(rows).enumerate() {
                    let Some(row) = shape.row(block.first + y, ky).filter(|_| start < end) else {
                        to.fill(0.0);
                        continue;
                    };
                    let source = &plane[row * shape.input.width..][..shape.input.width][from..];
                    to[..start].fill(0.0);
                    to[end..].fill(0.0);
                    let to = &mut to[start..end];
                    match shape.stride {
                        1 => to.copy_from_slice(&source[..to.len()]),
                        2 => {
                            // Written out, since it becomes a shuffle of vectors.
                            let (pairs, last) = source.as_chunks::<2>();
                            to.iter_mut().zip(pairs).for_each(|(to, [x, _])| *to = *x);
                            if let (Some(to), [x]) = (to.get_mut(pairs.len()), last) {
                                *to = *x;
                            }
                        }
                        stride => to.iter_mut().zip(source.iter().step_by(stride)).for_each(|(to, x)| *to = *x),
                    }
                }
            }
        }
    }

    /// Adds phases to the plane that [`take_apart`] took them from.
    fn put_together(plane: &mut [f32], phases: &[f32], shape: &Convolution, block: Block) {
        let Phases { rows, width } = block.phases(shape);
        let mut all = phases.chunks_exact(width);
        for ky in 0..shape.stride {
            for kx in 0..shape.stride {
                let (start, end, to) = shape.span(kx, width);
                for (y, phase) in all.by_ref().take(rows).enumerate() {
                    let Some(row) = shape.row(block.first + y, ky).filter(|_| start < end) else { continue };
                    let target = plane[row * shape.input.width..][..shape.input.width][to..].iter_mut();
                    target.step_by(shape.stride).zip(&phase[start..end]).for_each(|(to, x)| *to += x);
                }
            }
        }
    }

    /// Copies rows from phases to columns. What is written behind a row, up to a step, is the next row's, which is written after it.
    fn copy_rows(to: &mut [f32], from: &[f32], block: Block, stride: usize) {
        let steps = block.width.next_multiple_of(STEP);
        for y in 0..block.rows {
            let (to, from) = (&mut to[y * block.width..][..steps], &from[y * stride..][..steps]);
            to.as_chunks_mut::<STEP>().0.iter_mut().zip(from.as_chunks::<STEP>().0).for_each(|(to, from)| *to = *from);
        }
    }

    /// Adds rows of columns to phases.
    fn add_rows(to: &mut [f32], from: &[f32], block: Block, stride: usize) {
        for (to, from) in to.chunks_mut(stride).zip(from.chunks_exact(block.width).take(block.rows)) {
            to[..block.width].iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }

    fn copy_plus(to: &mut [f32], from: &[f32], more: f32) {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = x + more);
    }
}

impl<'a> Geometry<'a> {
    /// For a batch of `count` images.
    pub(crate) fn new(shape: &'a Convolution, count: usize) -> Self {
        let output = shape.output();
        let of_row = (shape.depth() * output.width).max(1);
        let rows = (COLUMNS / of_row).clamp(1, output.height);
        let images = if rows < output.height { 1 } else { COLUMNS / (of_row * rows) };
        Self { shape, output, images: images.clamp(1, count.div_ceil(PIECES).max(1)), rows }
    }

    /// Writes the convolution of images to `y`, with a `bias` for each channel.
    pub(crate) fn forward(&self, y: &mut [f32], images: &[f32], weight: &[f32], bias: Option<&[f32]>) {
        let (depth, outputs) = (self.shape.depth(), self.shape.outputs);
        self.for_each_block(images.len() / self.shape.input.len(), |at, block, columns, side, phases| {
            self.unfold(columns, &images[at * self.shape.input.len()..], phases, block);
            gemm_here(
                MatMut::row_major(side, outputs, block.len()),
                Mat::row_major(weight, outputs, depth),
                Mat::row_major(columns, depth, block.len()),
                1.0,
                false,
            );
            self.for_each_plane(at, block, |channel, place, beside| {
                let bias = bias.map_or(0.0, |bias| bias[channel]);
                copy_plus(Isa::current(), &mut y[place], &side[beside], bias);
            });
        });
    }

    /// Adds to the gradient of the weight.
    pub(crate) fn weight_gradient(&self, dw: &mut [f32], images: &[f32], dy: &[f32]) {
        let (depth, outputs) = (self.shape.depth(), self.shape.outputs);
        self.for_each_block(images.len() / self.shape.input.len(), |at, block, columns, side, phases| {
            self.unfold(columns, &images[at * self.shape.input.len()..], phases, block);
            self.for_each_plane(at, block, |_, place, beside| side[beside].copy_from_slice(&dy[place]));
            gemm_here(
                MatMut::row_major(dw, outputs, depth),
                Mat::row_major(side, outputs, block.len()),
                Mat::row_major(columns, depth, block.len()).t(),
                1.0,
                true,
            );
        });
    }

    /// Adds the gradient of images to `dx`.
    pub(crate) fn input_gradient(&self, dx: &mut [f32], dy: &[f32], weight: &[f32]) {
        let (depth, outputs) = (self.shape.depth(), self.shape.outputs);
        self.for_each_block(dx.len() / self.shape.input.len(), |at, block, columns, side, phases| {
            self.for_each_plane(at, block, |_, place, beside| side[beside].copy_from_slice(&dy[place]));
            gemm_here(
                MatMut::row_major(columns, depth, block.len()),
                Mat::row_major(weight, outputs, depth).t(),
                Mat::row_major(side, outputs, block.len()),
                1.0,
                false,
            );
            self.fold(&mut dx[at * self.shape.input.len()..], columns, phases, block);
        });
    }

    /// Runs `body` for blocks of `count` images, with the first image of each, and room: for its columns, with a step behind them, for as many
    /// columns of the output, and for the phases of a plane of each image, with a step behind them too.
    fn for_each_block(&self, count: usize, mut body: impl FnMut(usize, Block, &mut [f32], &mut [f32], &mut [f32])) {
        let (depth, outputs, width) = (self.shape.depth(), self.shape.outputs, self.output.width);
        let largest = Block { images: self.images.min(count), first: 0, rows: self.rows, width };
        let of_phases = largest.phases(self.shape).of_plane(self.shape.stride);
        let room = (depth + outputs) * largest.len() + largest.images * of_phases + 2 * STEP;
        scratch::with(Use::Columns, room, |room| {
            for at in (0..count).step_by(self.images) {
                for first in (0..self.output.height).step_by(self.rows) {
                    let rows = self.rows.min(self.output.height - first);
                    let block = Block { images: self.images.min(count - at), first, rows, width };
                    let (columns, rest) = room.split_at_mut(depth * block.len() + STEP);
                    let (side, phases) = rest.split_at_mut(outputs * block.len());
                    body(at, block, columns, side, phases);
                }
            }
        });
    }

    /// Runs `body` for each channel of the output and each image of a block, with where its rows lie among outputs, image after image, and where
    /// among columns.
    fn for_each_plane(&self, at: usize, block: Block, mut body: impl FnMut(usize, Range<usize>, Range<usize>)) {
        let length = block.rows * block.width;
        for channel in 0..self.shape.outputs {
            for image in 0..block.images {
                let place = (at + image) * self.output.len() + channel * self.output.plane() + block.first * block.width;
                let beside = channel * block.len() + image * length;
                body(channel, place..place + length, beside..beside + length);
            }
        }
    }

    /// The columns `[depth, images × rows × width]` of a block, whose first image `images` begin with.
    fn unfold(&self, columns: &mut [f32], images: &[f32], phases: &mut [f32], block: Block) {
        let (shape, of) = (self.shape, block.phases(self.shape));
        let (of_plane, length) = (of.of_plane(shape.stride), block.rows * block.width);
        let mut row = 0;
        for channel in 0..shape.input.channels {
            for (image, phases) in phases.chunks_exact_mut(of_plane).take(block.images).enumerate() {
                let plane = &images[image * shape.input.len() + channel * shape.input.plane()..][..shape.input.plane()];
                take_apart(Isa::current(), phases, plane, shape, block);
            }
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    let place = of.place(ky, kx, shape.stride);
                    for image in 0..block.images {
                        let to = &mut columns[row + image * length..];
                        copy_rows(Isa::current(), to, &phases[image * of_plane + place..], block, of.width);
                    }
                    row += block.len();
                }
            }
        }
    }

    /// Adds columns to where [`Geometry::unfold`] took them from.
    fn fold(&self, images: &mut [f32], columns: &[f32], phases: &mut [f32], block: Block) {
        let (shape, of) = (self.shape, block.phases(self.shape));
        let (of_plane, length) = (of.of_plane(shape.stride), block.rows * block.width);
        let mut row = 0;
        for channel in 0..shape.input.channels {
            phases[..block.images * of_plane].fill(0.0);
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    let place = of.place(ky, kx, shape.stride);
                    for image in 0..block.images {
                        let from = &columns[row + image * length..][..length];
                        add_rows(Isa::current(), &mut phases[image * of_plane + place..], from, block, of.width);
                    }
                    row += block.len();
                }
            }
            for (image, phases) in phases.chunks_exact(of_plane).take(block.images).enumerate() {
                let plane = &mut images[image * shape.input.len() + channel * shape.input.plane()..][..shape.input.plane()];
                put_together(Isa::current(), plane, phases, shape, block);
            }
        }
    }
}
