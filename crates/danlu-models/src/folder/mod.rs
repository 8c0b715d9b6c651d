//! A model's folder, as `transformers` reads and writes it: `config.json`, `model.safetensors` (or shards with an index) and
//! `generation_config.json`. A `model.gguf` beside them, or in place of the weights, holds these in blocks: they run from there.

mod dense;
mod gan;
mod heads;
mod labeller;
mod marian;
mod pictures;
pub(crate) mod read;
mod reward;
mod words;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::json;

use crate::gguf::{self, Gguf};
use crate::layers::Quantized;
use crate::{Decoder, DecoderConfig, adapter, gpt2, names};

pub use dense::{dense_task, load_dense, save_dense};
pub use gan::{is_gan, load_gan, save_gan};
pub use heads::{load_backbone, load_backbone_config, load_bert, load_classifier, load_head_config, save_bert, save_classifier};
pub use labeller::{load_picture_labeller, save_picture_labeller};
pub use marian::{load_marian, save_marian};
pub use pictures::{
    is_picture_embedder, load_mae, load_picture_classifier, load_picture_embedder, load_vit, picture_kind, save_mae,
    save_picture_classifier, save_picture_embedder,
};
pub use reward::{load_reward, save_reward};
pub use words::{load_word2vec, save_word2vec};
pub use write::{Precision, SaveOptions};

/// A `config.json` is small; what is larger is something else.
const CONFIG_LIMIT: u64 = 16 << 20;
/// The weights in blocks, with what llama.cpp needs besides.
pub const GGUF: &str = "model.gguf";

/// Writes the decoder to `dir` in 32-bit floats, in one file up to 5 GB. Other files in `dir` stay.
///
/// # Errors
/// When a file cannot be written or values cannot be read from the device. Each file is there whole or as it was.
pub fn save(decoder: &Decoder, config: &DecoderConfig, dir: &Path) -> Result<()> {
    save_with(decoder, config, dir, &SaveOptions::default())
}

/// [`save`] with a chosen precision and size of file.
///
/// # Errors
/// As [`save`].
pub fn save_with(decoder: &Decoder, config: &DecoderConfig, dir: &Path, options: &SaveOptions) -> Result<()> {
    ensure!(
        !decoder.is_adapted() && !decoder.is_quantized(),
        "a model's folder holds whole weights: merge the adapter first, or save the adapter alone"
    );
    write::weights(decoder, dir, options)?;
    let mut shape = serde_json::to_value(config)?;
    shape["torch_dtype"] = json!(options.precision.torch_name());
    write_json(&dir.join("config.json"), &shape)?;
    let generation = json!({
        "_from_model_config": true,
        "bos_token_id": shape["bos_token_id"],
        "eos_token_id": shape["eos_token_id"],
    });
    write_json(&dir.join("generation_config.json"), &generation)
}

/// Reads the decoder in `dir`, whoever wrote it. Weights in bf16, f16, f64 and blocks become f32. A folder of PEFT's is read as the adapter
/// on its base ([`adapter::base_of`]).
///
/// # Errors
/// Names the file, and the key or tensor, that is missing, damaged, of the wrong shape, or of a kind that is not supported. Nothing is
/// allocated for a tensor before the file is known to hold it.
pub fn load(dir: &Path, device: &Device) -> Result<(Decoder, DecoderConfig)> {
    let config = load_config(dir)?;
    if let Some(base) = adapter::base_of(dir)? {
        return Ok((adapter::load_on_base(dir, &base, device)?, config));
    }
    if let Some(path) = only_gguf(dir) {
        let (decoder, found) = gguf::load(&path, device)?;
        alike(&config, &found, &path)?;
        return Ok((decoder, config));
    }
    let decoder = Decoder::empty(&config, device)?;
    let decoder = read::Weights::open(dir)?.fill(decoder, config.tied())?;
    Ok((decoder, config))
}

