//! Texts in two languages, paragraph beside paragraph: how they are aligned, and which are kept out of training.

mod divide;
mod read;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::tokenizer::Tokenizer;

pub use divide::{Divided, divide};
pub use read::{Parallel, read};

const MAX_CONFIG: u64 = 16 << 20;

/// A paragraph in two languages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Where it stands: what is of one page is on one side of a split.
    pub page: String,
    pub source: String,
    pub target: String,
}

/// How many were left out, by the reason.
pub type Dropped = Vec<(&'static str, usize)>;

/// What was left out, for a person.
pub fn described(dropped: &[(&'static str, usize)]) -> String {
    let parts = dropped.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{count} {reason}"));
    let text = parts.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "nothing".into() } else { text }
}

/// [`Tokenizer::export`] with the token that ends a text behind each text, so that other programs read sources as they were trained on.
///
/// # Errors
/// When the tokenizer cannot be written or read back.
pub fn export(tokenizer: &Tokenizer, folder: &Path, context: usize) -> Result<()> {
    ended(tokenizer)?.export(folder, context)?;
    // Models that translate are not told which of two texts a token is of.
    let path = folder.join("tokenizer_config.json");
    let text = danlu_files::read_text_bounded(&path, MAX_CONFIG)?;
    let mut config: Value = serde_json::from_str(&text)?;
    config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    danlu_files::write_atomic_bytes(&path, serde_json::to_string_pretty(&config)?.as_bytes())
}

fn ended(tokenizer: &Tokenizer) -> Result<Tokenizer> {
    let mut file: Value = serde_json::from_str(&tokenizer.to_json()?)?;
    let id = tokenizer.end_of_text();
    let end = tokenizer.id_to_token(id).context("the token that ends a text has no name")?;
    let special = |kind: u32| json!({"SpecialToken": {"id": end, "type_id": kind}});
    let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let mut known = serde_json::Map::new();
    known.insert(end.clone(), json!({"id": end, "ids": [id], "tokens": [end]}));
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [text("A", 0), special(0)],
        "pair": [text("A", 0), special(0), text("B", 1), special(1)],
        "special_tokens": known,
    });
    Tokenizer::from_json(&serde_json::to_vec(&file)?, Some(&end))
}
