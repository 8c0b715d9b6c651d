//! A trained decoder becomes a model: written as transformers reads it, read back and compared, registered with its lineage.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_models::{Batch, Decoder, DecoderConfig, folder};
use danlu_registry::{Data, Level, Lineage, Measure, ModelId, RecipeRecord, Registry};
use danlu_train::{Summary, recipe};
use serde_json::json;

use super::prepare::Prepared;

/// Logits after reading back may differ from those in memory by no more than this; in 32-bit floats they are equal.
const TOLERANCE: f32 = 1e-4;
/// Tokens of held-out text that both are run on.
const PROBE: usize = 64;

/// Registers what a finished run made as the next version of `name`.
///
/// # Errors
/// When the export cannot be written, or read back gives other logits; nothing is registered then.
pub fn register(home: &Path, name: &str, decoder: &Decoder, prepared: &Prepared, summary: &Summary) -> Result<ModelId> {
    let decoder = decoder.valid();
    let run = &prepared.plan.recipe.name;
    let config = with_ends(&prepared.plan.config, prepared.tokenizer.end_of_text());
    let stage = home.join("runs").join(run).join("export");
    danlu_files::write_folder_atomic(&stage, |dir| {
        folder::save(&decoder, &config, dir)?;
        prepared.tokenizer.export(dir, config.context())
    })?;
    let batch = Batch::document(&probe(prepared)?);
    let expected = logits(&decoder, &batch)?;
    let id = Registry::open(home)?.register(name, &stage, lineage(home, run, prepared, summary)?, |copy| {
        let (read, _) = folder::load(copy, &Device::flex()).context("it does not load")?;
        let found = logits(&read, &batch)?;
        let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        ensure!(
            found.len() == expected.len() && worst <= TOLERANCE,
            "read back, its logits differ from those in memory by {worst}"
        );
        Ok(())
    })?;
    std::fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    Ok(id)
}

/// Programs that load the folder must know which token begins and ends a text.
fn with_ends(config: &DecoderConfig, end: u32) -> DecoderConfig {
    let mut config = config.clone();
    match &mut config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => (c.bos_token_id, c.eos_token_id) = (Some(end), vec![end]),
        DecoderConfig::Gpt2(c) => (c.bos_token_id, c.eos_token_id) = (Some(end), vec![end]),
    }
    config
}

fn probe(prepared: &Prepared) -> Result<Vec<u32>> {
    let set =
        prepared.sets.iter().find(|set| !set.held_out.is_empty()).context("there is no held-out text to compare logits on")?;
    let mut tokens = set.held_out.document(0)?;
    tokens.truncate(PROBE.min(prepared.plan.config.context()));
    Ok(tokens)
}

fn logits(decoder: &Decoder, batch: &Batch) -> Result<Vec<f32>> {
    let logits = decoder
        .logits(batch)
        .into_data()
        .try_into_vec::<f32>()
        .map_err(|e| anyhow::anyhow!("logits are not 32-bit floats: {e:?}"))?;
    ensure!(logits.iter().all(|x| x.is_finite()), "the model gives logits that are not numbers");
    Ok(logits)
}

fn lineage(home: &Path, run: &str, prepared: &Prepared, summary: &Summary) -> Result<Lineage> {
    let recipe = &prepared.plan.recipe;
    let level = match recipe.level {
        recipe::Level::L0 => Level::L0,
        recipe::Level::L1 => Level::L1,
        recipe::Level::L2 => Level::L2,
    };
    let mut metrics = BTreeMap::new();
    if let Some(measure) = &summary.measure {
        let interval = |x: f64| x.is_finite().then_some(x);
        metrics.insert(
            "bits_per_byte".into(),
            Measure { value: measure.value, low: interval(measure.low), high: interval(measure.high) },
        );
    }
    let facts = [
        ("parameters", json!(prepared.plan.parameters)),
        ("tokens_seen", json!(summary.tokens)),
        ("steps", json!(summary.step)),
        ("minutes", json!((summary.elapsed / 6.0).round() / 10.0)),
    ];
    Ok(Lineage {
        level: Some(level),
        parent: prepared.parent(home),
        run: Some(run.to_string()),
        recipe: Some(RecipeRecord { name: recipe.name.clone(), hash: recipe.hash()?, text: recipe.to_toml()? }),
        data: prepared.data().into_iter().map(|d| Data { name: d.name, manifest_hash: d.manifest_hash, licence: None }).collect(),
        tokenizer_hash: Some(prepared.tokenizer.hash().to_string()),
        origin: None,
        metrics,
        facts: facts.map(|(name, value)| (name.to_string(), value)).into(),
    })
}
