//! From a recipe to everything the trainer needs: corpora, tokenizer, tokens, plan.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use danlu_data::Progress;
use danlu_data::corpus::{Corpus, Split};
use danlu_data::shards::{self, TokenSet, TokenSplit};
use danlu_data::tokenizer::{Kind, Tokenizer, TrainSpec, train};
use danlu_registry::{ModelId, ModelRef, Registry};
use danlu_train::recipe::TokenizerKind;
use danlu_train::{Facts, Plan, Recipe, auto};
use serde::{Deserialize, Serialize};

use super::corpora::{Wanted, corpus};

/// Text that a tokenizer learns from; more changes the result little and takes longer.
const TOKENIZER_SAMPLE: u64 = 48 << 20;

/// A recipe with its data in place.
pub struct Prepared {
    pub corpora: Vec<Corpus>,
    pub tokenizer: Tokenizer,
    pub sets: Vec<TokenSet>,
    pub plan: Plan,
}

/// One corpus of a run, as the run's folder and the model's lineage record it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    pub name: String,
    pub manifest_hash: String,
}

/// The corpora of a recipe's sources, in their order.
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
    data.sources.iter().map(one).collect()
}

/// The tokenizer that a recipe asks for: the one it names, or one trained on its corpora and kept for the next run that asks for the same.
///
/// # Errors
/// When the named one cannot be read, or the corpora cannot be.
pub fn tokenizer(home: &Path, recipe: &Recipe, corpora: &[Corpus], progress: &mut dyn Progress) -> Result<Tokenizer> {
    let spec = &recipe.tokenizer;
    if let Some(from) = &spec.from {
        return Tokenizer::load(Path::new(from)).context("`tokenizer.from` cannot be used");
    }
    let bytes: u64 = corpora.iter().map(|corpus| corpus.manifest.train.bytes).sum();
    let kind = match spec.kind {
        TokenizerKind::Bpe => Kind::Bpe,
        TokenizerKind::Unigram => Kind::Unigram,
        TokenizerKind::Wordpiece => Kind::WordPiece,
    };
    let vocab_size = auto::vocabulary(recipe, bytes, danlu_ops::gemm_rate());
    let spec = TrainSpec { kind, vocab_size, sample_bytes: TOKENIZER_SAMPLE, ..TrainSpec::default() };
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

/// The tokens of each corpus, made where they are not there yet.
///
/// # Errors
/// When a corpus cannot be read or its tokens not be written.
pub fn tokens(corpora: &[Corpus], tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<Vec<TokenSet>> {
    corpora.iter().map(|corpus| shards::build(corpus, tokenizer, progress)).collect()
}

/// What the recipe leaves open, chosen for this data and this machine.
///
/// # Errors
/// When the recipe does not fit the data.
pub fn plan(recipe: &Recipe, tokenizer: &Tokenizer, sets: &[TokenSet]) -> Result<Plan> {
    let train_tokens = sets.iter().map(|set| set.train.len()).sum();
    auto::resolve(recipe, &Facts { vocabulary: tokenizer.vocab_size(), train_tokens, gemm_rate: danlu_ops::gemm_rate() })
}

/// A recipe in which a model's name stands where a folder does (`from = "base@1"`), with the folder in its place. What starts from a model
/// reads with its tokenizer.
///
/// # Errors
/// When there is no such folder and no such model.
pub fn with_folders(home: &Path, recipe: &Recipe) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    for (key, from) in [("model.from", &mut recipe.model.from), ("tokenizer.from", &mut recipe.tokenizer.from)] {
        let Some(name) = from.as_ref().filter(|from| !Path::new(from).exists()) else { continue };
        let wanted: ModelRef =
            name.parse().with_context(|| format!("`{key}` is {name:?}, which is no folder and no model's name"))?;
        let registry = Registry::open(home)?;
        let id = registry.resolve(&wanted).with_context(|| format!("`{key}` cannot be used"))?;
        *from = Some(registry.folder(&id).display().to_string());
    }
    if recipe.tokenizer.from.is_none() {
        recipe.tokenizer.from.clone_from(&recipe.model.from);
    }
    Ok(recipe)
}

/// All of it.
///
/// # Errors
/// As the steps'.
pub fn prepare(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Prepared> {
    let recipe = with_folders(home, recipe)?;
    let corpora = corpora(home, &recipe, progress)?;
    let tokenizer = tokenizer(home, &recipe, &corpora, progress)?;
    let sets = tokens(&corpora, &tokenizer, progress)?;
    let plan = plan(&recipe, &tokenizer, &sets)?;
    Ok(Prepared { corpora, tokenizer, sets, plan })
}

impl Prepared {
    /// The training and held-out splits of each corpus with its share of the rows: its tokens, times its weight.
    ///
    /// # Errors
    /// When there is nothing to measure on.
    pub fn sources(&self) -> Result<Vec<(TokenSplit, TokenSplit, f64)>> {
        if self.sets.iter().all(|set| set.held_out.is_empty()) {
            bail!("no document is held out to measure with; raise `data.held_out` or add more documents");
        }
        let weights = &self.plan.recipe.data.weights;
        let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
        let one = |(i, set): (usize, &TokenSet)| (set.train.clone(), set.held_out.clone(), weight(i) * set.train.len() as f64);
        Ok(self.sets.iter().enumerate().map(one).collect())
    }

    /// What the run is trained on, for its lineage.
    pub fn data(&self) -> Vec<DataRecord> {
        let one =
            |corpus: &Corpus| DataRecord { name: corpus.manifest.name.clone(), manifest_hash: corpus.manifest.hash.clone() };
        self.corpora.iter().map(one).collect()
    }

    /// The registered model that the run starts from, if it does.
    pub fn parent(&self, home: &Path) -> Option<ModelId> {
        let folder = Path::new(self.plan.recipe.model.from.as_deref()?);
        let registered = folder.parent() == Some(&home.join("models"));
        folder.file_name()?.to_str()?.parse().ok().filter(|_| registered)
    }

    /// Changes with any corpus, any weight and the tokenizer.
    pub fn identity(&self) -> String {
        let mut text = self.tokenizer.hash().to_string();
        for (i, corpus) in self.corpora.iter().enumerate() {
            let weight = self.plan.recipe.data.weights.get(i).copied().unwrap_or(1.0);
            text.push_str(&format!(" {} {weight}", corpus.manifest.hash));
        }
        danlu_files::hash_bytes(text.as_bytes())
    }

    /// Tokens for each byte of training text.
    pub fn tokens_per_byte(&self) -> f64 {
        let (tokens, bytes) = self.sets.iter().fold((0, 0), |(t, b), set| (t + set.train.len(), b + set.train.bytes()));
        tokens as f64 / bytes.max(1) as f64
    }
}
