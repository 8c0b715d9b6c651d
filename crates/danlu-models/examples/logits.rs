//! Prints the logits of a model's folder, for comparison with other programs, and can save the model again.
//!
//! `logits FOLDER IDS [SAVE_TO [MAX_SHARD_BYTES]]`, with ids as `1,2,3`: one line of JSON for each token, a list of logits.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_models::{Batch, folder};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, ids, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: logits FOLDER IDS [SAVE_TO [MAX_SHARD_BYTES]]");
    };
    let ids = ids
        .split(',')
        .map(|id| id.trim().parse().with_context(|| format!("{id:?} is not a token id")))
        .collect::<Result<Vec<u32>>>()?;
    let (decoder, config) = folder::load(Path::new(from), &Device::flex())?;
    if let Some(to) = rest.first() {
        let mut options = folder::SaveOptions::default();
        if let Some(bytes) = rest.get(1) {
            options.max_shard_bytes = bytes.parse().context("MAX_SHARD_BYTES must be a number")?;
        }
        folder::save_with(&decoder, &config, Path::new(to), &options)?;
    }
    let logits =
        decoder.logits(&Batch::document(&ids)).into_data().try_into_vec::<f32>().map_err(|e| anyhow::anyhow!("{e:?}"))?;
    for row in logits.chunks(config.vocab_size()) {
        println!("{}", serde_json::to_string(row)?);
    }
    Ok(())
}
