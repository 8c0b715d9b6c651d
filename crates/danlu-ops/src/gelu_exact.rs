use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// 1/√2
const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// 1/√(2π), the normal density at 0.
const DENSITY: f32 = 0.398_942_3;
/// Elements in a piece of work.
const PIECE: usize = 1 << 15;

/// Gaussian error linear unit (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>) by the normal distribution itself, `gelu` in
/// `transformers`: `x/2 · (1 + erf(x/√2))`. BERT uses this one, GPT-2 the approximation [`crate::gelu`].
pub fn gelu_exact(x: Tensor<2>) -> Tensor<2> {
    if on_cpu(&x) {
        let shape = x.dims();
        run(GeluExact { shape }, [x.into_dispatch()])
    } else {
        again([x.into_dispatch()], |[x]| plain(Tensor::from_dispatch(x)))
    }
}

pub(crate) fn plain(x: Tensor<2>) -> Tensor<2> {
    let narrow = x.dtype();
    let x = wide(x);
    let distribution = (x.clone() * HALF_ROOT).erf() + 1.0;
    (x * distribution * 0.5).cast(narrow)
}

simd_fn! {
    fn forward(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = 0.5 * x * (1.0 + simd::erf::<FMA>(x * HALF_ROOT));
        }
    }

    /// Turns inputs into their gradients.
    fn backward(x: &mut [f32], dy: &[f32]) {
        for (x, &dy) in x.iter_mut().zip(dy) {
            let v = *x;
            let distribution = 0.5 * (1.0 + simd::erf::<FMA>(v * HALF_ROOT));
            *x = dy * (distribution + v * DENSITY * simd::exp::<FMA>(-0.5 * v * v));
        }
    }
}

struct GeluExact {
    shape: [usize; 2],
}

impl Operation<1> for GeluExact {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Self::Saved>) {
        let from = values(&x);
        let mut y = Buffer::new(from.len());
        time(Part::Activation, || {
            for_each_piece([&mut y], [PIECE], |i, [y]| forward(Isa::current(), y, &from[i * PIECE..]));
        });
        (y.into_tensor(self.shape), needed[0].then_some(x))
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
