//! Activation functions whose gradient follows from what they give, so that what they read need not be kept.

use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// Elements in a piece of work.
const PIECE: usize = 1 << 15;
/// What is left of an element below zero: that of Radford et al. 2015.
const LEAK: f32 = 0.2;

/// The hyperbolic tangent of each element.
pub fn tanh(x: Tensor<2>) -> Tensor<2> {
    unit(x, Kind::Tanh)
}

/// The rectified linear unit (Nair and Hinton 2010): each element, or zero where it is below. What is no number stays so.
pub fn relu(x: Tensor<2>) -> Tensor<2> {
    unit(x, Kind::Relu)
}

/// The leaky rectified linear unit (Maas et al. 2013): each element, or a fifth of it where it is below zero, so that a network that judges
/// another always has a gradient to give it.
pub fn leaky_relu(x: Tensor<2>) -> Tensor<2> {
    unit(x, Kind::LeakyRelu)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tanh,
    Relu,
    LeakyRelu,
}

fn unit(x: Tensor<2>, kind: Kind) -> Tensor<2> {
    if on_cpu(&x) {
        let shape = x.dims();
        run(Unit { kind, shape }, [x.into_dispatch()])
    } else {
        again([x.into_dispatch()], move |[x]| plain(Tensor::from_dispatch(x), kind))
    }
}

pub(crate) fn plain(x: Tensor<2>, kind: Kind) -> Tensor<2> {
    let narrow = x.dtype();
    match kind {
        Kind::Tanh => wide(x).tanh().cast(narrow),
        Kind::Relu => activation::relu(x),
        Kind::LeakyRelu => activation::leaky_relu(x, f64::from(LEAK)),
    }
}

simd_fn! {
    fn tanh_of(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = simd::tanh::<FMA>(x));
    }

    fn relu_of(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x < 0.0 { 0.0 } else { x });
    }

    fn leaky_relu_of(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x < 0.0 { LEAK * x } else { x });
    }

    /// Turns gradients of the outputs into those of the inputs.
    fn tanh_backward(dy: &mut [f32], y: &[f32]) {
        dy.iter_mut().zip(y).for_each(|(dy, &y)| *dy *= 1.0 - y * y);
    }

    /// As [`tanh_backward`].
    fn relu_backward(dy: &mut [f32], y: &[f32]) {
        dy.iter_mut().zip(y).for_each(|(dy, &y)| *dy = if y > 0.0 { *dy } else { 0.0 });
    }

    /// As [`tanh_backward`]: the output has the input's sign.
    fn leaky_relu_backward(dy: &mut [f32], y: &[f32]) {
        dy.iter_mut().zip(y).for_each(|(dy, &y)| *dy = if y < 0.0 { LEAK * *dy } else { *dy });
    }
}

struct Unit {
    kind: Kind,
    shape: [usize; 2],
}

impl Operation<1> for Unit {
    /// The output.
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Self::Saved>) {
        let x = values(&x);
        let mut y = Buffer::new(x.len());
        let of = match self.kind {
            Kind::Tanh => tanh_of,
            Kind::Relu => relu_of,
            Kind::LeakyRelu => leaky_relu_of,
        };
        time(Part::Activation, || {
            for_each_piece([&mut y], [PIECE], |i, [y]| of(Isa::current(), y, &x[i * PIECE..]));
        });
        let y = y.into_tensor(self.shape);
        let saved = needed[0].then(|| y.clone());
        (y, saved)
    }

    fn backward(&self, y: FlexTensor, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let y = values(&y);
        let mut dx = owned(dy);
        let back = match self.kind {
            Kind::Tanh => tanh_backward,
            Kind::Relu => relu_backward,
            Kind::LeakyRelu => leaky_relu_backward,
        };
        time(Part::Activation, || {
            for_each_piece([values_mut(&mut dx)], [PIECE], |i, [dy]| back(Isa::current(), dy, &y[i * PIECE..]));
        });
        [Some(dx)]
    }
}
