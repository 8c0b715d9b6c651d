//! Folders of networks of pictures.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::dense::{dense_task, load_dense};
use super::labeller::of_network;
use super::read::Weights;
use super::{CONFIG_LIMIT, SaveOptions, read_config, write, write_json};
use crate::config::{EMBEDDING, LenetConfig, MaeConfig, VitConfig, VitEmbedderConfig};
use crate::labeller::PictureLabellerConfig;
use crate::recognizer::VitEmbedder;
use crate::vit::{Vit, VitClassifier};
use crate::{Lenet, Mae, PictureClassifier, PictureConfig};

/// How `transformers` calls what says how pictures become numbers.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// The part of [`PREPROCESSOR`] that is not the same for all.
#[derive(Serialize, Deserialize)]
pub(super) struct Preprocessor {
    pub(super) image_mean: Vec<f64>,
    pub(super) image_std: Vec<f64>,
}

/// The kind of the model of pictures in `dir`, its `model_type`: none when it holds a model of another kind.
///
/// # Errors
/// As [`super::load`].
pub fn picture_kind(dir: &Path) -> Result<Option<&'static str>> {
    let config = read_config(dir)?;
    let known = ["lenet", "vit", "vit_mae", PictureLabellerConfig::FEATURES];
    Ok(known.into_iter().find(|kind| config["model_type"] == *kind))
}

/// Reads the network of the classifier of pictures in `dir`, without the features that may stand beside it: see
/// [`super::load_picture_labeller`].
///
/// # Errors
/// As [`super::load`], and when it has no network.
pub fn load_picture_classifier(dir: &Path, device: &Device) -> Result<(PictureClassifier, PictureConfig)> {
    let value = read_config(dir)?;
    let in_config = || format!("in {}", dir.join("config.json").display());
    Ok(match picture_kind(dir)? {
        Some("lenet") => {
            let (labels, scale) = (labels(&value).with_context(in_config)?, needed_scale(dir)?);
            let config: LenetConfig = serde_json::from_value(value).with_context(in_config)?;
            let config = LenetConfig { labels, image_mean: scale.image_mean, image_std: scale.image_std, ..config };
            let lenet = Lenet::empty(&config, device).with_context(in_config)?;
            let lenet = of_network(dir)?.fill(lenet, false)?;
            (PictureClassifier::Lenet(lenet), PictureConfig::Lenet(config))
        }
        Some("vit") => {
            ensure!(
                !is_picture_embedder(dir)?,
                "{} gives embeddings of pictures, which name nothing: `danlu embed alike` compares pictures by them",
                dir.display()
            );
            let labels = labels(&value).with_context(in_config)?;
            let config = VitConfig { labels, ..scaled(VitConfig::try_from(value).with_context(in_config)?, dir)? };
            let vit = VitClassifier::empty(&config, device).with_context(in_config)?;
            let vit = of_network(dir)?.fill(vit, false)?;
            (PictureClassifier::Vit(vit), PictureConfig::Vit(config))
        }
        Some("vit_mae") => bail!(
            "{} holds a masked autoencoder, which has no classes: train a classifier that starts from it with `model.from`",
            dir.display()
        ),
        _ => bail!("{} holds a {} and no classifier of pictures", dir.display(), value["model_type"]),
    })
}

/// Writes the classifier to `dir`, in 32-bit floats, with what pictures are scaled by. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_picture_classifier(model: &PictureClassifier, config: &PictureConfig, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    let mut value = match config {
        PictureConfig::Lenet(config) => {
            let mut value = serde_json::to_value(config)?;
            value["architectures"] = Value::Null;
            value["torch_dtype"] = json!("float32");
            value
        }
        PictureConfig::Vit(config) => Value::from(config.clone()),
    };
    name_labels(&mut value, config.labels());
    write_json(&dir.join("config.json"), &value)?;
    let picture = config.picture();
    write_scale(dir, [picture.height, picture.width], config.scale())
}

/// Reads the masked autoencoder in `dir`.
///
/// # Errors
/// As [`super::load`].
pub fn load_mae(dir: &Path, device: &Device) -> Result<(Mae, MaeConfig)> {
    let in_config = || format!("in {}", dir.join("config.json").display());
    let config = MaeConfig::try_from(read_config(dir)?).with_context(in_config)?;
    let config = MaeConfig { vit: scaled(config.vit.clone(), dir)?, ..config };
    let mae = Weights::open(dir)?.fill(Mae::empty(&config, device).with_context(in_config)?, false)?;
    Ok((mae, config))
}

/// Writes the masked autoencoder to `dir`, as [`save_picture_classifier`] does.
///
/// # Errors
/// As [`super::save`].
pub fn save_mae(mae: &Mae, config: &MaeConfig, dir: &Path) -> Result<()> {
    write::weights(mae, dir, &SaveOptions::default())?;
    write_json(&dir.join("config.json"), &Value::from(config.clone()))?;
    write_scale(dir, config.vit.image_size, [&config.vit.image_mean, &config.vit.image_std])
}

