//! From what a recipe for labels says to the model that is trained, and how.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use danlu_data::labelled::Example;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{BackboneConfig, Classifier, HeadConfig, Task, adapter, folder};
use danlu_train::objectives::classify::{ClassifyRow, is_new};
use danlu_train::recipe::{AdapterKind, ObjectiveKind, OptimizerKind, Part, Pooling, Way};
use danlu_train::{Examples, Facts, Outline, Plan, Recipe, auto, tune};

/// Tokens that may go through the model at once.
const LARGEST_PIECE: usize = 8192;
/// Texts of an update, where the recipe does not say.
const BATCH: usize = 32;

/// What a way means, written into the sections it is made of, where the recipe does not say otherwise.
pub fn by_way(recipe: &mut Recipe) -> Result<()> {
    let way = recipe.classify.way;
    if way.needs_model() {
        ensure!(
            recipe.model.from.is_some(),
            "`classify.way` is {:?}, which starts from a model: give `model.from`, a registered model or a folder; \"scratch\" and \"linear\" need none",
            way.name()
        );
    }
    let frozen = recipe.adapter.kind != AdapterKind::None || recipe.tune.part != Part::All;
    match way {
        Way::FineTune | Way::Features => {}
        Way::Transfer if recipe.tune.part == Part::All => recipe.tune.part = Part::Head,
        Way::Transfer => {}
        Way::Lora if recipe.adapter.kind == AdapterKind::None => recipe.adapter.kind = AdapterKind::Lora,
        Way::Lora => {}
        Way::Scratch | Way::Linear => {
            ensure!(
                !frozen,
                "`classify.way` is {:?}, in which nothing is frozen; leave `[adapter]` and `tune.part` out",
                way.name()
            );
        }
    }
    ensure!(
        way == Way::Lora || recipe.adapter.kind == AdapterKind::None,
        "`[adapter]` goes with `classify.way = \"lora\"`; it is {:?}",
        way.name()
    );
    Ok(())
}

pub fn task(recipe: &Recipe) -> Task {
    match recipe.objective.kind {
        ObjectiveKind::Regression => Task::Number,
        ObjectiveKind::TokenClassify => Task::Tags,
        _ => Task::Classes,
    }
}

pub fn pooling(recipe: &Recipe, config: Option<&BackboneConfig>) -> danlu_models::Pooling {
    match (recipe.classify.pooling, config) {
        (Some(Pooling::First), _) => danlu_models::Pooling::First,
        (Some(Pooling::Last), _) => danlu_models::Pooling::Last,
        (Some(Pooling::Mean), _) => danlu_models::Pooling::Mean,
        (None, Some(BackboneConfig::Bert(_))) => danlu_models::Pooling::First,
        (None, _) => danlu_models::Pooling::Last,
    }
}

/// The configuration of the backbone. From scratch, a model that is named gives its shape, which is then the recipe's own.
pub fn backbone(recipe: &mut Recipe, tokenizer: &Tokenizer, train: &[&Example]) -> Result<BackboneConfig> {
    let config = match recipe.model.from.as_deref() {
        Some(from) => folder::load_backbone_config(Path::new(from)).with_context(|| format!("`model.from` is {from:?}"))?,
        None => {
            let bytes: usize = train.iter().map(|example| example.text.len()).sum();
            let facts = Facts {
                vocabulary: tokenizer.vocab_size(),
                // As many bytes to a token as English text has; near enough to choose a shape by.
                train_tokens: (bytes as u64 / 4).max(2),
                gemm_rate: danlu_ops::gemm_rate(),
            };
            auto::backbone(recipe, &facts)?
        }
    };
    ensure!(
        tokenizer.vocab_size() <= config.vocab_size(),
        "the tokenizer has {} entries and the model room for {}; use the model's own tokenizer",
        tokenizer.vocab_size(),
        config.vocab_size()
    );
    auto::write_backbone(&mut recipe.model, &config);
    if recipe.classify.way == Way::Scratch {
        recipe.model.from = None;
    }
    Ok(config)
}

