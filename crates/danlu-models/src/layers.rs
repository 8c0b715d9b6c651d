//! The parts decoders are made of. A field's name is the tensor's name in `transformers`.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

/// A matrix: an embedding `[vocabulary, channels]` or a projection `[out, in]`.
#[derive(Module, Debug)]
pub struct Matrix {
    pub weight: Param<Tensor<2>>,
}

/// A projection with a bias: weight `[out, in]`, bias `[out]`.
#[derive(Module, Debug)]
pub struct Affine {
    pub weight: Param<Tensor<2>>,
    pub bias: Param<Tensor<1>>,
}

/// RMSNorm's scale, `[channels]`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    pub weight: Param<Tensor<1>>,
}

/// LayerNorm's scale and shift, each `[channels]`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    pub weight: Param<Tensor<1>>,
    pub bias: Param<Tensor<1>>,
}

impl Matrix {
    pub(crate) fn new(out: usize, inp: usize, device: &Device) -> Self {
        Self { weight: placeholder([out, inp], device) }
    }

    /// `x · weightᵀ`: `[tokens, in]` to `[tokens, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        danlu_ops::linear(x, self.weight.val(), None)
    }
}

impl Affine {
    pub(crate) fn new(out: usize, inp: usize, device: &Device) -> Self {
        Self { weight: placeholder([out, inp], device), bias: placeholder([out], device) }
    }

    /// `x · weightᵀ + bias`: `[tokens, in]` to `[tokens, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        danlu_ops::linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

impl RmsNorm {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { weight: placeholder([channels], device) }
    }

    pub fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        danlu_ops::rms_norm(x, self.weight.val(), eps)
    }
}

impl LayerNorm {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { weight: placeholder([channels], device), bias: placeholder([channels], device) }
    }

    pub fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        danlu_ops::layer_norm(x, self.weight.val(), self.bias.val(), eps)
    }
}

/// A parameter with a shape and no values yet, so that building a model allocates nothing: [`crate::names::fill`] gives the values,
/// drawn or read from a file.
fn placeholder<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device: &Device, track| {
            let zeros = Tensor::zeros(shape, device);
            if track && device.is_autodiff() { zeros.require_grad() } else { zeros }
        },
        device.clone(),
        true,
        shape.into(),
    )
}
