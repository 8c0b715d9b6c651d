//! Folders of models that translate.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::{Marian, MarianConfig};

/// Marian adds this to its logits; here it is always zero.
const BIAS: &str = "final_logits_bias";

/// Reads the model that translates in `dir`.
///
/// # Errors
/// As [`super::load`].
pub fn load_marian(dir: &Path, device: &Device) -> Result<(Marian, MarianConfig)> {
    let config: MarianConfig =
        serde_json::from_value(read_config(dir)?).with_context(|| format!("in {}", dir.join("config.json").display()))?;
    let weights = Weights::open(dir)?;
    if weights.names().any(|name| name == BIAS) {
        let bias = weights.values(BIAS, &[1, config.vocab_size])?;
        ensure!(bias.iter().all(|&x| x == 0.0), "{BIAS} in {} is not zero, which is not supported", dir.display());
    }
    let model = weights.fill(Marian::empty(&config, device), true)?;
    Ok((model, config))
}

/// Writes the model to `dir`, in 32-bit floats, as `transformers` loads `MarianMTModel`. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_marian(model: &Marian, config: &MarianConfig, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    write_json(&dir.join("config.json"), &Value::from(config.clone()))?;
    let generation = json!({
        "_from_model_config": true,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.eos_token_id,
        "forced_eos_token_id": config.eos_token_id,
        "max_length": config.max_position_embeddings,
        "num_beams": 4,
    });
    write_json(&dir.join("generation_config.json"), &generation)
}
