//! Folders of generative adversarial networks: the generator, which draws, and the discriminator, with which it can be trained further.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::{Gan, GanConfig};

/// Whether `dir` holds a generative adversarial network.
///
/// # Errors
/// As [`super::load`].
pub fn is_gan(dir: &Path) -> Result<bool> {
    Ok(read_config(dir)?["model_type"] == "gan")
}

/// Reads the two networks in `dir`, the generator [settled](crate::Generator::settled).
///
/// # Errors
/// As [`super::load`].
pub fn load_gan(dir: &Path, device: &Device) -> Result<(Gan, GanConfig)> {
    let in_config = || format!("in {}", dir.join("config.json").display());
    let config: GanConfig = serde_json::from_value(read_config(dir)?).with_context(in_config)?;
    let gan = Gan::empty(&config, true, device).with_context(in_config)?;
    Ok((Weights::open(dir)?.fill(gan, false)?, config))
}

/// Writes the two networks to `dir`, in 32-bit floats. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`]; or when the generator is not [settled](crate::Generator::settled) and would draw each picture by those beside it.
pub fn save_gan(gan: &Gan, config: &GanConfig, dir: &Path) -> Result<()> {
    ensure!(
        gan.generator.norms.iter().all(|norm| norm.running_mean.is_some() && norm.running_var.is_some()),
        "the generator's norms have no statistics yet; settle it before it is written"
    );
    write::weights(gan, dir, &SaveOptions::default())?;
    let mut value = serde_json::to_value(config)?;
    value["architectures"] = Value::Null;
    value["torch_dtype"] = json!("float32");
    write_json(&dir.join("config.json"), &value)
}
