//! An adapter made part of the weights.

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};

use super::{Named, detach, numbers};
use crate::layers::Quantized;
use crate::{Batch, Decoder};

/// A decoder that needs no adapter any more.
#[derive(Debug)]
pub struct Merged {
    /// Without autodiff, in 32-bit floats.
    pub decoder: Decoder,
    /// The base was in four bits and the adapter was merged into what it stands for: the length of what quantizing had lost, as a share of
    /// the length of the weights. Merging into the weights from before quantizing would be another model than the one trained.
    pub quantization_error: Option<f64>,
}

impl Decoder {
    /// The adapter merged into the weights: the same outputs from whole weights.
    ///
    /// # Errors
    /// When there is nothing to merge: no adapter, or one of prompt tuning, which changes the input and no weight.
    pub fn merged(&self) -> Result<Merged> {
        let mut decoder = self.valid();
        ensure!(
            decoder.prompt().is_none(),
            "prompt tuning stands before the input and changes no weight: it cannot be merged, keep it as an adapter"
        );
        ensure!(decoder.is_adapted(), "there is no adapter to merge");
        let error = merge(decoder.linears());
        let quantization_error = self.is_quantized().then(|| (error[0] / error[1].max(f64::MIN_POSITIVE)).sqrt());
        Ok(Merged { decoder, quantization_error })
    }
}

/// Makes each update part of its weight: the squared length of what quantizing had lost, and that of the weights.
pub(super) fn merge(mut linears: Vec<Named<'_>>) -> [f64; 2] {
    let mut error = [0.0; 2];
    for (_, linear) in &mut linears {
        if linear.quantized.is_none() && linear.lora_A.is_none() {
            continue;
        }
        linear.weight = Some(Param::from_tensor(linear.projection().merged()));
        if let Some(Quantized::Nf4 { blocks, .. }) = linear.quantized.take() {
            let [lost, whole] = blocks.squared_error();
            error = [error[0] + lost, error[1] + whole];
        }
    }
    detach(linears);
    error
}

/// The largest difference between the logits of two decoders on the same tokens.
///
/// # Errors
/// When logits are not numbers, or of different vocabularies.
pub fn logits_gap(a: &Decoder, b: &Decoder, batch: &Batch) -> Result<f32> {
    let logits = |decoder: &Decoder| numbers(decoder.valid().logits(batch)).context("logits cannot be compared");
    let (a, b) = (logits(a)?, logits(b)?);
    ensure!(a.len() == b.len(), "the models have vocabularies of different sizes");
    let gap =
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst: f32, gap| if gap.is_nan() { gap } else { worst.max(gap) });
    ensure!(gap.is_finite(), "a model gives logits that are not numbers");
    Ok(gap)
}
