//! A model in fewer bits: its weights in blocks, in a GGUF file that runs here and in llama.cpp.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use danlu_data::tokenizer::Tokenizer;
use danlu_data::tokenizer::ggml::Vocabulary;
use danlu_models::adapter::{self, logits_gap};
use danlu_models::gguf::{self, Entry, Gguf};
use danlu_models::{BackboneConfig, Batch, folder};
use danlu_ops::quantized::Format;
use danlu_registry::{Lineage, Measure, ModelId, ModelRef, Record, Registry};
use serde_json::json;

use super::adapters::{copy, is_vocabulary};
use super::import;

/// What a file says of itself, which is written anew for other weights.
const ANEW: [&str; 5] =
    ["general.architecture", "general.type", "general.file_type", "general.quantization_version", "general.alignment"];

type Metadata = Vec<(String, Entry)>;

/// A quantized model that is not yet registered.
pub struct Quantized {
    /// What it was made from, and where that is.
    pub from: ModelId,
    pub before: PathBuf,
    /// Where it is now.
    pub stage: PathBuf,
    /// Bytes of the weights that each runs from.
    pub bytes: [u64; 2],
    /// The types of the matrices, with how many values are of each.
    pub types: Vec<(&'static str, usize)>,
    /// The largest difference between logits on a sentence, and the largest logit.
    pub gap: f32,
    pub largest: f32,
    /// Why llama.cpp cannot read texts with it, where it cannot.
    pub only_here: Option<String>,
    name: String,
    lineage: Lineage,
}

impl Quantized {
    /// Writes the model in `format`, called `name` or as the model with the format behind it.
    ///
    /// # Errors
    /// When the model is none that writes, is an adapter, or cannot be read or written.
    pub fn write(home: &Path, model: &ModelRef, format: Format, name: Option<String>) -> Result<Self> {
        let registry = Registry::open(home)?;
        let record = registry.show(model)?;
        let (from, before) = (record.id(), registry.folder(&record.id()));
        let name = name.unwrap_or_else(|| format!("{}-{}", from.name, format.name().to_lowercase()));
        danlu_registry::check_name(&name)?;
        ensure!(
            adapter::base_of(&before)?.is_none(),
            "{from} is an adapter: `danlu models merge {from}` makes a whole model of it, which can be quantized"
        );
        if matches!(folder::load_backbone_config(&before)?, BackboneConfig::Bert(_))
            || folder::load_head_config(&before)?.is_some()
        {
            bail!("{from} does not write text, and only models that do are run from blocks");
        }
        let (floats, config) = folder::load(&before, &Device::flex())?;
        let (mut metadata, only_here) = metadata(&before, config.vocab_size())?;
        if !metadata.iter().any(|(key, _)| key == "general.name") {
            metadata.push(("general.name".into(), Entry::String(name.clone())));
        }
        let stage = home.join("cache").join("quantized").join(&name);
        danlu_files::write_folder_atomic(&stage, |dir| {
            copy(&before, dir, |name| is_vocabulary(name) || ["config.json", "generation_config.json"].contains(&name))?;
            gguf::save(&floats, &config, &metadata, format, &dir.join(folder::GGUF))
        })?;
        let (running, _) = folder::load_to_run(&stage, &Device::flex())?;
        let mut tokens = Tokenizer::load(&before)?.encode(import::PROBE)?;
        tokens.truncate(config.context());
        let batch = Batch::document(&tokens);
        let gap = logits_gap(&floats, &running, &batch)?;
        let largest: f32 = floats.logits(&batch).abs().max().into_scalar();
        let file = Gguf::open(&stage.join(folder::GGUF))?;
        let types = file.types();
        let facts = [
            ("parameters".to_string(), json!(config.parameters())),
            ("weights_are".to_string(), json!(file.main_type())),
            ("quantized_to".to_string(), json!(format.name())),
        ];
        let lineage = Lineage {
            level: record.lineage.level,
            parent: Some(from.clone()),
            data: record.lineage.data.clone(),
            tokenizer_hash: record.lineage.tokenizer_hash.clone(),
            facts: facts.into(),
            ..Lineage::default()
        };
        let bytes = [weights(&record), file.bytes() as u64];
        Ok(Self { from, before, stage, bytes, types, gap, largest, only_here, name, lineage })
    }

    /// Registers it, with its bits per byte where they were measured.
    ///
    /// # Errors
    /// When the registry's copy does not give numbers, or other ones from its blocks; nothing is registered then.
    pub fn register(mut self, home: &Path, measured: Option<Measure>) -> Result<ModelId> {
        self.lineage.metrics.extend(measured.map(|measure| ("bits_per_byte".to_string(), measure)));
        let registered = Registry::open(home)?.register(&self.name, &self.stage, self.lineage, |copy| import::check(copy, None));
        fs::remove_dir_all(&self.stage).with_context(|| format!("cannot remove {}", self.stage.display()))?;
        registered
    }
}

/// Bytes of the files that a model runs from.
fn weights(record: &Record) -> u64 {
    let of = |kind: &str| record.files.iter().filter(|(name, _)| name.ends_with(kind)).map(|(_, file)| file.bytes).sum::<u64>();
    match of(".gguf") {
        0 => of(".safetensors"),
        blocks => blocks,
    }
}

/// What the file is to say of the model and its tokenizer: as the GGUF file in `dir` does, or after the tokenizer there. Also why it cannot.
fn metadata(dir: &Path, rows: usize) -> Result<(Metadata, Option<String>)> {
    let path = dir.join(folder::GGUF);
    if path.is_file() {
        let file = Gguf::open(&path)?;
        let kept = |key: &&str| key.starts_with("tokenizer.") || key.starts_with("general.") && !ANEW.contains(key);
        let entries = file.header().keys().filter(kept).filter_map(|key| Some((key.to_string(), file.entry(key)?)));
        return Ok((entries.collect(), None));
    }
    match Vocabulary::of_folder(dir, rows) {
        Ok(vocabulary) => {
            let unknown = !vocabulary.has_name();
            let reason = unknown.then(|| "it has no name for how the tokenizer splits text".to_string());
            Ok((entries(vocabulary), reason))
        }
        Err(error) => Ok((vec![], Some(format!("{error:#}")))),
    }
}

/// A vocabulary under the keys that llama.cpp looks for.
fn entries(vocabulary: Vocabulary) -> Metadata {
    let Vocabulary { model, pre, tokens, types, merges, bos, eos, unknown, padding, add_bos, chat_template } = vocabulary;
    let mut entries = vec![
        ("model", Entry::String(model)),
        ("pre", Entry::String(pre)),
        ("tokens", Entry::Strings(tokens)),
        ("token_type", Entry::I32s(types)),
        ("merges", Entry::Strings(merges)),
        ("add_bos_token", Entry::Bool(add_bos)),
    ];
    let ids = [("bos_token_id", bos), ("eos_token_id", eos), ("unknown_token_id", unknown), ("padding_token_id", padding)];
    entries.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Entry::U32(id?)))));
    let mut entries: Metadata = entries.into_iter().map(|(key, entry)| (format!("tokenizer.ggml.{key}"), entry)).collect();
    entries.extend(chat_template.map(|template| ("tokenizer.chat_template".to_string(), Entry::String(template))));
    entries
}