/// Whether the model in `dir` gives embeddings of pictures.
///
/// # Errors
/// As [`super::load`].
pub fn is_picture_embedder(dir: &Path) -> Result<bool> {
    let config = read_config(dir)?;
    Ok(config["model_type"] == "vit" && !config[EMBEDDING].is_null())
}

/// Reads the network in `dir` that gives embeddings of pictures.
///
/// # Errors
/// As [`super::load`].
pub fn load_picture_embedder(dir: &Path, device: &Device) -> Result<(VitEmbedder, VitEmbedderConfig)> {
    let in_config = || format!("in {}", dir.join("config.json").display());
    ensure!(is_picture_embedder(dir)?, "{} gives no embeddings of pictures", dir.display());
    let config = VitEmbedderConfig::try_from(read_config(dir)?).with_context(in_config)?;
    let config = VitEmbedderConfig { vit: scaled(config.vit.clone(), dir)?, ..config };
    let embedder = Weights::open(dir)?.fill(VitEmbedder::empty(&config, device), false)?;
    Ok((embedder, config))
}

/// Writes the embedder to `dir`, as [`save_picture_classifier`] does.
///
/// # Errors
/// As [`super::save`].
pub fn save_picture_embedder(embedder: &VitEmbedder, config: &VitEmbedderConfig, dir: &Path) -> Result<()> {
    write::weights(embedder, dir, &SaveOptions::default())?;
    write_json(&dir.join("config.json"), &Value::from(config.clone()))?;
    write_scale(dir, config.vit.image_size, [&config.vit.image_mean, &config.vit.image_std])
}

/// Reads the Vision Transformer in `dir` without what stands on it: that of a classifier, of an embedder, of a masked autoencoder, or of a
/// network with outputs for every place, for another head. Its configuration has the labels that were there.
///
/// # Errors
/// As [`super::load`].
pub fn load_vit(dir: &Path, device: &Device) -> Result<(Vit, VitConfig)> {
    if picture_kind(dir)? == Some("vit_mae") {
        let (mae, config) = load_mae(dir, device)?;
        return Ok((mae.vit, config.vit));
    }
    if is_picture_embedder(dir)? {
        let (embedder, config) = load_picture_embedder(dir, device)?;
        return Ok((embedder.vit, config.vit));
    }
    if dense_task(dir)?.is_some() {
        let (model, config) = load_dense(dir, device)?;
        return Ok((model.vit, config.vit));
    }
    match load_picture_classifier(dir, device)? {
        (PictureClassifier::Vit(model), PictureConfig::Vit(config)) => Ok((model.vit, config)),
        _ => bail!("{} holds no Vision Transformer", dir.display()),
    }
}

/// Writes the names of the classes.
pub(super) fn name_labels(config: &mut Value, labels: &[String]) {
    let numbered = |(i, name): (usize, &String)| (i.to_string(), json!(name));
    let places = |(i, name): (usize, &String)| (name.clone(), json!(i));
    config["id2label"] = labels.iter().enumerate().map(numbered).collect::<Map<_, _>>().into();
    config["label2id"] = labels.iter().enumerate().map(places).collect::<Map<_, _>>().into();
}

/// The names of the classes.
pub(super) fn labels(config: &Value) -> Result<Vec<String>> {
    let names = config["id2label"].as_object().cloned().unwrap_or_default();
    let one = |i: usize| names.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned);
    let labels: Option<Vec<String>> = (0..names.len()).map(one).collect();
    labels.context("`id2label` does not name each label from 0 on")
}

/// What pictures are scaled by, which a LeNet's folder always says.
pub(super) fn needed_scale(dir: &Path) -> Result<Preprocessor> {
    let path = dir.join(PREPROCESSOR);
    let text = danlu_files::read_text_bounded(&path, CONFIG_LIMIT)?;
    serde_json::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// The configuration with what pictures are scaled by. A folder that does not say so is of a network for values from -1 to 1, as the paper's.
pub(super) fn scaled(config: VitConfig, dir: &Path) -> Result<VitConfig> {
    if !dir.join(PREPROCESSOR).exists() {
        return Ok(config);
    }
    let scale = needed_scale(dir)?;
    let config = VitConfig { image_mean: scale.image_mean, image_std: scale.image_std, ..config };
    config.validate().with_context(|| format!("in {}", dir.join(PREPROCESSOR).display()))?;
    Ok(config)
}

pub(super) fn write_scale(dir: &Path, [height, width]: [usize; 2], [mean, deviation]: [&[f64]; 2]) -> Result<()> {
    let preprocessor = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": {"height": height, "width": width},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": mean,
        "image_std": deviation,
    });
    write_json(&dir.join(PREPROCESSOR), &preprocessor)
}
