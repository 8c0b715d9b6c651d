use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd_fn};
use crate::profile::{Part, time};
use crate::rows::for_each_piece;

/// Elements in a piece of work.
const PIECE: usize = 1 << 15;

/// Rectified linear unit (Nair & Hinton 2010, <https://www.cs.toronto.edu/~hinton/absps/reluICML.pdf>): `max(x, 0)`, with the slope zero at
/// zero.
pub fn relu(x: Tensor<2>) -> Tensor<2> {
    if on_cpu(&x) {
        let shape = x.dims();
        run(Relu { shape }, [x.into_dispatch()])
    } else {
        again([x.into_dispatch()], |[x]| plain(Tensor::from_dispatch(x)))
    }
}

pub(crate) fn plain(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x)
}

simd_fn! {
    fn forward(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if x > 0.0 { x } else { 0.0 };
        }
    }

    /// Turns the gradients of outputs into those of inputs.
    fn backward(dy: &mut [f32], y: &[f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = if y > 0.0 { *dy } else { 0.0 };
        }
    }
}

struct Relu {
    shape: [usize; 2],
}

impl Operation<1> for Relu {
    /// The output, which what comes after it keeps too.
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<FlexTensor>) {
        let from = values(&x);
        let mut y = Buffer::new(from.len());
        time(Part::Activation, || {
            for_each_piece([&mut y], [PIECE], |i, [y]| forward(Isa::current(), y, &from[i * PIECE..]));
        });
        let y = y.into_tensor(self.shape);
        (y.clone(), needed[0].then_some(y))
    }

    fn backward(&self, y: FlexTensor, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let y = values(&y);
        let mut gradient = owned(dy);
        time(Part::Activation, || {
            for_each_piece([values_mut(&mut gradient)], [PIECE], |i, [dy]| backward(Isa::current(), dy, &y[i * PIECE..]));
        });
        [Some(gradient)]
    }
}
