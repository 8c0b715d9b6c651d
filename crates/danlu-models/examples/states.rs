//! Prints what an encoder or a classifier makes of texts, for comparison with other programs, and can save the model again.
//!
//! `states FOLDER TEXTS [SAVE_TO]`, where TEXTS is a file with a JSON list of ids in each line, or an object of `ids` and `kinds`. For each
//! text one line of JSON: `logits` of a classifier, else `hidden` states and, where the model has a head for masked words, `masked`.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use danlu_models::{Backbone, Texts, folder};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, texts, rest @ ..] = arguments.as_slice() else { anyhow::bail!("usage: states FOLDER TEXTS [SAVE_TO]") };
    let (from, device) = (Path::new(from), Device::flex());
    let texts: Vec<(Vec<u32>, Vec<u32>)> =
        std::fs::read_to_string(texts)?.lines().map(|line| text(&serde_json::from_str(line)?)).collect::<Result<_>>()?;
    let texts = texts.iter().map(|(ids, kinds)| Texts::new([(&ids[..], &kinds[..])]));
    if folder::load_head_config(from)?.is_some() {
        let (model, config) = folder::load_classifier(from, &device)?;
        if let Some(to) = rest.first() {
            folder::save_classifier(&model, config.as_ref(), Some(0), Path::new(to))?;
        }
        for text in texts {
            println!("{}", json!({ "logits": rows(model.logits(&text, None, false))? }));
        }
        return Ok(());
    }
    let (backbone, _) = folder::load_backbone(from, &device)?;
    if let Some(to) = rest.first() {
        let (bert, config) = folder::load_bert(from, &device)?;
        folder::save_bert(&bert, &config, Path::new(to))?;
    }
    for text in texts {
        let hidden = backbone.hidden(&text, false);
        let mut line = json!({ "hidden": rows(hidden.clone())? });
        if let Backbone::Bert(bert) = &backbone
            && bert.cls.is_some()
        {
            line["masked"] = json!(rows(bert.masked_logits(hidden))?);
        }
        println!("{line}");
    }
    Ok(())
}

fn text(line: &Value) -> Result<(Vec<u32>, Vec<u32>)> {
    let ids: Vec<u32> = serde_json::from_value(if line.is_array() { line.clone() } else { line["ids"].clone() })?;
    let kinds = line.get("kinds").map(|kinds| serde_json::from_value(kinds.clone())).transpose().context("`kinds`")?;
    Ok((ids.clone(), kinds.unwrap_or_else(|| vec![0; ids.len()])))
}

fn rows(x: Tensor<2>) -> Result<Vec<Vec<f32>>> {
    let width = x.dims()[1];
    let values = x.into_data().try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
}
