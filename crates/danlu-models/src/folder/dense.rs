//! Folders of Vision Transformers that say something of every place of a picture.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde_json::Value;

use super::pictures::{labels, name_labels, scaled, write_scale};
use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::config::{DenseConfig, DenseTask, VitConfig};
use crate::dense::VitDense;

/// What the network in `dir` says of every place of a picture; none when it is of another kind.
///
/// # Errors
/// As [`super::load`].
pub fn dense_task(dir: &Path) -> Result<Option<DenseTask>> {
    let config = read_config(dir)?;
    Ok(DenseTask::ALL.into_iter().find(|task| config["model_type"] == task.model_type()))
}

/// Reads the detector, the segmenter or the finder of poses in `dir`.
///
/// # Errors
/// As [`super::load`].
pub fn load_dense(dir: &Path, device: &Device) -> Result<(VitDense, DenseConfig)> {
    let value = read_config(dir)?;
    let in_config = || format!("in {}", dir.join("config.json").display());
    let labels = labels(&value).with_context(in_config)?;
    let config = DenseConfig::try_from(value).with_context(in_config)?;
    config.vit.validate().with_context(in_config)?;
    let config = DenseConfig { vit: VitConfig { labels, ..scaled(config.vit.clone(), dir)? }, ..config };
    let model = Weights::open(dir)?.fill(VitDense::empty(&config, device).with_context(in_config)?, false)?;
    Ok((model, config))
}

/// Writes it to `dir`, as [`super::save_picture_classifier`] does. The encoder has the names that `transformers` gives it.
///
/// # Errors
/// As [`super::save`].
pub fn save_dense(model: &VitDense, config: &DenseConfig, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    let mut value = Value::from(config.clone());
    name_labels(&mut value, &config.vit.labels);
    write_json(&dir.join("config.json"), &value)?;
    write_scale(dir, config.vit.image_size, [&config.vit.image_mean, &config.vit.image_std])
}
