//! The parts decoders are made of. A field's name is the tensor's name in `transformers`.

#![allow(non_snake_case, reason = "PEFT's names have large letters, and what is derived repeats them")]

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use danlu_ops::quantized::Weights;
use danlu_ops::{Before, Ids, LowRank, Nf4, Projection, Weight};

/// A matrix: an embedding `[rows, channels]` or a projection `[out, in]`.
#[derive(Module, Debug)]
pub struct Matrix {
    pub weight: Param<Tensor<2>>,
}

/// The embedding of tokens, `[vocabulary, channels]`, which may be the output projection too; or an output projection of its own.
#[derive(Module, Debug)]
pub struct Table {
    /// Absent while the values are held in blocks.
    pub weight: Option<Param<Tensor<2>>>,
    #[module(skip)]
    pub(crate) blocks: Option<Arc<Weights>>,
}

/// A projection inside a layer, with what an adapter adds to it under PEFT's names.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`; absent while the values are held in fewer bits.
    pub weight: Option<Param<Tensor<2>>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// `[rank, in]`.
    pub lora_A: Option<Matrix>,
    /// `[out, rank]`.
    pub lora_B: Option<Matrix>,
    /// DoRA's lengths of the rows, `[out]`.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    /// What the product of B and A is multiplied by.
    #[module(skip)]
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) quantized: Option<Quantized>,
}

/// A weight in fewer bits.
#[derive(Clone, Debug)]
pub(crate) enum Quantized {
    /// The frozen base of an adapter, with the hash of the values it was made from.
    Nf4 { blocks: Arc<Nf4>, hash: String },
    /// As it lies in a GGUF file, to be run.
    Blocks(Arc<Weights>),
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

impl Table {
    pub(crate) fn new(rows: usize, channels: usize, device: &Device) -> Self {
        Self { weight: Some(placeholder([rows, channels], device)), blocks: None }
    }

    /// The rows of `ids`: `[tokens, channels]`.
    pub(crate) fn rows(&self, ids: &Ids) -> Tensor<2> {
        match self.held() {
            Weight::Blocks(blocks) => danlu_ops::embedding_in_blocks(&blocks, ids),
            _ => danlu_ops::embedding(self.values(), ids),
        }
    }

    /// `x · weightᵀ`: `[tokens, channels]` to `[tokens, vocabulary]`.
    pub(crate) fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        danlu_ops::projections(x, &[Projection { weight: self.held(), bias: None, adapter: None }])
    }

    /// The values, or those that the blocks stand for.
    pub(crate) fn values(&self) -> Tensor<2> {
        match self.held() {
            Weight::Blocks(blocks) => danlu_ops::block_values(&blocks, &self.device()),
            Weight::Float(weight) => weight,
            Weight::Nf4(_) => unreachable!("a table is held in floats or in blocks"),
        }
    }

    pub(crate) fn device(&self) -> Device {
        self.weight.as_ref().map_or_else(Device::flex, |weight| weight.lazy_device())
    }

    /// `[vocabulary, channels]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match (&self.weight, &self.blocks) {
            (Some(weight), _) => weight.lazy_shape().dims(),
            (None, Some(blocks)) => blocks.shape(),
            (None, None) => unreachable!("a table has its values in one form or the other"),
        }
    }

    fn held(&self) -> Weight {
        match (&self.weight, &self.blocks) {
            (Some(weight), _) => Weight::Float(weight.val()),
            (None, Some(blocks)) => Weight::Blocks(blocks.clone()),
            (None, None) => unreachable!("a table has its values in one form or the other"),
        }
    }
}

impl Linear {
    pub(crate) fn new(out: usize, inp: usize, biased: bool, device: &Device) -> Self {
        Self {
            weight: Some(placeholder([out, inp], device)),
            bias: biased.then(|| placeholder([out], device)),
            lora_A: None,
            lora_B: None,
            lora_magnitude_vector: None,
            scale: 0.0,
            quantized: None,
        }
    }

    /// `x · weightᵀ + bias`, and what the adapter adds: `[tokens, in]` to `[tokens, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        danlu_ops::projections(x, &[self.projection()])
    }

    /// [`Linear::forward`] of what `before` gives of `x`, which is not kept for the backward pass.
    pub(crate) fn after(&self, before: Before, x: Tensor<2>) -> Tensor<2> {
        danlu_ops::projections_after(before, x, &[self.projection()])
    }

    pub(crate) fn projection(&self) -> Projection {
        let weight = match (&self.weight, &self.quantized) {
            (Some(weight), _) => Weight::Float(weight.val()),
            (None, Some(Quantized::Nf4 { blocks, .. })) => Weight::Nf4(blocks.clone()),
            (None, Some(Quantized::Blocks(blocks))) => Weight::Blocks(blocks.clone()),
            (None, None) => unreachable!("a projection has its values in one form or the other"),
        };
        let adapter = self.lora_A.as_ref().zip(self.lora_B.as_ref()).map(|(a, b)| LowRank {
            a: a.weight.val(),
            b: b.weight.val(),
            scale: self.scale,
            magnitude: self.lora_magnitude_vector.as_ref().map(|magnitude| magnitude.val()),
        });
        Projection { weight, bias: self.bias.as_ref().map(|bias| bias.val()), adapter }
    }

    /// `[out, in]`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match (&self.weight, &self.quantized) {
            (Some(weight), _) => weight.lazy_shape().dims(),
            (None, Some(Quantized::Nf4 { blocks, .. })) => blocks.shape(),
            (None, Some(Quantized::Blocks(blocks))) => blocks.shape(),
            (None, None) => unreachable!("a projection has its values in one form or the other"),
        }
    }
}

impl Quantized {
    /// NF4 of the values `[out, in]`.
    pub(crate) fn nf4(values: &[f32], shape: [usize; 2]) -> Self {
        Self::Nf4 { blocks: Nf4::quantize(values, shape).into(), hash: hash(values) }
    }
}

/// Of a parameter's values, whatever device they are on.
pub(crate) fn hash(values: &[f32]) -> String {
    // Files of weights are little-endian too, as is every machine this is built for.
    danlu_files::hash_bytes(bytemuck::cast_slice(values))
}

impl RmsNorm {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { weight: placeholder([channels], device) }
    }

    pub fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        danlu_ops::rms_norm(x, self.weight.val(), eps)
    }

    /// The same before projections ([`danlu_ops::projections_after`]).
    pub(crate) fn before(&self, eps: f64) -> Before {
        Before::RmsNorm { weight: self.weight.val(), eps }
    }
}

impl LayerNorm {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { weight: placeholder([channels], device), bias: placeholder([channels], device) }
    }

    pub fn forward(&self, x: Tensor<2>, eps: f64) -> Tensor<2> {
        danlu_ops::layer_norm(x, self.weight.val(), self.bias.val(), eps)
    }

    /// The same before a projection ([`Linear::after`]).
    pub(crate) fn before(&self, eps: f64) -> Before {
        Before::LayerNorm { weight: self.weight.val(), bias: self.bias.val(), eps }
    }
}

/// A parameter with a shape and no values yet, so that building a model allocates nothing: [`crate::names::fill`] gives the values,
/// drawn or read from a file.
pub(crate) fn placeholder<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
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
