//! Folders of classifiers of pictures that read features, beside a network or alone.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_ops::Planes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::heads::OWN;
use super::pictures::{
    labels, load_picture_classifier, name_labels, needed_scale, picture_kind, save_picture_classifier, write_scale,
};
use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::labeller::{PictureLabeller, PictureLabellerConfig};

/// What a `config.json` says of features, for which `transformers` has no word.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    features: usize,
    /// Channels, height and width, where no network says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    picture: Option<[usize; 3]>,
}

/// How the names of the features' parameters begin.
const FEATURES: &str = "features.";

/// The weights in `dir` without those of features, which are read by themselves.
pub(super) fn of_network(dir: &Path) -> Result<Weights> {
    Ok(Weights::open(dir)?.only(|name| !name.starts_with(FEATURES)))
}

/// Reads the classifier of pictures in `dir`, a network, features, or both.
///
/// # Errors
/// As [`super::load`].
pub fn load_picture_labeller(dir: &Path, device: &Device) -> Result<(PictureLabeller, PictureLabellerConfig)> {
    let value = read_config(dir)?;
    let in_config = || format!("in {}", dir.join("config.json").display());
    let own = match value.get(OWN) {
        Some(own) => serde_json::from_value::<Own>(own.clone()).with_context(in_config)?,
        None => Own::default(),
    };
    let (backbone, config) = if picture_kind(dir)? == Some(PictureLabellerConfig::FEATURES) {
        let picture = own.picture.with_context(|| format!("{}: `{OWN}` does not say of which pictures", in_config()))?;
        let [channels, height, width] = picture;
        let scale = needed_scale(dir)?;
        let config = PictureLabellerConfig {
            network: None,
            picture: Planes { channels, height, width },
            labels: labels(&value).with_context(in_config)?,
            image_mean: scale.image_mean,
            image_std: scale.image_std,
            features: own.features,
        };
        (None, config)
    } else {
        let (network, config) = load_picture_classifier(dir, device)?;
        (Some(network), PictureLabellerConfig::of(config, own.features))
    };
    // Also where there is to be none of them, so that none is left out unnoticed.
    let features = PictureLabeller { backbone: None, features: config.feature_head(device).with_context(in_config)? };
    let PictureLabeller { features, .. } = Weights::open(dir)?.only(|name| name.starts_with(FEATURES)).fill(features, false)?;
    Ok((PictureLabeller { backbone, features }, config))
}

/// Writes the classifier to `dir`, in 32-bit floats, with what pictures are scaled by. How the features are made of a picture is not part of
/// it. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_picture_labeller(model: &PictureLabeller, config: &PictureLabellerConfig, dir: &Path) -> Result<()> {
    let mut value = match (&model.backbone, &config.network) {
        (Some(network), Some(of_network)) => {
            save_picture_classifier(network, of_network, dir)?;
            if config.features == 0 {
                return Ok(());
            }
            read_config(dir)?
        }
        _ => {
            let mut value = json!({"model_type": config.model_type(), "torch_dtype": "float32"});
            name_labels(&mut value, &config.labels);
            let Planes { height, width, .. } = config.picture;
            write_scale(dir, [height, width], [&config.image_mean, &config.image_std])?;
            value
        }
    };
    let Planes { channels, height, width } = config.picture;
    let picture = config.network.is_none().then_some([channels, height, width]);
    // The class of `transformers` would leave the features out, and say something else.
    value["architectures"] = Value::Null;
    value[OWN] = serde_json::to_value(Own { features: config.features, picture })?;
    write::weights(model, dir, &SaveOptions::default())?;
    write_json(&dir.join("config.json"), &value)
}
