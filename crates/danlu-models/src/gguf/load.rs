//! A GGUF file to a decoder of 32-bit floats.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;

use super::{Gguf, config, names as gguf_names};
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
    let decoder = names::fill(decoder, |name, _| values(gguf, &config, name))?;
    Ok((decoder, config))
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

fn values(gguf: &Gguf, config: &DecoderConfig, name: &str) -> Result<Vec<f32>> {
    let tensor = gguf.tensor(&in_gguf(name)?)?;
    Ok(match (config, gguf_names::is_query_or_key(name)) {
        (DecoderConfig::Llama(c), true) => tensor.reordered(|row| gguf_names::row_in_gguf(row, c.head_dim)).dequantize(),
        _ => tensor.dequantize(),
    })
}

fn in_gguf(name: &str) -> Result<String> {
    gguf_names::in_gguf(name).with_context(|| format!("GGUF has no name for {name}"))
}
