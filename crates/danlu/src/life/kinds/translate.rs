use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::parallel::{self, Pair, described, divide};
use danlu_data::tokenizer::{PAD, Tokenizer};
use danlu_models::{Marian, MarianConfig, Pairs, folder};
use danlu_registry::ModelId;
use danlu_train::recipe::{ModelKind, OptimizerKind, TokenizerKind};
use danlu_train::{Examples, Outline, Plan, Recipe, Summary, Translate, TranslateRow, auto};

use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, agree, finite};
use crate::life::prepare;

/// Texts are at most so long on either side, where the recipe does not say otherwise: most paragraphs are short.
const LONGEST: usize = 128;
/// Layers of either side and channels, where the recipe does not say: what learns from some ten thousand pairs in minutes.
const LAYERS: usize = 3;
const HIDDEN: usize = 128;
/// Pairs of an update, where the recipe does not say, and the tokens that may go through the model at once.
const BATCH: usize = 64;
const LARGEST_PIECE: usize = 8192;
/// Held-out pairs on which the exported model is compared.
const PROBE: usize = 4;

/// Translation from paragraphs in two languages.
pub struct Interpreter {
    data: Vec<DataRecord>,
    train: Vec<TranslateRow>,
    held_out: Vec<(Pair, TranslateRow)>,
    tokenizer: Tokenizer,
    config: MarianConfig,
    plan: Plan,
}

impl Interpreter {
    /// # Errors
    /// When paragraphs cannot be had or aligned, or the recipe does not fit them.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        ensure!(
            !recipe.freezes() && !recipe.batch.recompute,
            "`[adapter]`, `tune.part` and `batch.recompute` are not for translation; leave them out"
        );
        ensure!(recipe.gate.is_empty(), "`[gate]` measures what continues texts and answers; leave it out for translation");
        recipe.model.kind = ModelKind::Marian;
        let (from, to) = (recipe.translate.from.clone(), recipe.translate.to.clone());
        let mut places = vec![];
        for source in &recipe.data.sources {
            places.push(sft::conversations(home, source, progress)?);
        }
        let found = parallel::read(&places, &from, &to)?;
        let name = recipe.data.sources.join(" + ");
        progress.note(&format!(
            "{name}: {} paragraphs in both {from} and {to}; left out {}{}",
            found.pairs.len(),
            described(&found.dropped),
            if found.bad.is_empty() { String::new() } else { format!("; {} could not be read", found.bad.len()) }
        ));
        let divided = divide(found.pairs, recipe.data.held_out, sft::SPLIT);
        let mut hash = String::new();
        for pair in divided.train.iter().chain(&divided.held_out) {
            hash.push_str(&danlu_files::hash_bytes(format!("{pair:?}").as_bytes()));
        }
        let data = vec![DataRecord { name, manifest_hash: danlu_files::hash_bytes(hash.as_bytes()) }];

        let tokenizer = tokenizer(&recipe, &divided.train, run)?;
        let config = shape(&mut recipe, &tokenizer)?;
        let room = config.max_position_embeddings - 1;
        let row = |pair: Pair| -> Result<Option<(Pair, TranslateRow)>> {
            let row = TranslateRow { source: tokenizer.encode(&pair.source)?, target: tokenizer.encode(&pair.target)? };
            let fits = (1..=room).contains(&row.source.len()) && (1..=room).contains(&row.target.len());
            Ok(fits.then_some((pair, row)))
        };
        let pairs = divided.train.len() + divided.held_out.len();
        let train: Vec<TranslateRow> =
            divided.train.into_iter().filter_map(|pair| row(pair).transpose()).map(|row| Ok(row?.1)).collect::<Result<_>>()?;
        let held_out: Vec<(Pair, TranslateRow)> =
            divided.held_out.into_iter().filter_map(|pair| row(pair).transpose()).collect::<Result<_>>()?;
        progress.note(&format!(
            "{} pairs to train on, {} held out by whole pages; left out {}, {} longer than {room} tokens",
            train.len(),
            held_out.len(),
            described(&divided.dropped),
            pairs - train.len() - held_out.len()
        ));
        ensure!(!train.is_empty(), "no pair is left to train on; lower `data.held_out` or give more");
        ensure!(!held_out.is_empty(), "no pair is held out to measure with; raise `data.held_out` or give more");
        let plan = planned(&recipe, &config, &train, &held_out)?;
        Ok(Self { data, train, held_out, tokenizer, config, plan })
    }

    /// The logits of a few held-out pairs.
    fn probe(&self, model: &Marian) -> Result<Vec<f32>> {
        let rows = self.held_out.iter().take(PROBE).map(|(_, row)| (&row.source[..], &row.target[..]));
        finite(model.logits(&Pairs::new(rows, self.config.eos_token_id)))
    }
}

/// One tokenizer for both languages.
fn tokenizer(recipe: &Recipe, train: &[Pair], run: Option<&Path>) -> Result<Tokenizer> {
    ensure!(
        recipe.tokenizer.kind != TokenizerKind::Words,
        "`tokenizer.kind` is \"words\"; a translation is put together again from its tokens, which words without their case and signs cannot be"
    );
    let bytes = train.iter().map(|pair| pair.source.len() + pair.target.len()).sum();
    prepare::learned(recipe, bytes, train.iter().flat_map(|pair| [&pair.source, &pair.target]), run)
}

