use std::path::Path;

use serde_json::Value;

use crate::record::Record;

/// The model card, `README.md`: the front matter that model hubs read, then what the model is, what it measured, and how to use it.
pub(crate) fn text(record: &Record, dir: &Path) -> String {
    let lineage = &record.lineage;
    let adapter = !dir.join("config.json").exists();
    let config = std::fs::read(dir.join("config.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let kind = config.as_ref().and_then(|c| c.get("model_type")).and_then(Value::as_str);
    let embeds = config.as_ref().is_some_and(|c| c.get("embedding_size").is_some());
    let featured = config.as_ref().is_some_and(|c| c["danlu"]["features"].as_u64() > Some(0));
    let pictures = of_pictures(kind, embeds);
    let library = match pictures {
        // Which networks of pictures `transformers` has a class for; it leaves features beside them out.
        Some(_) if featured || !matches!(kind, Some("vit" | "vit_mae")) => "danlu",
        Some(_) => "transformers",
        None if adapter => "peft",
        None => "transformers",
    };
    let task = pictures.map_or("text-generation", |(task, _)| task);
    let mut card = format!("---\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n- danlu\n");
    if let Some(parent) = &lineage.parent {
        card.push_str(&format!("base_model: {parent}\n"));
    }
    card.push_str(&format!("---\n\n# {}\n\n", record.id()));
    card.push_str(&format!("Made by danlu {} on {}.", record.code_version, record.created));
    if let Some(level) = lineage.level {
        card.push_str(&format!(" Level {}.", level.as_str()));
    }
    card.push_str("\n\n");

    let mut rows: Vec<(String, String)> = Vec::new();
    if let Some(kind) = kind {
        rows.push(("architecture".into(), kind.into()));
    }
    rows.extend(lineage.facts.iter().map(|(name, value)| (name.replace('_', " "), plain(value))));
    for (name, measure) in &lineage.metrics {
        let interval = match (measure.low, measure.high) {
            (Some(low), Some(high)) => format!(" (95 % interval {low:.4} to {high:.4})"),
            _ => String::new(),
        };
        rows.push((name.replace('_', " "), format!("{:.4}{interval}", measure.value)));
    }
    if !rows.is_empty() {
        card.push_str("| | |\n|---|---|\n");
        rows.iter().for_each(|(name, value)| card.push_str(&format!("| {name} | {value} |\n")));
        card.push('\n');
    }
    if !lineage.data.is_empty() {
        card.push_str("## Data\n\n");
        for data in &lineage.data {
            let licence = data.licence.as_deref().map(|l| format!(", {l}")).unwrap_or_default();
            card.push_str(&format!("- {} (manifest `{}`{licence})\n", data.name, data.manifest_hash));
        }
        card.push('\n');
    }
    if let Some(origin) = &lineage.origin {
        let licence = origin.licence.as_deref().unwrap_or("not said");
        card.push_str(&format!("## Origin\n\nImported from `{}`. Licence: {licence}.\n\n", origin.from));
    }
    if let Some(recipe) = &lineage.recipe {
        card.push_str(&format!("## Recipe\n\n```toml\n{}\n```\n\n", recipe.text.trim_end()));
    }
    if let Some((_, usage)) = pictures {
        let usage = usage.replace("MODEL", &record.id().to_string());
        card.push_str(&format!("## Use\n\n```console\n$ danlu {usage}\n```\n"));
        return card;
    }
    let model = if adapter { "AutoPeftModelForCausalLM" } else { "AutoModelForCausalLM" };
    let imports = if adapter {
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
    } else {
        "from transformers import AutoModelForCausalLM, AutoTokenizer"
    };
    let floats = ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| dir.join(name).exists());
    let file = if !adapter && !floats { ", gguf_file=\"model.gguf\"" } else { "" };
    card.push_str(&format!(
        "## Use\n\n```console\n$ danlu generate {} --prompt \"The city\"\n```\n\n```python\n{imports}\n\nmodel = {model}.from_pretrained(\".\"{file})\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n",
        record.id()
    ));
    card
}

/// The task and the use of a network of pictures.
fn of_pictures(kind: Option<&str>, embeds: bool) -> Option<(&'static str, &'static str)> {
    match kind? {
        "vit" if embeds => Some(("image-feature-extraction", "embed alike one.png other.png --model MODEL")),
        "vit" => Some(("image-classification", "classify MODEL picture.png")),
        "vit_mae" => Some(("image-feature-extraction", "train recipes/2020-vit.toml --set model.from=MODEL")),
        "lenet" => Some(("image-classification", "classify MODEL picture.png")),
        "vit_detect" => Some(("object-detection", "classify MODEL picture.png --sheet seen.png")),
        "vit_segment" => Some(("image-segmentation", "classify MODEL picture.png --sheet seen.png")),
        "vit_pose" => Some(("keypoint-detection", "classify MODEL picture.png --sheet seen.png")),
        "gan" => Some(("unconditional-image-generation", "generate MODEL --out pictures.png")),
        "picture_features" => Some(("image-classification", "classify MODEL picture.png")),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
