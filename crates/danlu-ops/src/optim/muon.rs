use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::bridge::{on_cpu, owned, primitive, tensor, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, Mat, MatMut, gemm, simd_fn};
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, scale as scale_by};

/// Muon's constants (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the momentum, which is used in Nesterov's form.
    pub momentum: f64,
    /// Decoupled decay: the weight shrinks by `rate · weight_decay` in each step.
    pub weight_decay: f64,
    /// Newton–Schulz iterations; five bring every singular value near one.
    pub iterations: usize,
}

/// Coefficients of the quintic Newton–Schulz iteration, tuned for slope at zero.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// One Muon step for a weight matrix `[out, in]`: Nesterov momentum, made orthogonal, scaled by `0.2 · √max(out, in)` so that
/// the update's root mean square is AdamW's and one learning rate serves both (Liu et al. 2025,
/// <https://arxiv.org/abs/2502.16982>). The gradient is multiplied by `scale` first. Returns the weight and the momentum,
/// which starts as zeros.
pub fn muon_step(
    weight: Tensor<2>,
    gradient: Tensor<2>,
    momentum: Tensor<2>,
    scale: f64,
    options: &Muon,
) -> (Tensor<2>, Tensor<2>) {
    let (weight, gradient, momentum) = (weight.inner(), gradient.inner(), momentum.inner());
    let shape = weight.dims();
    assert_eq!(shape, gradient.dims(), "the gradient has the weight's shape");
    if ![&weight, &gradient, &momentum].into_iter().all(on_cpu) {
        return plain(weight, gradient, momentum, scale, options);
    }
    let (gradient, [mut weight, mut momentum]) = (primitive(gradient), [weight, momentum].map(|x| owned(primitive(x))));
    let update =
        orthogonal_on_cpu(nesterov(&gradient, &mut momentum, scale as f32, options.momentum as f32), shape, options.iterations);
    let keep = (1.0 - options.rate * options.weight_decay) as f32;
    let size = step_size(shape, options.rate) as f32;
    time(Part::Optimizer, || {
        let update = values(&update);
        for_each_piece([values_mut(&mut weight)], [PIECE], |i, [w]| {
            subtract(Isa::current(), w, &update[i * PIECE..], keep, size)
        });
    });
    (tensor(weight), tensor(momentum))
}

/// Elements in a piece of work.
const PIECE: usize = 1 << 15;

/// The learning rate with the scale that gives the update the root mean square of AdamW's.
fn step_size([outputs, inputs]: [usize; 2], rate: f64) -> f64 {
    rate * 0.2 * (outputs.max(inputs) as f64).sqrt()
}

/// Adds the gradient to the momentum; returns the gradient with the momentum it will have.
fn nesterov(gradient: &FlexTensor, momentum: &mut FlexTensor, scale: f32, decay: f32) -> Buffer {
    let gradient = values(gradient);
    let mut update = Buffer::new(gradient.len());
    time(Part::Optimizer, || {
        for_each_piece([&mut update, values_mut(momentum)], [PIECE; 2], |i, [update, momentum]| {
            accumulate(Isa::current(), update, momentum, &gradient[i * PIECE..], scale, decay);
        });
    });
    update
}

simd_fn! {
    fn accumulate(update: &mut [f32], momentum: &mut [f32], gradient: &[f32], scale: f32, decay: f32) {
        for ((update, momentum), &g) in update.iter_mut().zip(momentum).zip(gradient) {
            let g = g * scale;
            *momentum = decay * *momentum + g;
            *update = decay * *momentum + g;
        }
    }

    fn subtract(w: &mut [f32], update: &[f32], keep: f32, size: f32) {
        for (w, &update) in w.iter_mut().zip(update) {
            *w = keep * *w - size * update;
        }
    }

    /// `mix = b · gram + c · mix`.
    fn blend(mix: &mut [f32], gram: &[f32], b: f32, c: f32) {
        for (mix, &gram) in mix.iter_mut().zip(gram) {
            *mix = b * gram + c * *mix;
        }
    }
}

/// [`orthogonal`] with our products. A tall matrix is read as its transpose, so that the squares are of the smaller side.
fn orthogonal_on_cpu(mut x: Buffer, [rows, columns]: [usize; 2], iterations: usize) -> FlexTensor {
    let side = rows.min(columns);
    let norm = x.chunks(PIECE).map(|piece| piece.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()).sum::<f64>().sqrt();
    time(Part::Optimizer, || scale_by(&mut x, (1.0 / (norm + 1e-7)) as f32));
    let (mut gram, mut mix, mut next) = (Buffer::new(side * side), Buffer::new(side * side), Buffer::new(rows * columns));
    let [a, b, c] = QUINTIC.map(|coefficient| coefficient as f32);
    for _ in 0..iterations {
        let view = Mat::row_major(&x, rows, columns);
        let wide = if rows > columns { view.t() } else { view };
        time(Part::Gemm, || {
            gemm(MatMut::row_major(&mut gram, side, side), wide, wide.t(), false);
            let gram = Mat::row_major(&gram, side, side);
            gemm(MatMut::row_major(&mut mix, side, side), gram, gram, false);
        });
        time(Part::Optimizer, || {
            for_each_piece([&mut mix], [PIECE], |i, [mix]| blend(Isa::current(), mix, &gram[i * PIECE..], b, c));
            // The first term, a · x, goes in through the diagonal.
            (0..side).for_each(|i| mix[i * side + i] += a);
        });
        time(Part::Gemm, || {
            let mix = Mat::row_major(&mix, side, side);
            let next = MatMut::row_major(&mut next, rows, columns);
            // The mix is symmetric, so that x mix is the transpose of mix xᵀ.
            if rows > columns { gemm(next, view, mix, false) } else { gemm(next, mix, view, false) }
        });
        std::mem::swap(&mut x, &mut next);
    }
    x.into_tensor([rows, columns])
}

pub(crate) fn plain(w: Tensor<2>, gradient: Tensor<2>, momentum: Tensor<2>, scale: f64, o: &Muon) -> (Tensor<2>, Tensor<2>) {
    let size = step_size(w.dims(), o.rate);
    let gradient = gradient * scale;
    let momentum = momentum * o.momentum + gradient.clone();
    let update = orthogonal(gradient + momentum.clone() * o.momentum, o.iterations);
    (w * (1.0 - o.rate * o.weight_decay) - update * size, momentum)
}

/// The nearest matrix with all singular values near one.
fn orthogonal(x: Tensor<2>, iterations: usize) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let mut x = if rows > columns { x.transpose() } else { x };
    let norm = x.clone().square().sum().sqrt() + 1e-7;
    x = x / norm.unsqueeze();
    let [a, b, c] = QUINTIC;
    for _ in 0..iterations {
        let gram = x.clone().matmul(x.clone().transpose());
        let mix = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + mix.matmul(x);
    }
    if rows > columns { x.transpose() } else { x }
}
