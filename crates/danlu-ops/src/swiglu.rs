use burn::tensor::{Tensor, activation::silu};

/// The gated unit of Llama's MLP (Shazeer 2020, <https://arxiv.org/abs/2002.05202>): `gate_up` `[tokens, 2f]` holds the gate
/// and then the value → `silu(gate) · up` `[tokens, f]`.
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    assert!(gate_up.dims()[1].is_multiple_of(2), "gate and up have the same width, but together {} channels", gate_up.dims()[1]);
    plain(gate_up)
}

pub(crate) fn plain(gate_up: Tensor<2>) -> Tensor<2> {
    let width = gate_up.dims()[1] / 2;
    silu(gate_up.clone().narrow(1, 0, width)) * gate_up.narrow(1, width, width)
}
