//! Models made elsewhere become registered ones: a folder of `transformers`, a GGUF file, an entry of the catalogue.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use danlu_data::labelled::Frame;
use danlu_data::source::Source;
use danlu_data::tokenizer::{Tokenizer, ggml};
use danlu_data::{Progress, catalogue};
use danlu_models::gguf::{Gguf, Value};
use danlu_models::{BackboneConfig, Batch, Decoder, Texts, adapter, folder, gguf};
use danlu_registry::{Level, Lineage, ModelId, Origin, Record, Registry};
use serde_json::json;

use super::export::{agree, finite};
use super::{adapters, pictures};

/// What a model is run on, before it is written and when it is read back.
pub const PROBE: &str = "The furnace is lit in the evening, and by morning the elixir is ready.";

/// What a user says about a model to be taken in.
#[derive(Debug, Default)]
pub struct About {
    /// Without a name it is called after the file or folder.
    pub name: Option<String>,
    pub licence: Option<String>,
    /// The model an adapter is for, where its folder does not say or says it otherwise: a registered model or a folder.
    pub base: Option<String>,
}

/// Registers the model in a folder or GGUF file, or the adapter in a folder of PEFT's.
///
/// # Errors
/// When it cannot be read, or read back gives other logits; nothing is registered then.
pub fn import(home: &Path, path: &Path, about: About) -> Result<ModelId> {
    let About { name, licence, base } = about;
    let path = std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))?;
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = name.or(stem.map(|stem| stem.to_string_lossy().into_owned())).unwrap_or_default();
    let origin = Origin { from: path.display().to_string(), licence, blake3: None };
    match adapter::named_base(&path)? {
        Some(named) => adapters::take_in(home, &path, &name, origin, &named, base.as_deref()),
        None => {
            ensure!(base.is_none(), "{} holds no adapter, so there is no base for it to have", path.display());
            take_in(home, &path, &name, origin)
        }
    }
}

/// Fetches a model of the catalogue and registers it, as `name` or under its own. What is here already is not made again.
///
/// # Errors
/// When the catalogue has no such model, none of its places can be reached, or as [`import`].
pub fn pull(home: &Path, entry: &str, name: Option<String>, progress: &mut dyn Progress) -> Result<ModelId> {
    let known = models()?;
    let Some(entry) = known.iter().find(|known| known.name == entry) else {
        let names: Vec<&str> = known.iter().map(|entry| entry.name.as_str()).collect();
        bail!("the catalogue has no model {entry:?}; it has {}", names.join(", "));
    };
    let name = name.unwrap_or_else(|| entry.name.clone());
    let fetched = catalogue::fetch_in(&home.join("cache"), entry, progress)?;
    let Source::Files { files, .. } = fetched.source else { bail!("the catalogue's {} is not made of files", entry.name) };
    let path = model_in(&files).with_context(|| format!("{} holds no model that can be read", fetched.from))?;
    let blake3 = if path.is_file() { Some(danlu_files::hash_file(&path)?) } else { None };
    let origin = Origin { from: fetched.from, licence: Some(entry.licence.clone()), blake3 };
    let records = Registry::open(home)?.list()?;
    // One that was taken in before blocks were kept is taken in again.
    let blocks = is_gguf(&path) && Gguf::open(&path)?.has_blocks();
    let same = |record: &&Record| {
        let whole = !blocks || record.files.contains_key(folder::GGUF);
        record.name == name && record.lineage.origin.as_ref() == Some(&origin) && whole
    };
    if let Some(here) = records.iter().rev().find(same) {
        return Ok(here.id());
    }
    progress.start(&format!("read, check and register {name}"), None, "bytes");
    take_in(home, &path, &name, origin)
}

/// The models of the catalogue.
///
/// # Errors
/// When the catalogue itself is damaged.
pub fn models() -> Result<Vec<catalogue::Entry>> {
    let mut entries = catalogue::entries()?;
    entries.retain(|entry| entry.kind == catalogue::Kind::Model);
    Ok(entries)
}

