use burn::tensor::Tensor;

use crate::bridge::{on_cpu, owned, primitive, tensor, values, values_mut};
use crate::kernels::{Isa, simd_fn};
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// AdamW's constants (Loshchilov & Hutter 2017, <https://arxiv.org/abs/1711.05101>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay: the weight shrinks by `rate · weight_decay` in each step.
    pub weight_decay: f64,
}

/// One AdamW step. `step` counts from 1 (bias correction); the gradient is multiplied by `scale` first (clipping, averaging
/// over accumulated batches). Returns the weight and its two moments, which start as zeros.
pub fn adamw_step<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: u64,
    scale: f64,
    options: &AdamW,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    assert!(step > 0, "AdamW counts its steps from 1");
    let (weight, gradient, moments) = (weight.inner(), gradient.inner(), moments.map(Tensor::inner));
    assert_eq!(weight.dims(), gradient.dims(), "the gradient has the weight's shape");
    if ![&weight, &gradient, &moments[0], &moments[1]].into_iter().all(on_cpu) {
        return plain(weight, gradient, moments, step, scale, options);
    }
    let gradient = primitive(gradient);
    let mut weight = owned(primitive(weight));
    let [mut first, mut second] = moments.map(|moment| owned(primitive(moment)));
    let constants = Constants::new(step, scale, options);
    let from = values(&gradient);
    time(Part::Optimizer, || {
        let slices = [values_mut(&mut weight), values_mut(&mut first), values_mut(&mut second)];
        for_each_piece(slices, [PIECE; 3], |i, [w, m, v]| update(Isa::current(), w, m, v, &from[i * PIECE..], constants));
    });
    (tensor(weight), [tensor(first), tensor(second)])
}

/// Elements in a piece of work.
pub(super) const PIECE: usize = 1 << 15;

/// What the moments, which start at zero, lack after `step` steps.
fn corrections(step: u64, options: &AdamW) -> [f64; 2] {
    [options.beta1, options.beta2].map(|beta| 1.0 - beta.powf(step as f64))
}

/// What a step multiplies by.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    pub(super) scale: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// What the decays leave to the gradient.
    pub(super) rest1: f32,
    pub(super) rest2: f32,
    /// What the decay leaves of the weight.
    pub(super) keep: f32,
    /// The learning rate with the first moment's correction.
    pub(super) rate: f32,
    /// The second moment's correction of the root.
    pub(super) root: f32,
    pub(super) epsilon: f32,
}

impl Constants {
    pub(super) fn new(step: u64, scale: f64, options: &AdamW) -> Self {
        let [c1, c2] = corrections(step, options);
        let (beta1, beta2) = (options.beta1 as f32, options.beta2 as f32);
        Self {
            scale: scale as f32,
            beta1,
            beta2,
            rest1: 1.0 - beta1,
            rest2: 1.0 - beta2,
            keep: (1.0 - options.rate * options.weight_decay) as f32,
            rate: (options.rate / c1) as f32,
            root: (1.0 / c2.sqrt()) as f32,
            epsilon: options.epsilon as f32,
        }
    }
}

simd_fn! {
    fn update(w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: Constants) {
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * c.scale;
            *m = c.beta1 * *m + c.rest1 * g;
            *v = c.beta2 * *v + c.rest2 * g * g;
            *w = c.keep * *w - c.rate * *m / (v.sqrt() * c.root + c.epsilon);
        }
    }
}

pub(crate) fn plain<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: u64,
    scale: f64,
    o: &AdamW,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let gradient = gradient * scale;
    let first = first * o.beta1 + gradient.clone() * (1.0 - o.beta1);
    let second = second * o.beta2 + gradient.square() * (1.0 - o.beta2);
    let [c1, c2] = corrections(step, o);
    let direction = (first.clone() / c1) / ((second.clone() / c2).sqrt() + o.epsilon);
    (weight * (1.0 - o.rate * o.weight_decay) - direction * o.rate, [first, second])
}
