//! Folders of encoders and of classifiers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::read::Weights;
use super::{SaveOptions, read_config, write, write_json};
use crate::bert::{Bert, BertHeads};
use crate::config::{BertConfig, HeadConfig, Pooling, Task};
use crate::{Backbone, BackboneConfig, Classifier, adapter};

/// Where a `config.json` says what `transformers` has no word for.
pub(super) const OWN: &str = "danlu";

/// Reads the encoder in `dir`, with the heads that its files hold.
///
/// # Errors
/// As [`super::load`].
pub fn load_bert(dir: &Path, device: &Device) -> Result<(Bert, BertConfig)> {
    let config: BertConfig = serde_json::from_value(read_config(dir)?).with_context(|| in_config(dir))?;
    let weights = Weights::open(dir)?;
    let has = |name: &str| weights.names().any(|known| known == name);
    let heads = BertHeads { pooler: has("bert.pooler.dense.weight"), masked_lm: has("cls.predictions.transform.dense.weight") };
    let bert = weights.fill(Bert::empty(&config, heads, device), true)?;
    Ok((bert, config))
}

/// Writes the encoder to `dir`, in 32-bit floats. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_bert(bert: &Bert, config: &BertConfig, dir: &Path) -> Result<()> {
    write::weights(bert, dir, &SaveOptions::default())?;
    let mut value = Value::from(config.clone());
    value["architectures"] = json!([if bert.cls.is_some() { "BertForMaskedLM" } else { "BertModel" }]);
    write_json(&dir.join("config.json"), &value)
}

/// Reads the configuration of any backbone, with or without a head.
///
/// # Errors
/// As [`super::load`].
pub fn load_backbone_config(dir: &Path) -> Result<BackboneConfig> {
    if adapter::base_of(dir)?.is_some() {
        return Ok(BackboneConfig::Decoder(super::load_config(dir)?));
    }
    serde_json::from_value(read_config(dir)?).with_context(|| in_config(dir))
}

/// Reads any decoder or encoder, without a classifier's head.
///
/// # Errors
/// As [`super::load`].
pub fn load_backbone(dir: &Path, device: &Device) -> Result<(Backbone, BackboneConfig)> {
    let config = load_backbone_config(dir)?;
    let backbone = match &config {
        BackboneConfig::Bert(_) => Backbone::Bert(load_bert(dir, device)?.0),
        BackboneConfig::Decoder(_) => {
            let decoder = super::load(dir, device)?.0;
            if !decoder.is_adapted() {
                return Ok((Backbone::Decoder(decoder), config));
            }
            // An adapter counts as part of its base.
            let merged = decoder.merged()?.decoder;
            Backbone::Decoder(if device.is_autodiff() { merged.train().set_require_grad(true) } else { merged })
        }
    };
    Ok((backbone, config))
}

/// The head of the classifier in `dir`; none when it holds another kind of model.
///
/// # Errors
/// As [`super::load`].
pub fn load_head_config(dir: &Path) -> Result<Option<HeadConfig>> {
    let value = read_config(dir)?;
    head_of(&value).with_context(|| in_config(dir))
}

/// Reads the classifier in `dir`, whoever wrote it, with the configuration of its backbone when it has one.
///
/// # Errors
/// As [`super::load`], and when the folder holds no classifier.
pub fn load_classifier(dir: &Path, device: &Device) -> Result<(Classifier, Option<BackboneConfig>)> {
    let value = read_config(dir)?;
    let head = head_of(&value).with_context(|| in_config(dir))?;
    let head = head.with_context(|| format!("{} holds a model without a classifier's head", dir.display()))?;
    let backbone = match value["model_type"].as_str() {
        None => None,
        Some(_) => Some(serde_json::from_value::<BackboneConfig>(value).with_context(|| in_config(dir))?.headless()),
    };
    let classifier = Classifier::empty(backbone.as_ref(), &head, device)?;
    Ok((Weights::open(dir)?.fill(classifier, true)?, backbone))
}

/// Writes the classifier to `dir`, in 32-bit floats, as the class of `transformers` that computes the same where there is one. `padding` is
/// the token that fills rows there. Other files in `dir` stay.
///
/// # Errors
/// As [`super::save`].
pub fn save_classifier(
    classifier: &Classifier,
    backbone: Option<&BackboneConfig>,
    padding: Option<u32>,
    dir: &Path,
) -> Result<()> {
    let adapted =
        matches!(&classifier.backbone, Some(Backbone::Decoder(decoder)) if decoder.is_adapted() || decoder.is_quantized());
    ensure!(!adapted, "a model's folder holds whole weights: merge the adapter first");
    write::weights(classifier, dir, &SaveOptions::default())?;
    let head = classifier.config();
    let mut value = match backbone {
        Some(config) => Value::from(config.headless()),
        None => json!({"torch_dtype": "float32"}),
    };
    value["architectures"] = match head.architecture(backbone) {
        Some(class) => json!([class]),
        None => Value::Null,
    };
    let names = match head.task {
        Task::Number => vec!["number".to_string()],
        _ => head.labels.clone(),
    };
    let numbered = |(i, name): (usize, &String)| (i.to_string(), json!(name));
    value["id2label"] = names.iter().enumerate().map(numbered).collect::<Map<_, _>>().into();
    value["label2id"] = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect::<Map<_, _>>().into();
    value["pad_token_id"] = json!(padding);
    match head.task {
        Task::Classes => value["problem_type"] = json!("single_label_classification"),
        Task::Number => value["problem_type"] = json!("regression"),
        Task::Tags => {}
    }
    value[OWN] = serde_json::to_value(head)?;
    write_json(&dir.join("config.json"), &value)
}

/// The head that a `config.json` describes: danlu's own words, or those of `transformers`.
fn head_of(value: &Value) -> Result<Option<HeadConfig>> {
    if let Some(own) = value.get(OWN) {
        return Ok(Some(serde_json::from_value(own.clone()).with_context(|| format!("`{OWN}`"))?));
    }
    let class = value["architectures"][0].as_str().unwrap_or_default();
    let tags = class.ends_with("ForTokenClassification");
    if !tags && !class.ends_with("ForSequenceClassification") {
        return Ok(None);
    }
    let labels = match value["id2label"].as_object() {
        // transformers writes no names when there are two labels without names.
        None => vec!["LABEL_0".to_string(), "LABEL_1".to_string()],
        Some(names) => {
            let one = |i: usize| names.get(&i.to_string()).and_then(Value::as_str).map(str::to_string);
            let all: Option<Vec<String>> = (0..names.len()).map(one).collect();
            all.context("`id2label` does not name each label from 0 on")?
        }
    };
    let number = value["problem_type"] == "regression" || (!tags && labels.len() == 1);
    ensure!(
        value["problem_type"] != "multi_label_classification",
        "`problem_type` is multi_label_classification, which is not supported"
    );
    ensure!(!number || labels.len() == 1, "`problem_type` is regression of {} numbers; one is supported", labels.len());
    let task = if tags {
        Task::Tags
    } else if number {
        Task::Number
    } else {
        Task::Classes
    };
    let pooling = if value["model_type"] == "bert" { Pooling::First } else { Pooling::Last };
    Ok(Some(HeadConfig { task, labels: if number { vec![] } else { labels }, pooling, features: 0 }))
}

fn in_config(dir: &Path) -> String {
    format!("in {}", dir.join("config.json").display())
}