/// The GGUF file among some files, or the folder of the `config.json` among them.
fn model_in(files: &[PathBuf]) -> Option<PathBuf> {
    let folder = files.iter().find(|file| file.file_name().is_some_and(|name| name == "config.json"));
    let file = files.iter().find(|file| is_gguf(file));
    folder.and_then(|config| config.parent().map(Path::to_path_buf)).or(file.cloned())
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn take_in(home: &Path, path: &Path, name: &str, mut origin: Origin) -> Result<ModelId> {
    let registry = Registry::open(home)?;
    danlu_registry::check_name(name)?;
    let lineage = |origin, facts: Vec<(&str, serde_json::Value)>| Lineage {
        level: Some(Level::L0),
        origin: Some(origin),
        facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        ..Lineage::default()
    };
    if path.is_dir() {
        if folder::picture_kind(path)?.is_some() || folder::dense_task(path)?.is_some() {
            let facts = vec![("parameters", json!(pictures::check(path)?))];
            return registry.register(name, path, lineage(origin, facts), |copy| pictures::check(copy).map(|_| ()));
        }
        let config = folder::load_backbone_config(path)?;
        let parameters = match &config {
            BackboneConfig::Decoder(config) => config.parameters(),
            BackboneConfig::Bert(config) => config.parameters(),
        };
        let whole = matches!(config, BackboneConfig::Decoder(_)) && folder::load_head_config(path)?.is_none();
        let check = |copy: &Path| if whole { check(copy, None) } else { check_states(copy) };
        return registry.register(name, path, lineage(origin, vec![("parameters", json!(parameters))]), check);
    }
    ensure!(path.is_file(), "there is no {}", path.display());
    ensure!(is_gguf(path), "{} is neither a folder with config.json nor a .gguf file", path.display());
    let file = Gguf::open(path)?;
    let (decoder, config) = gguf::decoder(&file, &Device::flex())?;
    if origin.blake3.is_none() {
        origin.blake3 = Some(danlu_files::hash_file(path)?);
    }
    if origin.licence.is_none() {
        origin.licence = file.get("general.license").and_then(Value::as_str).map(str::to_string);
    }
    let stage = home.join("cache").join("imports").join(name);
    danlu_files::write_folder_atomic(&stage, |dir| {
        folder::save(&decoder, &config, dir)?;
        if file.has_blocks() {
            // Floats are for training and for transformers; the model runs from its blocks.
            std::fs::copy(path, dir.join(folder::GGUF)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
        vocabulary(&file)?.export(dir, config.context()).with_context(|| format!("in {}", path.display()))
    })?;
    let facts = vec![("parameters", json!(config.parameters())), ("weights_were", json!(file.main_type()))];
    let registered = registry.register(name, &stage, lineage(origin, facts), |copy| check(copy, Some(&decoder)));
    std::fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    registered
}

/// Loads the copy of an encoder or a classifier and runs it on a sentence: what it gives must be numbers.
fn check_states(copy: &Path) -> Result<()> {
    let (tokenizer, device) = (Tokenizer::load(copy)?, Device::flex());
    let config = folder::load_backbone_config(copy)?;
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size(),
        "its tokenizer has {} tokens and its model only {}",
        tokenizer.vocab_size(),
        config.vocab_size()
    );
    let text = Frame::new(tokenizer, config.context())?.encode(PROBE, None)?;
    let texts = Texts::new([(&text.ids[..], &text.kinds[..])]);
    let found = match folder::load_head_config(copy)? {
        Some(_) => folder::load_classifier(copy, &device)?.0.logits(&texts, None, false),
        None => folder::load_backbone(copy, &device)?.0.hidden(&texts, false),
    };
    ensure!(found.into_data().iter::<f32>().all(f32::is_finite), "its weights give states that are not numbers");
    Ok(())
}

/// Inputs in eight bits change logits by about a hundredth of the largest; other weights change them as far as they go.
const BLOCKS_TOLERANCE: f32 = 0.2;

/// Loads the copy and runs it on a sentence: its logits must be numbers, those of `expected` when there is one, and nearly the same from
/// blocks where it has any.
pub fn check(copy: &Path, expected: Option<&Decoder>) -> Result<()> {
    let (decoder, config) = folder::load(copy, &Device::flex())?;
    let tokenizer = Tokenizer::load(copy)?;
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size(),
        "its tokenizer has {} tokens and its model only {}",
        tokenizer.vocab_size(),
        config.vocab_size()
    );
    let mut tokens = vec![tokenizer.end_of_text()];
    tokens.extend(tokenizer.encode(PROBE)?);
    tokens.truncate(config.context());
    let batch = Batch::document(&tokens);
    let found = finite(decoder.logits(&batch))?;
    if copy.join(folder::GGUF).is_file() {
        let (running, _) = folder::load_to_run(copy, &Device::flex())?;
        let run = finite(running.logits(&batch))?;
        let (gap, largest) =
            run.iter().zip(&found).fold((0.0f32, 0.0f32), |(gap, most), (a, b)| (gap.max((a - b).abs()), most.max(b.abs())));
        ensure!(
            gap <= BLOCKS_TOLERANCE * largest,
            "from its blocks it gives logits that differ by {gap} from those of its floats, of which the largest is {largest}"
        );
    }
    expected.map_or(Ok(()), |expected| agree(&finite(expected.logits(&batch))?, &found))
}

/// The tokenizer in a GGUF file.
fn vocabulary(file: &Gguf) -> Result<ggml::Vocabulary> {
    let get = |key: &str| file.get(&format!("tokenizer.ggml.{key}"));
    let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_string);
    let strings = |key: &str| -> Option<Vec<String>> { Some(get(key)?.as_array()?.strings()?.map(str::to_string).collect()) };
    let missing = |key: &str| format!("{} has no `tokenizer.ggml.{key}`", file.path().display());
    // Where there is no such token, some files say -1 or the largest number.
    let id = |key: &str| {
        get(&format!("{key}_token_id")).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()).filter(|id| *id < u32::MAX)
    };
    let types = get("token_type")
        .and_then(Value::as_array)
        .map(|types| types.values().filter_map(Value::as_i64).map(|kind| kind as i32).collect());
    Ok(ggml::Vocabulary {
        model: text("model").with_context(|| missing("model"))?,
        pre: text("pre").unwrap_or_else(|| "default".into()),
        tokens: strings("tokens").with_context(|| missing("tokens"))?,
        types: types.unwrap_or_default(),
        merges: strings("merges").unwrap_or_default(),
        bos: id("bos"),
        eos: id("eos"),
        unknown: id("unknown"),
        padding: id("padding"),
        add_bos: get("add_bos_token").and_then(Value::as_bool).unwrap_or(false),
        chat_template: file.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_string),
    })
}
