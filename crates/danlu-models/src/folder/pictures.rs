//! Folders of classifiers of pictures.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::read::Weights;
use super::{CONFIG_LIMIT, SaveOptions, read_config, write, write_json};
use crate::{Lenet, LenetConfig};

/// How `transformers` calls what says how pictures become numbers.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// The part of [`PREPROCESSOR`] that is not the same for all.
#[derive(Serialize, Deserialize)]
struct Preprocessor {
    image_mean: Vec<f64>,
    image_std: Vec<f64>,
}

/// Whether `dir` holds a LeNet.
///
/// # Errors
/// As [`super::load`].
pub fn is_lenet(dir: &Path) -> Result<bool> {
    Ok(read_config(dir)?["model_type"] == "lenet")
}

/// Reads the LeNet in `dir`.
///
/// # Errors
/// As [`super::load`].
pub fn load_lenet(dir: &Path, device: &Device) -> Result<(Lenet, LenetConfig)> {
    let value = read_config(dir)?;
    let in_config = || format!("in {}", dir.join("config.json").display());
    let names = value["id2label"].as_object().cloned().unwrap_or_default();
    let one = |i: usize| names.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned);
    let labels: Option<Vec<String>> = (0..names.len()).map(one).collect();
    let labels = labels.context("`id2label` does not name each label from 0 on").with_context(in_config)?;
    let path = dir.join(PREPROCESSOR);
    let text = danlu_files::read_text_bounded(&path, CONFIG_LIMIT)?;
    let scale: Preprocessor = serde_json::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))?;
    let config: LenetConfig = serde_json::from_value(value).with_context(in_config)?;
    let config = LenetConfig { labels, image_mean: scale.image_mean, image_std: scale.image_std, ..config };
    let lenet = Lenet::empty(&config, device).with_context(in_config)?;
    Ok((Weights::open(dir)?.fill(lenet, false)?, config))
}

/// Writes the LeNet to `dir`, in 32-bit floats, with what pictures are scaled by. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_lenet(lenet: &Lenet, config: &LenetConfig, dir: &Path) -> Result<()> {
    write::weights(lenet, dir, &SaveOptions::default())?;
    let mut value = serde_json::to_value(config)?;
    let numbered = |(i, name): (usize, &String)| (i.to_string(), json!(name));
    value["architectures"] = Value::Null;
    value["torch_dtype"] = json!("float32");
    value["id2label"] = config.labels.iter().enumerate().map(numbered).collect::<Map<_, _>>().into();
    value["label2id"] = config.labels.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect::<Map<_, _>>().into();
    write_json(&dir.join("config.json"), &value)?;
    let [height, width] = config.image_size;
    let preprocessor = json!({
        "do_resize": true,
        "size": {"height": height, "width": width},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": config.image_mean,
        "image_std": config.image_std,
    });
    write_json(&dir.join(PREPROCESSOR), &preprocessor)
}
