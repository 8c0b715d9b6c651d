use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// √(2/π), the slope inside the tanh form.
const SLOPE: f32 = 0.797_884_6;
/// Weight of the cube inside the tanh form.
const CUBE: f32 = 0.044_715;
/// Elements in a piece of work.
const PIECE: usize = 1 << 15;

/// Gaussian error linear unit (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>) in its tanh form, `gelu_new` in
/// `transformers`: `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    if on_cpu(&x) {
        let shape = x.dims();
        run(Gelu { shape }, [x.into_dispatch()])
    } else {
        again([x.into_dispatch()], |[x]| plain(Tensor::from_dispatch(x)))
    }
}

pub(crate) fn plain(x: Tensor<2>) -> Tensor<2> {
    let narrow = x.dtype();
    let x = wide(x);
    let cube = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cube * CUBE) * SLOPE;
    (x * (inner.tanh() + 1.0) * 0.5).cast(narrow)
}

simd_fn! {
    fn forward(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            let t = simd::tanh::<FMA>(SLOPE * (x + CUBE * x * x * x));
            *y = 0.5 * x * (1.0 + t);
        }
    }

    /// Turns inputs into their gradients.
    fn backward(x: &mut [f32], dy: &[f32]) {
        for (x, &dy) in x.iter_mut().zip(dy) {
            let v = *x;
            let t = simd::tanh::<FMA>(SLOPE * (v + CUBE * v * v * v));
            let slope = SLOPE * (1.0 + 3.0 * CUBE * v * v);
            *x = dy * 0.5 * (1.0 + t + v * (1.0 - t * t) * slope);
        }
    }
}

/// The CPU form of the forward pass.
pub(crate) fn gelu_of(x: &FlexTensor) -> Buffer {
    let from = values(x);
    let mut y = Buffer::new(from.len());
    time(Part::Activation, || {
        for_each_piece([&mut y], [PIECE], |i, [y]| forward(Isa::current(), y, &from[i * PIECE..]));
    });
    y
}

struct Gelu {
    shape: [usize; 2],
}

impl Operation<1> for Gelu {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Self::Saved>) {
        (gelu_of(&x).into_tensor(self.shape), needed[0].then_some(x))
    }

    fn backward(&self, x: FlexTensor, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let dy = values(&dy);
        let mut gradient = owned(x);
        time(Part::Activation, || {
            for_each_piece([values_mut(&mut gradient)], [PIECE], |i, [x]| backward(Isa::current(), x, &dy[i * PIECE..]));
        });
        [Some(gradient)]
    }
}
