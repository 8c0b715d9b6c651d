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
    /// Values of one phase.
    #[inline(always)]
    fn len(&self) -> usize {
        self.rows * self.width
    }

    /// Values of all phases of a plane.
    #[inline(always)]
    fn of_plane(&self, stride: usize) -> usize {
        stride * stride * self.len()
    }

    /// Where the first row lies that the window's place (`ky`, `kx`) sees.
    #[inline(always)]
    fn place(&self, ky: usize, kx: usize, stride: usize) -> usize {
        (ky % stride * stride + kx % stride) * self.len() + ky / stride * self.width + kx / stride
    }

    /// Runs `body` for each row of the padded plane that lies on the image: its place among `lines` of `width × stride`, those of one row of
    /// phases after each other, and the image's row.
    #[inline(always)]
    fn for_each_line(&self, shape: &Convolution, block: Block, mut body: impl FnMut(Range<usize>, Range<usize>)) {
        let length = self.width * shape.stride;
        let count = shape.input.width.min(length.saturating_sub(shape.padding));
        for line in 0..shape.stride * self.rows {
            if let Some(row) = shape.row(block.first + line % self.rows, line / self.rows) {
                let (to, from) = (line * length + shape.padding, row * shape.input.width);
                body(to..to + count, from..from + count);
            }
        }
    }
}

/// Every `stride`-th of `lines` from each of the first on, to phases.
#[inline(always)]
fn separate(phases: &mut [f32], lines: &[f32], of: Phases, stride: usize) {
    let lines = lines.chunks_exact(of.len() * stride);
    for (phases, lines) in phases.chunks_exact_mut(of.len() * stride).zip(lines) {
        if stride == 2 {
            // Written out, since it becomes a shuffle of vectors.
            let (even, odd) = phases.split_at_mut(of.len());
            let both = even.iter_mut().zip(odd);
            both.zip(lines.as_chunks::<2>().0).for_each(|((even, odd), [a, b])| (*even, *odd) = (*a, *b));
        } else {
            for (first, phase) in phases.chunks_exact_mut(of.len()).enumerate() {
                phase.iter_mut().zip(lines[first..].iter().step_by(stride)).for_each(|(to, x)| *to = *x);
            }
        }
    }
}

/// What [`separate`] did, undone.
#[inline(always)]
fn join(lines: &mut [f32], phases: &[f32], of: Phases, stride: usize) {
    let lines = lines.chunks_exact_mut(of.len() * stride);
    for (phases, lines) in phases.chunks_exact(of.len() * stride).zip(lines) {
        if stride == 2 {
            let (even, odd) = phases.split_at(of.len());
            let both = even.iter().zip(odd);
            lines.as_chunks_mut::<2>().0.iter_mut().zip(both).for_each(|(to, (even, odd))| *to = [*even, *odd]);
        } else {
            for (first, phase) in phases.chunks_exact(of.len()).enumerate() {
                lines[first..].iter_mut().step_by(stride).zip(phase).for_each(|(to, x)| *to = *x);
            }
        }
    }
}

