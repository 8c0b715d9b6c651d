//! A reward model's folder, as `LlamaForSequenceClassification` and its like read and write it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::{CONFIG_LIMIT, SaveOptions, load_config, read, write, write_json};
use crate::{DecoderConfig, RewardModel, names};

/// Writes a reward model to `dir` in 32-bit floats. `pad` fills up short texts of a batch in `transformers`, which scores the last token that
/// is another one: it must be none that a text ends with.
///
/// # Errors
/// As [`super::save`].
pub fn save_reward(model: &RewardModel, config: &DecoderConfig, pad: u32, dir: &Path) -> Result<()> {
    write::weights(model, dir, &SaveOptions::default())?;
    let mut shape = serde_json::to_value(config)?;
    let class = match config {
        DecoderConfig::Llama(_) => "LlamaForSequenceClassification",
        DecoderConfig::Qwen3(_) => "Qwen3ForSequenceClassification",
        DecoderConfig::Gpt2(_) => "GPT2ForSequenceClassification",
    };
    shape["architectures"] = json!([class]);
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
    let model = RewardModel::empty(&config, device)?;
    weights.check(&names::names_and_shapes(&model), true)?;
    let model = names::fill(model, |name, shape| weights.values(name, shape))?;
    Ok((model, config))
}

/// How many labels `config.json` names, when it does.
fn labels(dir: &Path) -> Result<Option<usize>> {
    let path = dir.join("config.json");
    let text = danlu_files::read_text_bounded(&path, CONFIG_LIMIT)?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let named = value["id2label"].as_object().map(serde_json::Map::len);
    Ok(named.or_else(|| value["num_labels"].as_u64().map(|count| count as usize)))
}