/// What predicting the texts themselves needs, where it is asked for.
pub fn check_auxiliary(recipe: &Recipe, config: Option<&BackboneConfig>) -> Result<()> {
    if recipe.classify.auxiliary == 0.0 {
        return Ok(());
    }
    let needs = "`classify.auxiliary` goes on to predict the texts themselves, which";
    ensure!(recipe.objective.kind != ObjectiveKind::TokenClassify, "{needs} stands beside labels of whole texts, not of words");
    ensure!(
        !recipe.freezes_below_head(),
        "{needs} teaches a head of labels nothing while everything below it stays as it is; leave it out"
    );
    let Some(BackboneConfig::Decoder(config)) = config else { bail!("{needs} only decoders do; leave it out") };
    // A head of labels takes the place of an output projection.
    ensure!(
        recipe.model.from.is_none() || config.tied(),
        "{needs} needs a model whose embedding is its output projection; {} has one of its own",
        recipe.model.from.as_deref().unwrap_or_default()
    );
    Ok(())
}

/// Operations for a token to predict the one after it.
fn projection_flops(recipe: &Recipe, config: Option<&BackboneConfig>) -> f64 {
    let size = config.map_or(0, |config| config.vocab_size() * config.hidden_size());
    if recipe.classify.auxiliary > 0.0 { 6.0 * size as f64 } else { 0.0 }
}

pub fn planned(recipe: &Recipe, config: Option<&BackboneConfig>, head: &HeadConfig, rows: &[ClassifyRow]) -> Result<Plan> {
    let mut recipe = recipe.clone();
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let hidden = config.map_or(1, BackboneConfig::hidden_size) as f64;
    // From nothing, as in pretraining.
    let usual = match recipe.classify.way {
        Way::Scratch => 1e-3 * (256.0 / hidden).sqrt(),
        Way::Linear => recipe.features.rate.max(1e-9),
        _ => recipe.adapter.rate(auto::keeping_rate(hidden as usize)),
    };
    let rate = *recipe.optimizer.rate.get_or_insert(usual);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
    recipe.classify.head_rate.get_or_insert((10.0 * rate).max(1e-3));
    recipe.eval.tasks = vec![];
    let tokens: u64 = rows.iter().map(ClassifyRow::cost).sum();
    // Labels are few, and an interval on part of them is wider than it need be.
    recipe.eval.final_tokens = recipe.eval.final_tokens.max(tokens);
    let usual_tokens = (tokens / rows.len() as u64).max(1) as usize;

    // One piece where it is not large, so that an update has as many texts whatever their length.
    let whole = recipe.batch.examples.unwrap_or(BATCH) * usual_tokens;
    if whole <= LARGEST_PIECE {
        recipe.batch.micro_tokens.get_or_insert(whole.max(8));
    }
    let outline = outline(&recipe, config, head)?;
    let share = match recipe.classify.way {
        // Frozen layers read each text once, forward alone.
        Way::Transfer if recipe.freezes_below_head() => 1.0 / 3.0 / recipe.budget.epochs.unwrap_or(1.0).max(1.0),
        Way::Lora => 2.0 / 3.0,
        _ => 1.0,
    };
    let reading = config.map_or(0.0, |config| config.flops_per_token(usual_tokens) * share) + projection_flops(&recipe, config);
    // A table of features costs what moving its weights does, whatever is in a batch.
    let table = 20.0 * (head.features * head.outputs()) as f64 / (BATCH * usual_tokens) as f64;
    let examples = Examples { count: rows.len() as u64, tokens: usual_tokens, usual_batch: BATCH };
    auto::resolve_examples(&recipe, outline, &examples, reading + table, danlu_ops::gemm_rate())
}

fn outline(recipe: &Recipe, config: Option<&BackboneConfig>, head: &HeadConfig) -> Result<Outline> {
    let parameters = Classifier::shapes(config, head)?;
    let beside = match (recipe.adapter.spec(), config) {
        (Some(spec), Some(BackboneConfig::Decoder(config))) => {
            Some(adapter::parameters(config, &spec).context("in `[adapter]`")?)
        }
        (Some(_), _) => bail!("`[adapter]` goes on decoders; for bert there are \"fine-tune\" and \"transfer\""),
        (None, _) => None,
    };
    let (all, trained) = tune::counts(&parameters, &recipe.tune, beside, is_new).context("in `[tune]`")?;
    let outline = Outline::of_classifier(config, head, all, trained);
    let logits = config.filter(|_| recipe.classify.auxiliary > 0.0).map_or(outline.vocabulary, BackboneConfig::vocab_size);
    Ok(Outline { vocabulary: logits, ..outline })
}
