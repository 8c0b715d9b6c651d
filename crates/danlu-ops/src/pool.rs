use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, run, values};
use crate::buffer::Buffer;
use crate::planes::Planes;
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, for_each_piece_and_bytes, rows_per_piece};

/// What becomes of the values under a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean: LeCun's subsampling.
    Average,
    /// The largest of them; the first of equal ones.
    Max,
}

/// Square windows of `size` that move by `stride` over each plane; what is left at the right and below is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What is read.
    pub input: Planes,
    /// From 1 to 15.
    pub size: usize,
    pub stride: usize,
    pub pooling: Pooling,
}

impl Window {
    /// What it gives.
    ///
    /// # Panics
    /// When the window does not fit into a plane.
    pub fn output(&self) -> Planes {
        let Planes { channels, height, width } = self.input;
        assert!(
            self.stride > 0 && (1..16).contains(&self.size) && self.size <= height.min(width),
            "windows of {0}×{0} with stride {1} do not fit into {height}×{width}, or are larger than 15×15",
            self.size,
            self.stride
        );
        Planes { channels, height: (height - self.size) / self.stride + 1, width: (width - self.size) / self.stride + 1 }
    }

    /// Runs `body` with each place of the output of a plane and where its window begins in the input.
    #[inline(always)]
    fn for_each(&self, output: Planes, mut body: impl FnMut(usize, usize)) {
        for y in 0..output.height {
            for x in 0..output.width {
                body(y * output.width + x, (y * self.input.width + x) * self.stride);
            }
        }
    }

    /// Writes the mean of each window of a plane.
    fn means(&self, output: Planes, y: &mut [f32], x: &[f32]) {
        let share = 1.0 / (self.size * self.size) as f32;
        self.for_each(output, |to, from| {
            let row = |row: usize| x[from + row * self.input.width..][..self.size].iter().sum::<f32>();
            y[to] = (0..self.size).map(row).sum::<f32>() * share;
        });
    }

    /// Writes the largest value of each window of a plane, and its place in the window. What is no number is larger than any.
    fn largest(&self, output: Planes, y: &mut [f32], places: &mut [u8], x: &[f32]) {
        self.for_each(output, |to, from| {
            let (mut best, mut place) = (x[from], 0);
            for row in 0..self.size {
                for (column, &value) in x[from + row * self.input.width..][..self.size].iter().enumerate() {
                    if value > best || value.is_nan() {
                        (best, place) = (value, row * self.size + column);
                    }
                }
            }
            y[to] = best;
            places[to] = place as u8;
        });
    }
}

/// Pooling of images: `x` `[images, channels × height × width]` → the same of [`Window::output`].
///
/// # Panics
/// When rows are not of the window's input.
pub fn pool(x: Tensor<2>, window: Window) -> Tensor<2> {
    window.input.check(x.dims()[1]);
    if on_cpu(&x) {
        run(window, [x.into_dispatch()])
    } else {
        again([x.into_dispatch()], move |[x]| plain(Tensor::from_dispatch(x), window))
    }
}

pub(crate) fn plain(x: Tensor<2>, window: Window) -> Tensor<2> {
    let (narrow, images, input) = (x.dtype(), x.dims()[0], window.input);
    let x = wide(x).reshape([images, input.channels, input.height, input.width]);
    let (size, stride) = ([window.size; 2], [window.stride; 2]);
    let y = match window.pooling {
        Pooling::Average => avg_pool2d(x, AvgPoolOptions::new(size).with_stride(stride)),
        Pooling::Max => max_pool2d(x, MaxPoolOptions::new(size).with_stride(stride)),
    };
    y.reshape([images, window.output().len()]).cast(narrow)
}

impl Operation<1> for Window {
    /// Where in its window each largest value was; nothing for means.
    type Saved = Vec<u8>;

    fn forward(&self, [x]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Vec<u8>>) {
        let (x, output) = (values(&x), self.output());
        let (from, to) = (self.input.plane(), output.plane());
        let planes = x.len() / from;
        let mut y = Buffer::new(planes * to);
        let piece = rows_per_piece(planes, from);
        let part = |i: usize| x[i * piece * from..].chunks_exact(from);
        let mut places = vec![];
        time(Part::Activation, || match self.pooling {
            Pooling::Average => for_each_piece([&mut y], [piece * to], |i, [y]| {
                y.chunks_exact_mut(to).zip(part(i)).for_each(|(y, x)| self.means(output, y, x));
            }),
            Pooling::Max => {
                places = vec![0; planes * to];
                let (floats, bytes) = (([&mut y[..]], [piece * to]), ([&mut places[..]], [piece * to]));
                for_each_piece_and_bytes(floats, bytes, |i, [y], [places]| {
                    let planes = y.chunks_exact_mut(to).zip(places.chunks_exact_mut(to)).zip(part(i));
                    planes.for_each(|((y, places), x)| self.largest(output, y, places, x));
                });
            }
        });
        (y.into_tensor([planes / self.input.channels, output.len()]), needed[0].then_some(places))
    }

    fn backward(&self, places: Vec<u8>, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (dy, output) = (values(&dy), self.output());
        let (from, to) = (self.input.plane(), output.plane());
        let planes = dy.len() / to;
        let mut dx = Buffer::new(planes * from);
        let piece = rows_per_piece(planes, from);
        let share = 1.0 / (self.size * self.size) as f32;
        time(Part::Activation, || {
            for_each_piece([&mut dx], [piece * from], |i, [dx]| {
                for (plane, dx) in (i * piece..).zip(dx.chunks_exact_mut(from)) {
                    let dy = &dy[plane * to..][..to];
                    dx.fill(0.0);
                    match self.pooling {
                        Pooling::Average => self.for_each(output, |at, start| {
                            for row in 0..self.size {
                                let row = &mut dx[start + row * self.input.width..][..self.size];
                                row.iter_mut().for_each(|dx| *dx += dy[at] * share);
                            }
                        }),
                        Pooling::Max => {
                            let places = &places[plane * to..][..to];
                            self.for_each(output, |at, start| {
                                let (row, column) = (places[at] as usize / self.size, places[at] as usize % self.size);
                                dx[start + row * self.input.width + column] += dy[at];
                            });
                        }
                    }
                }
            });
        });
        [Some(dx.into_tensor([planes / self.input.channels, self.input.len()]))]
    }
}
