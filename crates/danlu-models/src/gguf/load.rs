//! A GGUF file to a decoder: of 32-bit floats, or of the blocks that are there.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_ops::quantized::Weights;

use super::{Gguf, QuantizedTensor, config, names as gguf_names};
use crate::layers::Quantized;
use crate::names::{self, first_few};
use crate::{Decoder, DecoderConfig};

/// Reads the decoder in a GGUF file; weights in blocks become 32-bit floats, as ggml's reference makes them.
///
/// # Errors
/// Names the file and the key or tensor that is missing, damaged, of the wrong shape, or of a kind that is not supported.
pub fn load(path: &Path, device: &Device) -> Result<(Decoder, DecoderConfig)> {
    decoder(&Gguf::open(path)?, device)
}

/// [`load`] of an open file.
///
/// # Errors
/// As [`load`].
pub fn decoder(gguf: &Gguf, device: &Device) -> Result<(Decoder, DecoderConfig)> {
    let config = config(gguf)?;
    let decoder = Decoder::empty(&config, device)?;
    check(gguf, &config, &names::names_and_shapes(&decoder)).with_context(|| format!("in {}", gguf.path().display()))?;
    let decoder = names::fill(decoder, |name, _| Ok(tensor(gguf, &config, name)?.dequantize()))?;
    Ok((decoder, config))
}

/// [`decoder`] to be run on the CPU and not trained: matrices stay in the blocks that the file has them in and are multiplied in integers
/// ([`danlu_ops::quantized`]). What the file holds as floats, such as norms and biases, becomes 32-bit floats.
///
/// # Errors
/// As [`load`].
pub fn decoder_in_blocks(gguf: &Gguf) -> Result<(Decoder, DecoderConfig)> {
    let config = config(gguf)?;
    let mut decoder = Decoder::empty(&config, &Device::flex())?;
    check(gguf, &config, &names::names_and_shapes(&decoder)).with_context(|| format!("in {}", gguf.path().display()))?;
    for (name, linear) in decoder.linears() {
        if let Some(weights) = blocks(gguf, &config, &format!("{name}.weight"))? {
            linear.quantized = Some(Quantized::Blocks(weights));
            linear.weight = None;
        }
    }
    for (name, table) in decoder.tables() {
        if let Some(weights) = blocks(gguf, &config, &format!("{name}.weight"))? {
            table.blocks = Some(weights);
            table.weight = None;
        }
    }
    decoder.settle_least_rows();
    let decoder = names::fill(decoder, |name, _| Ok(tensor(gguf, &config, name)?.dequantize()))?;
    Ok((decoder, config))
}

/// A matrix laid out for products, when the file has it in blocks that have any.
fn blocks(gguf: &Gguf, config: &DecoderConfig, name: &str) -> Result<Option<Arc<Weights>>> {
    let tensor = tensor(gguf, config, name)?;
    match *tensor.shape() {
        [out, inp] if tensor.format().has_products() => {
            Ok(Some(Weights::new(tensor.format(), [out, inp], tensor.bytes()).with_context(|| name.to_string())?.into()))
        }
        _ => Ok(None),
    }
}

/// The file must hold exactly the model's tensors, in its shapes: a bias that is left out would change the logits in silence.
fn check(gguf: &Gguf, config: &DecoderConfig, wanted: &[(String, Vec<usize>)]) -> Result<()> {
    let mut known = vec!["rope_freqs.weight".to_string()];
    known.extend(config.tied().then(|| "output.weight".to_string()));
    for (name, shape) in wanted {
        let theirs = in_gguf(name)?;
        let found = gguf.shape(&theirs).with_context(|| format!("the tensor {theirs} is missing"))?;
        ensure!(found == shape, "the tensor {theirs} has the shape {found:?}; the metadata makes it {shape:?}");
        gguf.tensor(&theirs)?;
        known.push(theirs);
    }
    known.sort();
    let unexpected: Vec<String> = gguf
        .tensor_names()
        .filter(|name| known.binary_search_by(|known| known.as_str().cmp(name)).is_err())
        .map(str::to_string)
        .collect();
    ensure!(
        unexpected.is_empty(),
        "a {} model has no {}; without these tensors its logits would be others",
        config.model_type(),
        first_few(unexpected)
    );
    Ok(())
}

/// A parameter as the file has it, with its rows in the order they have here.
fn tensor(gguf: &Gguf, config: &DecoderConfig, name: &str) -> Result<QuantizedTensor> {
    let tensor = gguf.tensor(&in_gguf(name)?)?;
    Ok(match (config, gguf_names::is_query_or_key(name)) {
        (DecoderConfig::Llama(c), true) => tensor.reordered(|row| gguf_names::row_in_gguf(row, c.head_dim)),
        _ => tensor,
    })
}

fn in_gguf(name: &str) -> Result<String> {
    gguf_names::in_gguf(name).with_context(|| format!("GGUF has no name for {name}"))
}
