//! What a run on text needs: corpora, tokenizer, tokens; and the models that recipes name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use danlu_data::Progress;
use danlu_data::corpus::{Corpus, Split};
use danlu_data::shards::{self, TokenSet};
use danlu_data::tokenizer::{Kind, Tokenizer, TrainSpec, train};
use danlu_registry::{ModelId, ModelRef, Registry};
use danlu_train::{Recipe, auto};

use super::corpora::{Wanted, corpus};
use super::run::TOKENIZER;

/// Text that a tokenizer learns from; more changes the result little and takes longer.
const TOKENIZER_SAMPLE: u64 = 48 << 20;

/// The corpora of a recipe's sources, in their order, then those that are read again.
///
/// # Errors
/// When a source cannot be found, fetched or read.
pub fn corpora(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Vec<Corpus>> {
    let data = &recipe.data;
    ensure!(!data.sources.is_empty(), "`data.sources` is empty; name at least one corpus, file, folder or catalogue entry");
    ensure!(
        data.weights.is_empty() || data.weights.len() == data.sources.len(),
        "`data.weights` has {} numbers for {} sources",
        data.weights.len(),
        data.sources.len()
    );
    let one = |source: &String| corpus(home, &Wanted { source, held_out: data.held_out, seed: recipe.seed }, progress);
    data.sources.iter().chain(&data.replay).map(one).collect()
}

/// The tokenizer that a recipe asks for: the one it names, or one trained on its corpora and kept for the next run that asks for the same.
///
/// # Errors
/// When the named one cannot be read, or the corpora cannot be.
pub fn tokenizer(home: &Path, recipe: &Recipe, corpora: &[Corpus], progress: &mut dyn Progress) -> Result<Tokenizer> {
    if let Some(from) = &recipe.tokenizer.from {
        return Tokenizer::load(Path::new(from)).context("`tokenizer.from` cannot be used");
    }
    let bytes: u64 = corpora.iter().map(|corpus| corpus.manifest.train.bytes).sum();
    let spec = train_spec(recipe, bytes);
    let hashes: Vec<&str> = corpora.iter().map(|corpus| corpus.manifest.hash.as_str()).collect();
    let key = danlu_files::hash_bytes(format!("{} {}", serde_json::to_string(&spec)?, hashes.join(" ")).as_bytes());
    let path = home.join("tokenizers").join(format!("{}.json", &key[..16]));
    if let Ok(tokenizer) = Tokenizer::load(&path) {
        return Ok(tokenizer);
    }
    progress.start("learn the vocabulary", Some(bytes.min(TOKENIZER_SAMPLE)), "bytes");
    let mut read = 0u64;
    // Corpora take turns by size: each gives its share of the sample.
    let share = (TOKENIZER_SAMPLE as f64 / bytes.max(1) as f64).min(1.0);
    let texts = corpora.iter().flat_map(|corpus| {
        let limit = (corpus.manifest.train.bytes as f64 * share) as u64;
        corpus.documents(Split::Train).scan(0u64, move |taken, document| {
            if *taken > limit {
                return None;
            }
            Some(document.map(|document| {
                *taken += document.text.len() as u64;
                document.text
            }))
        })
    });
    let texts = texts.inspect(|text| {
        read += text.as_ref().map_or(0, |text| text.len() as u64);
        progress.at(read);
    });
    let tokenizer = train(&spec, texts)?;
    tokenizer.save(&path)?;
    Ok(tokenizer)
}

/// The tokenizer of texts that are at hand: the run's when it was begun, the one that the recipe names, or one learned from the `texts` to train
/// on, which have so many `bytes`.
///
/// # Errors
/// When there is one already that cannot be read, or the texts are too few to learn one.
pub fn learned<'a>(
    recipe: &Recipe,
    bytes: usize,
    texts: impl Iterator<Item = &'a String>,
    run: Option<&Path>,
) -> Result<Tokenizer> {
    let begun = run.map(|folder| folder.join(TOKENIZER)).filter(|path| path.exists());
    if let Some(from) = begun.or(recipe.tokenizer.from.as_ref().map(Into::into)) {
        return Tokenizer::load(&from).with_context(|| format!("{} has no tokenizer that can be used", from.display()));
    }
    train(&train_spec(recipe, bytes as u64), texts.map(|text| Ok(text.clone())))
}

/// How a recipe's tokenizer is learned from so many bytes of text.
fn train_spec(recipe: &Recipe, bytes: u64) -> TrainSpec {
    let kind = recipe.tokenizer.kind.into();
    let min_frequency = match kind {
        Kind::Words => recipe.tokenizer.least.unwrap_or(auto::LEAST),
        _ => TrainSpec::default().min_frequency,
    };
    let vocab_size = auto::vocabulary(recipe, bytes, danlu_ops::gemm_rate());
    TrainSpec { kind, vocab_size, min_frequency, sample_bytes: TOKENIZER_SAMPLE }
}

/// The tokens of each corpus, made where they are not there yet.
///
/// # Errors
/// When a corpus cannot be read or its tokens not be written.
pub fn tokens(corpora: &[Corpus], tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<Vec<TokenSet>> {
    corpora.iter().map(|corpus| shards::build(corpus, tokenizer, progress)).collect()
}

/// A recipe in which a model's name stands where a folder does (`from = "base@1"`), with the folder in its place. What starts from a model
/// reads with its tokenizer.
///
/// # Errors
/// When there is no such folder and no such model.
pub fn with_folders(home: &Path, recipe: &Recipe) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    let named = [
        ("model.from", &mut recipe.model.from),
        ("tokenizer.from", &mut recipe.tokenizer.from),
        ("distill.teacher", &mut recipe.distill.teacher),
    ];
    for (key, from) in named {
        let Some(name) = from else { continue };
        *from = Some(model_folder(home, name).with_context(|| format!("`{key}` cannot be used"))?.display().to_string());
    }
    if let Some(model) = &mut recipe.rewards.model {
        let folder = model_folder(home, &model.from).context("`rewards.model.from` cannot be used")?;
        model.from = folder.display().to_string();
    }
    if recipe.tokenizer.from.is_none() {
        recipe.tokenizer.from.clone_from(&recipe.model.from);
    }
    Ok(recipe)
}

/// A folder, or that of a registered model.
///
/// # Errors
/// When there is neither.
pub fn model_folder(home: &Path, name: &str) -> Result<PathBuf> {
    if Path::new(name).exists() {
        return Ok(std::path::absolute(name)?);
    }
    let wanted: ModelRef = name.parse().with_context(|| format!("{name:?} is no folder and no model's name"))?;
    let registry = Registry::open(home)?;
    Ok(std::path::absolute(registry.folder(&registry.resolve(&wanted)?))?)
}

/// The registered model that the run starts from, if it does.
pub fn parent(home: &Path, recipe: &Recipe) -> Option<ModelId> {
    // A student that begins with some of its teacher's layers is its child.
    let from = recipe.model.from.as_ref().or(recipe.distill.layers.and(recipe.distill.teacher.as_ref()))?;
    registered(home, Path::new(from))
}

/// The registered model whose folder this is.
pub fn registered(home: &Path, folder: &Path) -> Option<ModelId> {
    let inside = folder.parent() == std::path::absolute(home.join("models")).ok().as_deref();
    folder.file_name()?.to_str()?.parse().ok().filter(|_| inside)
}
