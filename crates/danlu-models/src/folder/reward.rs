//! A reward model's folder, as `LlamaForSequenceClassification` and its like read and write it.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use serde_json::json;

use super::{SaveOptions, load_config, read, read_config, write, write_json};
use crate::{DecoderConfig, RewardModel};

/// Writes a reward model to `dir` in 32-bit floats. `pad` fills up short texts of a batch in `transformers`, which scores the last token that
/// is another one: it must be none that a text ends with.
///
/// # Errors
/// As [`super::save`].
pub fn save_reward(model: &RewardModel, config: &DecoderConfig, pad: u32, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    let mut shape = serde_json::to_value(config)?;
    shape["architectures"] = json!([format!("{}ForSequenceClassification", config.class())]);
    shape["id2label"] = json!({"0": "reward"});
    shape["label2id"] = json!({"reward": 0});
    shape["pad_token_id"] = json!(pad);
    write_json(&dir.join("config.json"), &shape)
}

/// Reads the reward model in `dir`, whoever wrote it. Texts are scored at their last token, so give [`RewardModel::score`] none that is
/// padded.
///
/// # Errors
/// As [`super::load`]; and when the folder holds a classifier of several labels, or a language model without a score.
pub fn load_reward(dir: &Path, device: &Device) -> Result<(RewardModel, DecoderConfig)> {
    let config = load_config(dir)?.without_head();
    let labels = labels(dir)?;
    ensure!(
        labels.is_none_or(|count| count == 1),
        "{} holds a classifier of {} labels; a reward model has one score",
        dir.display(),
        labels.unwrap_or_default()
    );
    let weights = read::Weights::open(dir)?;
    ensure!(
        weights.names().any(|name| name == "score.weight"),
        "{} holds no reward model: it has no `score.weight`. `recipes/reward.toml` makes one from a language model",
        dir.display()
    );
    Ok((weights.fill(RewardModel::empty(&config, device)?, true)?, config))
}

/// How many labels `config.json` names, when it does.
fn labels(dir: &Path) -> Result<Option<usize>> {
    let value = read_config(dir)?;
    let named = value["id2label"].as_object().map(serde_json::Map::len);
    Ok(named.or_else(|| value["num_labels"].as_u64().map(|count| count as usize)))
}
