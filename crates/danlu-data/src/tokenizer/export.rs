//! The files beside `tokenizer.json` in a model's folder.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{PAD, Tokenizer};

const MAX_CONFIG: u64 = 16 << 20;

pub(super) fn export(tokenizer: &Tokenizer, folder: &Path, context: usize) -> Result<()> {
    let end = tokenizer.id_to_token(tokenizer.end_of_text()).context("the end-of-text token has no name")?;
    let mut special = Map::new();
    special.insert("bos_token".into(), json!(end));
    special.insert("eos_token".into(), json!(end));
    if let Some(pad) = [PAD, "[PAD]"].into_iter().find(|pad| tokenizer.token_to_id(pad).is_some()) {
        special.insert("pad_token".into(), json!(pad));
    }
    for (key, token) in [("unk_token", "[UNK]"), ("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("mask_token", "[MASK]")] {
        if tokenizer.token_to_id(token).is_some() {
            special.insert(key.into(), json!(token));
        }
    }
    let mut config = special.clone();
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    config.insert("model_max_length".into(), json!(context));
    // The default of older `transformers` would remove the space before punctuation when decoding.
    config.insert("clean_up_tokenization_spaces".into(), json!(false));
    tokenizer.save(&folder.join("tokenizer.json"))?;
    for (name, value) in [("tokenizer_config.json", config), ("special_tokens_map.json", special)] {
        danlu_files::write_atomic_bytes(&folder.join(name), serde_json::to_string_pretty(&Value::Object(value))?.as_bytes())?;
    }
    Ok(())
}

/// The `eos_token` of the `tokenizer_config.json` beside a `tokenizer.json`, when there is one.
pub(super) fn end_token_beside(tokenizer_json: &Path) -> Result<Option<String>> {
    let path = tokenizer_json.with_file_name("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = danlu_files::read_text_bounded(&path, MAX_CONFIG)?;
    let config: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let token = &config["eos_token"];
    Ok(token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned))
}