/// The shape that the recipe gives or inherits, which is written back into it.
fn shape(recipe: &mut Recipe, tokenizer: &Tokenizer) -> Result<MarianConfig> {
    let spec = &mut recipe.model;
    ensure!(spec.size.is_none(), "`model.size`: give a translating model its shape by `model.hidden` and `model.layers`");
    ensure!(spec.tied != Some(false), "`model.tied` is false; one embedding serves both languages and the output here");
    let config = match &spec.from {
        Some(from) => {
            folder::load_marian(Path::new(from), &Device::flex()).with_context(|| format!("`model.from` is {from:?}"))?.1
        }
        None => {
            let context = spec.context.unwrap_or(LONGEST);
            let usual =
                MarianConfig::new(tokenizer.vocab_size(), spec.hidden.unwrap_or(HIDDEN), spec.layers.unwrap_or(LAYERS), context);
            let end = tokenizer.end_of_text();
            let special = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_special(id) && id != end);
            let pad = tokenizer.token_to_id(PAD).into_iter().chain(special).next();
            MarianConfig {
                attention_heads: spec.heads.unwrap_or(usual.attention_heads),
                ffn_dim: spec.intermediate.unwrap_or(usual.ffn_dim),
                pad_token_id: pad
                    .context("the tokenizer has no special token but the one that ends texts, and padding needs another")?,
                eos_token_id: end,
                ..usual
            }
        }
    };
    config.validate().context("in `[model]`")?;
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size && tokenizer.end_of_text() == config.eos_token_id,
        "the tokenizer is not the one that the model was trained with"
    );
    (spec.layers, spec.hidden) = (Some(config.decoder_layers), Some(config.d_model));
    (spec.heads, spec.intermediate) = (Some(config.attention_heads), Some(config.ffn_dim));
    spec.context = Some(config.max_position_embeddings);
    recipe.tokenizer.vocabulary = Some(tokenizer.vocab_size());
    Ok(config)
}

/// What the paper does, where the recipe does not say otherwise.
fn planned(recipe: &Recipe, config: &MarianConfig, train: &[TranslateRow], held_out: &[(Pair, TranslateRow)]) -> Result<Plan> {
    let mut recipe = recipe.clone();
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let rate = *recipe.optimizer.rate.get_or_insert(2e-3 * (128.0 / config.d_model as f64).sqrt());
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    recipe.eval.tasks = vec![];
    // Held-out pairs are few, and an interval on part of them is wider than it need be.
    recipe.eval.final_tokens = recipe.eval.final_tokens.max(held_out.iter().map(|(_, row)| row.cost()).sum());
    let mean =
        |length: fn(&TranslateRow) -> usize| train.iter().map(|row| length(row) as f64 + 1.0).sum::<f64>() / train.len() as f64;
    let (source, target) = (mean(|row| row.source.len()), mean(|row| row.target.len()));
    let usual = (source + target).round() as usize;
    // One piece where it is not large, so that an update has as many pairs whatever their length.
    let whole = recipe.batch.examples.unwrap_or(BATCH) * usual;
    if whole <= LARGEST_PIECE {
        recipe.batch.micro_tokens.get_or_insert(whole.max(8));
    }
    let flops = config.flops_per_pair(source, target) / usual as f64;
    let examples = Examples { count: train.len() as u64, tokens: usual, usual_batch: BATCH };
    auto::resolve_examples(&recipe, Outline::from(config), &examples, flops, danlu_ops::gemm_rate())
}

impl Kind for Interpreter {
    type Objective = Translate;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Translate> {
        Translate::new(&self.plan, self.train.clone(), self.held_out.clone(), self.tokenizer.clone())
    }

    fn fresh(&self, device: &Device) -> Result<Marian> {
        match &self.plan.recipe.model.from {
            Some(from) => Ok(folder::load_marian(Path::new(from), device)?.0),
            None => Marian::new(&self.config, self.plan.recipe.seed, device),
        }
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.tokenizer)
    }

    /// The loss, which is of smoothed labels, in bits per byte, by the tokens and bytes of the held-out translations.
    fn curve(&self) -> Curve {
        let (tokens, bytes) = self
            .held_out
            .iter()
            .fold((0, 0), |(tokens, bytes), (pair, row)| (tokens + row.target.len() + 1, bytes + pair.target.len()));
        Curve { key: "loss", scale: Some(tokens as f64 / bytes.max(1) as f64 / std::f64::consts::LN_2) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu translate {id} \"some text\"")
    }

    fn keep(&self, export: &Export, model: &Marian, summary: &Summary) -> Result<ModelId> {
        let model = &model.valid().to_device(&Device::flex());
        let expected = self.probe(model)?;
        let write = |dir: &Path| {
            folder::save_marian(model, &self.config, dir)?;
            parallel::export(&self.tokenizer, dir, self.config.max_position_embeddings)
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_marian(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &self.probe(&read)?)
        };
        export.folder(self, summary, write, check)
    }
}
