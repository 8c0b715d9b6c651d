//! Prints the logits of a model's folder, for comparison with other programs, and can save the model again.
//!
//! `logits FOLDER IDS [SAVE_TO [MAX_SHARD_BYTES]]`, with ids as `1,2,3`: one line of JSON for each token, a list of logits. For a model that
//! translates, ids are `1,2,3/4,5`: a source and a translation without the tokens that end them; a line for each token that is predicted. For a
//! network of pictures they are a file of JSON, `{"pictures": [[…], …], "kept": [[…], …]}`, with the values of each picture and, for a masked
//! autoencoder, the patches of each that are seen: a line of logits for each picture, or its loss.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_models::{Batch, Pairs, folder};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, ids, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: logits FOLDER IDS [SAVE_TO [MAX_SHARD_BYTES]]");
    };
    if ids.ends_with(".json") {
        return pictures(Path::new(from), Path::new(ids), rest.first().map(Path::new));
    }
    if let Some((source, translation)) = ids.split_once('/') {
        let (model, config) = folder::load_marian(Path::new(from), &Device::flex())?;
        if let Some(to) = rest.first() {
            folder::save_marian(&model, &config, Path::new(to))?;
        }
        let (source, translation) = (numbers(source)?, numbers(translation)?);
        let pairs = Pairs::new([(&source[..], &translation[..])], config.eos_token_id);
        return print(model.logits(&pairs), config.vocab_size);
    }
    let ids = numbers(ids)?;
    let (decoder, config) = folder::load(Path::new(from), &Device::flex())?;
    if let Some(to) = rest.first() {
        let mut options = folder::SaveOptions::default();
        if let Some(bytes) = rest.get(1) {
            options.max_shard_bytes = bytes.parse().context("MAX_SHARD_BYTES must be a number")?;
        }
        folder::save_with(&decoder, &config, Path::new(to), &options)?;
    }
    print(decoder.logits(&Batch::document(&ids)), config.vocab_size())
}

/// What a network of pictures makes of the pictures in a file.
fn pictures(from: &Path, file: &Path, to: Option<&Path>) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Asked {
        pictures: Vec<Vec<f32>>,
        #[serde(default)]
        kept: Vec<Vec<u32>>,
    }
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let Asked { pictures, kept } = serde_json::from_str(&text)?;
    let (count, device) = (pictures.len(), Device::flex());
    let values = pictures.concat();
    let each = values.len() / count.max(1);
    let pictures = Tensor::<2>::from_data(TensorData::new(values, [count, each]), &device);
    if folder::picture_kind(from)? == Some("vit_mae") {
        let (mae, config) = folder::load_mae(from, &device)?;
        if let Some(to) = to {
            folder::save_mae(&mae, &config, to)?;
        }
        for loss in mae.losses(pictures, &kept.concat().into()) {
            println!("{}", serde_json::to_string(&[loss])?);
        }
        return Ok(());
    }
    let (model, config) = folder::load_picture_classifier(from, &device)?;
    if let Some(to) = to {
        folder::save_picture_classifier(&model, &config, to)?;
    }
    print(model.logits(pictures), config.labels().len())
}

fn numbers(ids: &str) -> Result<Vec<u32>> {
    ids.split(',').map(|id| id.trim().parse().with_context(|| format!("{id:?} is not a token id"))).collect()
}

fn print(logits: Tensor<2>, vocabulary: usize) -> Result<()> {
    let logits = logits.into_data().try_into_vec::<f32>().map_err(|e| anyhow::anyhow!("{e:?}"))?;
    for row in logits.chunks(vocabulary) {
        println!("{}", serde_json::to_string(row)?);
    }
    Ok(())
}
