//! Folders of word vectors.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::{Word2Vec, Word2VecConfig};

/// Writes both tables and the configuration to `dir`, in 32-bit floats. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_word2vec(model: &Word2Vec, config: &Word2VecConfig, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    let mut value = serde_json::to_value(config)?;
    value["architectures"] = json!(["Word2Vec"]);
    write_json(&dir.join("config.json"), &value)
}

/// Reads what [`save_word2vec`] wrote.
///
/// # Errors
/// As [`super::load`], and when the folder holds another kind of model.
pub fn load_word2vec(dir: &Path, device: &Device) -> Result<(Word2Vec, Word2VecConfig)> {
    let value = read_config(dir)?;
    let kind = value.get("model_type").and_then(Value::as_str).unwrap_or("of no type").to_string();
    ensure!(
        kind == Word2VecConfig::MODEL_TYPE,
        "{} holds a model that is {kind}, not word vectors; recipes/2013-word2vec.toml makes some",
        dir.display()
    );
    let config: Word2VecConfig = serde_json::from_value(value).with_context(|| format!("in {}/config.json", dir.display()))?;
    config.validate().with_context(|| format!("in {}/config.json", dir.display()))?;
    let model = Weights::open(dir)?.fill(Word2Vec::empty(&config, device), false)?;
    Ok((model, config))
}
