use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation::silu};

use crate::again::again;
use crate::bridge::{Operation, on_cpu, owned, run, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::{Isa, simd, simd_fn};
use crate::precision::wide;
use crate::profile::{Part, time};
use crate::rows::{for_each_piece, rows_per_piece};

/// The gated unit of Llama's MLP (Shazeer 2020, <https://arxiv.org/abs/2002.05202>): `gate_up` `[tokens, 2f]` holds the gate
/// and then the value → `silu(gate) · up` `[tokens, f]`.
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    let [_, channels] = gate_up.dims();
    assert!(channels.is_multiple_of(2), "gate and up have the same width, but together {channels} channels");
    if on_cpu(&gate_up) {
        run(Swiglu { width: channels / 2 }, [gate_up.into_dispatch()])
    } else {
        again([gate_up.into_dispatch()], |[x]| plain(Tensor::from_dispatch(x)))
    }
}

pub(crate) fn plain(gate_up: Tensor<2>) -> Tensor<2> {
    let (width, narrow) = (gate_up.dims()[1] / 2, gate_up.dtype());
    let gate_up = wide(gate_up);
    (silu(gate_up.clone().narrow(1, 0, width)) * gate_up.narrow(1, width, width)).cast(narrow)
}

simd_fn! {
    fn rows(y: &mut [f32], gate_up: &[f32], width: usize) {
        for (y, row) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = row.split_at(width);
            for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * simd::sigmoid::<FMA>(g) * u;
            }
        }
    }

    /// Turns gates and values into their gradients.
    fn rows_backward(gate_up: &mut [f32], dy: &[f32], width: usize) {
        for (dy, row) in dy.chunks_exact(width).zip(gate_up.chunks_exact_mut(2 * width)) {
            let (gate, up) = row.split_at_mut(width);
            for ((gate, up), &dy) in gate.iter_mut().zip(up).zip(dy) {
                let (g, u) = (*gate, *up);
                let s = simd::sigmoid::<FMA>(g);
                *up = dy * g * s;
                *gate = dy * u * s * (1.0 + g * (1.0 - s));
            }
        }
    }
}

/// The CPU form of the forward pass.
pub(crate) fn swiglu_of(gate_up: &FlexTensor, width: usize) -> Buffer {
    let from = values(gate_up);
    let tokens = from.len() / (2 * width).max(1);
    let mut y = Buffer::new(tokens * width);
    let piece = rows_per_piece(tokens, 2 * width) * width;
    time(Part::Activation, || {
        for_each_piece([&mut y], [piece], |i, [y]| rows(Isa::current(), y, &from[i * 2 * piece..], width));
    });
    y
}

struct Swiglu {
    width: usize,
}

impl Operation<1> for Swiglu {
    type Saved = FlexTensor;

    fn forward(&self, [gate_up]: [FlexTensor; 1], needed: [bool; 1]) -> (FlexTensor, Option<Self::Saved>) {
        let y = swiglu_of(&gate_up, self.width);
        let tokens = y.len() / self.width.max(1);
        (y.into_tensor([tokens, self.width]), needed[0].then_some(gate_up))
    }

    fn backward(&self, gate_up: FlexTensor, dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (dy, width) = (values(&dy), self.width);
        let piece = rows_per_piece(dy.len() / width.max(1), 2 * width) * width;
        let mut gradient = owned(gate_up);
        time(Part::Activation, || {
            for_each_piece([values_mut(&mut gradient)], [2 * piece], |i, [gate_up]| {
                rows_backward(Isa::current(), gate_up, &dy[i * piece..], width);
            });
        });
        [Some(gradient)]
    }
}