/// Reads the decoder in `dir` to run it and not to train it: on the CPU from the blocks of its GGUF file, where it has one; else as [`load`].
///
/// # Errors
/// As [`load`].
pub fn load_to_run(dir: &Path, device: &Device) -> Result<(Decoder, DecoderConfig)> {
    let path = dir.join(GGUF);
    if !path.is_file() || *device != Device::flex() || adapter::base_of(dir)?.is_some() {
        return load(dir, device);
    }
    let config = load_config(dir)?;
    let (decoder, found) = gguf::decoder_in_blocks(&Gguf::open(&path)?)?;
    alike(&config, &found, &path)?;
    Ok((decoder, config))
}

/// The GGUF file of a folder that has no other weights.
fn only_gguf(dir: &Path) -> Option<PathBuf> {
    let floats = ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| dir.join(name).exists());
    Some(dir.join(GGUF)).filter(|path| !floats && path.is_file())
}

/// `config.json` says more than the metadata of a GGUF file, such as which tokens end a text, and must not say anything else.
fn alike(config: &DecoderConfig, found: &DecoderConfig, path: &Path) -> Result<()> {
    let same = config.model_type() == found.model_type()
        && config.context() == found.context()
        && Decoder::shapes(config)? == Decoder::shapes(found)?;
    ensure!(same, "{} holds another model than the config.json beside it describes", path.display());
    Ok(())
}

/// [`load`] with the projections of the layers held in 4-bit blocks (NF4), frozen. One tensor at a time is in memory as 32-bit floats.
///
/// # Errors
/// As [`load`].
pub fn load_nf4(dir: &Path, device: &Device) -> Result<(Decoder, DecoderConfig)> {
    if only_gguf(dir).is_some() {
        let (decoder, config) = load(dir, device)?;
        return Ok((decoder.quantized()?, config));
    }
    let config = load_config(dir)?;
    let mut decoder = Decoder::empty(&config, device)?;
    let weights = read::Weights::open(dir)?;
    weights.check(&names::names_and_shapes(&decoder), config.tied())?;
    for (name, linear) in decoder.linears() {
        let shape = linear.dims();
        let values = weights.values(&format!("{name}.weight"), &shape)?;
        linear.quantized = Some(Quantized::nf4(&values, shape));
        linear.weight = None;
    }
    let decoder = names::fill(decoder, |name, shape| weights.values(name, shape))?;
    Ok((decoder, config))
}

/// Reads `config.json` alone; of an adapter, that of its base, with the tokens that end a text as the adapter has them.
///
/// # Errors
/// As [`load`].
pub fn load_config(dir: &Path) -> Result<DecoderConfig> {
    if let Some(base) = adapter::base_of(dir)? {
        let mut config = load_config(&base)?;
        if let Some(ends) = adapter::ends(dir) {
            match &mut config {
                DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => c.eos_token_id = ends,
                DecoderConfig::Gpt2(c) => c.eos_token_id = ends,
            }
        }
        return Ok(config);
    }
    DecoderConfig::try_from(read_config(dir)?).with_context(|| format!("in {}", dir.join("config.json").display()))
}

fn read_config(dir: &Path) -> Result<serde_json::Value> {
    let path = dir.join("config.json");
    let text = danlu_files::read_text_bounded(&path, CONFIG_LIMIT)?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// BLAKE3 of the files of weights in `dir`, with those of its base when it holds an adapter, for telling whether they have changed.
///
/// # Errors
/// When a file cannot be read or there is none.
pub fn weights_hash(dir: &Path) -> Result<String> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let kind = if only_gguf(dir).is_some() { "gguf" } else { "safetensors" };
    files.retain(|path| path.extension().is_some_and(|extension| extension == kind));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no .safetensors file and no {GGUF}", dir.display());
    let mut text = String::new();
    for file in files {
        text.push_str(&format!("{:?} {}\n", file.file_name().unwrap_or_default(), danlu_files::hash_file(&file)?));
    }
    if let Some(base) = adapter::base_of(dir)? {
        text.push_str(&weights_hash(&base)?);
    }
    Ok(danlu_files::hash_bytes(text.as_bytes()))
}

pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    danlu_files::write_atomic_bytes(path, format!("{value:#}\n").as_bytes())
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// A tensor's shape in a file: GPT-2's projections lie the other way there.
fn shape_in_file(name: &str, shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if gpt2::transposed_in_files(name) {
        shape.reverse();
    }
    shape
}
