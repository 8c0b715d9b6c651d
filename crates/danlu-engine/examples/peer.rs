//! Answers another program's questions about a model, for comparison: how it splits a text, what it writes greedily, how likely tokens are.
//!
//! `peer FOLDER` reads a line of JSON for each question: `{"text": …}` is answered with its ids; `{"ids": […], "write": N}` with the N
//! likeliest tokens, one after another, and how far each one's logit is from the second's; `{"ids": […]}` with the negative
//! log-likelihood of each token but the first, in nats, and the last token's logits.
//! `peer FOLDER blocks` answers from the blocks of the folder's `model.gguf`.
//! `peer FOLDER SOURCE.gguf SAVE_TO.gguf FORMAT` writes the model as GGUF first, with the tokenizer of `SOURCE.gguf`.

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::gguf::{self, Entry, Gguf};
use danlu_models::{Batch, Cache, Decoder, DecoderConfig, folder};
use danlu_ops::IGNORE;
use danlu_ops::quantized::Format;
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, blocks, save) = match arguments.as_slice() {
        [from] => (from, false, None),
        [from, blocks] if blocks == "blocks" => (from, true, None),
        [from, source, to, format] => (from, false, Some((source, to, format))),
        _ => bail!("usage: peer FOLDER [blocks | SOURCE.gguf SAVE_TO.gguf FORMAT]"),
    };
    let folder = Path::new(from);
    let load = if blocks { folder::load_to_run } else { folder::load };
    let (decoder, config) = load(folder, &Device::flex())?;
    if let Some((source, to, format)) = save {
        write(&decoder, &config, Path::new(source), Path::new(to), format)?;
    }
    let tokenizer = Tokenizer::load(folder)?;
    for line in std::io::stdin().lock().lines() {
        let question: serde_json::Value = serde_json::from_str(&line?)?;
        if let Some(text) = question["text"].as_str() {
            println!("{}", json!({"ids": tokenizer.encode(text)?}));
            continue;
        }
        let ids: Vec<u32> = serde_json::from_value(question["ids"].clone())?;
        match question["write"].as_u64() {
            Some(count) => println!("{}", greedy(&decoder, &ids, count as usize)),
            None => println!("{}", likelihood(&decoder, ids)?),
        }
    }
    Ok(())
}

fn greedy(decoder: &Decoder, ids: &[u32], count: usize) -> serde_json::Value {
    let mut cache = Cache::new(decoder, ids.len() + count);
    let mut logits = decoder.step(ids, &mut cache);
    let (mut written, mut margins) = (vec![], vec![]);
    for _ in 0..count {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.select_nth_unstable_by(1, |a, b| logits[*b].total_cmp(&logits[*a]));
        let (first, second) = if logits[order[0]] >= logits[order[1]] { (order[0], order[1]) } else { (order[1], order[0]) };
        written.push(first as u32);
        margins.push(logits[first] - logits[second]);
        if written.len() < count {
            logits = decoder.step(&[first as u32], &mut cache);
        }
    }
    json!({"written": written, "margins": margins})
}

fn likelihood(decoder: &Decoder, ids: Vec<u32>) -> Result<serde_json::Value> {
    let targets = ids.iter().skip(1).copied().chain([IGNORE]).collect();
    let batch = Batch::new(ids.clone(), targets, 1, ids.len(), vec![]);
    let mut nll = decoder.token_nll(&batch);
    nll.truncate(ids.len() - 1);
    let logits = decoder.step(&ids, &mut Cache::new(decoder, ids.len()));
    Ok(json!({"nll": nll, "last_logits": logits}))
}

fn write(decoder: &Decoder, config: &DecoderConfig, source: &Path, to: &Path, format: &str) -> Result<()> {
    let format =
        Format::ALL.into_iter().find(|known| known.name() == format).with_context(|| format!("{format} is no format"))?;
    let source = Gguf::open(source)?;
    let kept = source.header().keys().filter(|key| key.starts_with("tokenizer."));
    let metadata: Vec<(String, Entry)> = kept.filter_map(|key| Some((key.to_string(), source.entry(key)?))).collect();
    gguf::save(decoder, config, &metadata, format, to)
}