simd_fn! {
    /// The columns `[depth, images × rows × width]` of a block, whose first image `images` begin with.
    fn unfold(columns: &mut [f32], images: &[f32], room: &mut [f32], shape: &Convolution, block: Block) {
        let (of, plane) = (block.phases(shape), shape.input.plane());
        let of_plane = of.of_plane(shape.stride);
        let (lines, all) = room.split_at_mut(of_plane);
        let steps = block.width.next_multiple_of(STEP);
        let mut row = 0;
        for channel in 0..shape.input.channels {
            for (image, phases) in all.chunks_exact_mut(of_plane).take(block.images).enumerate() {
                let plane = &images[image * shape.input.len() + channel * plane..][..plane];
                let padded = if shape.stride == 1 { &mut *phases } else { &mut *lines };
                padded.fill(0.0);
                of.for_each_line(shape, block, |to, from| padded[to].copy_from_slice(&plane[from]));
                if shape.stride > 1 {
                    separate(phases, lines, of, shape.stride);
                }
            }
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    for image in 0..block.images {
                        let phase = &all[image * of_plane + of.place(ky, kx, shape.stride)..];
                        for y in 0..block.rows {
                            // What is written behind a row, up to a step, is the next row's, which is written after it.
                            let (to, from) = (&mut columns[row..][..steps], &phase[y * of.width..][..steps]);
                            to.as_chunks_mut::<STEP>().0.iter_mut().zip(from.as_chunks::<STEP>().0).for_each(|(to, from)| *to = *from);
                            row += block.width;
                        }
                    }
                }
            }
        }
    }

    /// Adds columns to where [`unfold`] took them from.
    fn fold(images: &mut [f32], columns: &[f32], room: &mut [f32], shape: &Convolution, block: Block) {
        let (of, plane) = (block.phases(shape), shape.input.plane());
        let of_plane = of.of_plane(shape.stride);
        let (lines, all) = room.split_at_mut(of_plane);
        let (whole, rest) = (block.width / STEP * STEP, block.width % STEP);
        // Of a step that reaches behind a row, which bits count.
        let counts: [u32; STEP] = std::array::from_fn(|i| if i < rest { u32::MAX } else { 0 });
        let mut row = 0;
        for channel in 0..shape.input.channels {
            all[..block.images * of_plane].fill(0.0);
            for ky in 0..shape.kernel[0] {
                for kx in 0..shape.kernel[1] {
                    for image in 0..block.images {
                        let phase = &mut all[image * of_plane + of.place(ky, kx, shape.stride)..];
                        for y in 0..block.rows {
                            let (to, from) = (&mut phase[y * of.width..], &columns[row..]);
                            to[..whole].iter_mut().zip(&from[..whole]).for_each(|(to, x)| *to += x);
                            if rest > 0 {
                                let last = to[whole..][..STEP].iter_mut().zip(&from[whole..][..STEP]).zip(&counts);
                                last.for_each(|((to, x), counts)| *to += f32::from_bits(x.to_bits() & counts));
                            }
                            row += block.width;
                        }
                    }
                }
            }
            for (image, phases) in all.chunks_exact(of_plane).take(block.images).enumerate() {
                let plane = &mut images[image * shape.input.len() + channel * plane..][..plane];
                if shape.stride > 1 {
                    join(lines, phases, of, shape.stride);
                }
                let padded = if shape.stride == 1 { phases } else { &*lines };
                of.for_each_line(shape, block, |from, to| {
                    plane[to].iter_mut().zip(&padded[from]).for_each(|(to, x)| *to += x);
                });
            }
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
        self.for_each_block(images.len() / self.shape.input.len(), |at, block, columns, side, room| {
            unfold(Isa::current(), columns, &images[at * self.shape.input.len()..], room, self.shape, block);
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
        self.for_each_block(images.len() / self.shape.input.len(), |at, block, columns, side, room| {
            unfold(Isa::current(), columns, &images[at * self.shape.input.len()..], room, self.shape, block);
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
        self.for_each_block(dx.len() / self.shape.input.len(), |at, block, columns, side, room| {
            self.for_each_plane(at, block, |_, place, beside| side[beside].copy_from_slice(&dy[place]));
            gemm_here(
                MatMut::row_major(columns, depth, block.len()),
                Mat::row_major(weight, outputs, depth).t(),
                Mat::row_major(side, outputs, block.len()),
                1.0,
                false,
            );
            fold(Isa::current(), &mut dx[at * self.shape.input.len()..], columns, room, self.shape, block);
        });
    }

    /// Runs `body` for blocks of `count` images, with the first image of each, and room: for its columns, with a step behind them, for as many
    /// columns of the output, and for a padded plane and the phases of one of each image, with a step behind them too.
    fn for_each_block(&self, count: usize, mut body: impl FnMut(usize, Block, &mut [f32], &mut [f32], &mut [f32])) {
        let (depth, outputs, width) = (self.shape.depth(), self.shape.outputs, self.output.width);
        let largest = Block { images: self.images.min(count), first: 0, rows: self.rows, width };
        let of_phases = largest.phases(self.shape).of_plane(self.shape.stride);
        let room = (depth + outputs) * largest.len() + (1 + largest.images) * of_phases + 2 * STEP;
        scratch::with(Use::Columns, room, |room| {
            for at in (0..count).step_by(self.images) {
                for first in (0..self.output.height).step_by(self.rows) {
                    let rows = self.rows.min(self.output.height - first);
                    let block = Block { images: self.images.min(count - at), first, rows, width };
                    let (columns, rest) = room.split_at_mut(depth * block.len() + STEP);
                    let (side, rest) = rest.split_at_mut(outputs * block.len());
                    body(at, block, columns, side, rest);
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
}
