//! Adapters that are kept: taken in from PEFT's folders, and merged into whole models.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::adapter::{self, Merged, logits_gap};
use danlu_models::{Batch, folder};
use danlu_registry::{Level, Lineage, ModelId, ModelRef, Origin, Registry};
use serde_json::json;

use super::{import, prepare};

/// A merged model may give logits that differ from the adapter's on its base by no more than this share of the largest: rounding in 32 bits.
const TOLERANCE: f32 = 1e-4;

/// Registers the adapter in `path`, whose folder calls its base `named`, as one for `base`, with the base's tokenizer where it has none of
/// its own.
///
/// # Errors
/// When there is no such base, or the adapter is not for it.
pub fn take_in(home: &Path, path: &Path, name: &str, origin: Origin, named: &str, base: Option<&str>) -> Result<ModelId> {
    let registry = Registry::open(home)?;
    danlu_registry::check_name(name)?;
    let made_for = || format!("{} is an adapter made for {named:?}", path.display());
    let base = prepare::model_folder(home, base.unwrap_or(named))
        .with_context(|| format!("{}; say with --base which model here that is", made_for()))?;
    let stage = home.join("cache").join("imports").join(name);
    danlu_files::write_folder_atomic(&stage, |dir| {
        // The adapter's own files come last, and so win.
        copy(&base, dir, is_vocabulary)?;
        copy(path, dir, |name| name != "danlu.json")?;
        adapter::set_base(dir, &base)
    })?;
    let parameters = folder::load_config(&base)?.parameters();
    let lineage = Lineage {
        level: Some(Level::L1),
        parent: prepare::registered(home, &base),
        origin: Some(origin),
        facts: [("parameters".to_string(), json!(parameters))].into(),
        ..Lineage::default()
    };
    let registered = registry.register(name, &stage, lineage, |copy| import::check(copy, None));
    fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    registered.with_context(made_for)
}

/// How a merge went.
pub struct Report {
    pub model: ModelId,
    /// The largest difference between logits before and after, and the largest logit.
    pub gap: f32,
    pub largest: f32,
    /// What quantizing the base had lost, as a share of its length; the merged weights are those the quantized base stands for.
    pub quantization_error: Option<f64>,
}

/// Registers the whole model that an adapter and its base are together, as `name` or under the adapter's name with "-merged".
///
/// # Errors
/// When the model is no adapter or one that changes no weight, or the merged model gives other logits; nothing is registered then.
pub fn merge(home: &Path, model: &ModelRef, name: Option<String>) -> Result<Report> {
    let registry = Registry::open(home)?;
    let record = registry.show(model)?;
    let (id, from) = (record.id(), registry.folder(&record.id()));
    ensure!(adapter::base_of(&from)?.is_some(), "{id} is a whole model already: it has no adapter to merge");
    let name = name.unwrap_or_else(|| format!("{}-merged", id.name));
    danlu_registry::check_name(&name)?;
    let (adapted, config) = folder::load(&from, &Device::flex())?;
    let Merged { decoder, quantization_error } = adapted.merged()?;
    let mut tokens = Tokenizer::load(&from)?.encode(import::PROBE)?;
    tokens.truncate(config.context());
    let batch = Batch::document(&tokens);
    let gap = logits_gap(&adapted, &decoder, &batch)?;
    let largest: f32 = decoder.logits(&batch).abs().max().into_scalar();
    ensure!(
        gap <= TOLERANCE * largest.max(1.0),
        "merged, {id} gives logits that differ by {gap} from those before, of which the largest is {largest}"
    );

    let stage = home.join("cache").join("merges").join(&name);
    danlu_files::write_folder_atomic(&stage, |dir| {
        copy(&from, dir, is_vocabulary)?;
        folder::save(&decoder, &config, dir)
    })?;
    let mut facts = vec![("parameters", json!(config.parameters())), ("merge_error", json!(gap))];
    facts.extend(quantization_error.map(|error| ("quantization_error", json!(error))));
    let lineage = Lineage {
        level: record.lineage.level,
        parent: Some(id),
        tokenizer_hash: record.lineage.tokenizer_hash,
        facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        ..Lineage::default()
    };
    let registered = registry.register(&name, &stage, lineage, |copy| import::check(copy, Some(&decoder)));
    fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    Ok(Report { model: registered?, gap, largest, quantization_error })
}

/// Copies the files that `wanted` chooses by their names.
///
/// # Errors
/// When the folder cannot be read or a file not be copied.
pub fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read the folder {}", from.display()))? {
        let file = entry?.path();
        let Some(name) = file.file_name().and_then(|name| name.to_str()).filter(|name| wanted(name)) else { continue };
        if file.is_file() {
            fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    Ok(())
}

/// The files that say how text becomes tokens and back.
pub fn is_vocabulary(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
    ];
    NAMES.contains(&name)
}
