use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::chat::{Encoder, Template};
use danlu_data::preference::{self, EncodedJudged, EncodedPair, Fitted, fit};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Decoder, DecoderConfig, folder};
use danlu_registry::ModelId;
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::preference::Preferences;
use danlu_train::recipe::{OptimizerKind, PreferenceLoss};
use danlu_train::{Examples, Outline, Plan, Preference, Recipe, Summary, initial_model};

use super::sft::{SPLIT, answering, conversations, encoder};
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, Made};

/// A rate at which answers are preferred anew and language is kept.
const RATE: f64 = 1e-5;
/// Answers longer than this with their prompts are left out, when the recipe does not say: few are, and they cost the most.
const CONTEXT: usize = 1024;
/// Preferences of an update, when the recipe does not say.
const USUAL_BATCH: usize = 8;

/// Learning from preferences: dpo and its relatives.
pub struct Prefer {
    found: Found,
    encoder: Encoder,
    config: DecoderConfig,
    plan: Plan,
}

impl Prefer {
    /// # Errors
    /// When the recipe names no model, the data is of another kind than the loss learns from, or the template does not suit the tokenizer.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let loss = recipe.preference.loss;
        let (start, config) = start(recipe, "learning from preferences", RATE)?;
        let encoder = encoder(&start.folder)?;
        let found = Found::new(home, &start.recipe, &encoder, loss == PreferenceLoss::Kto, progress)?;
        let mut plan = found.plan(&start.recipe, Outline::from(&config), &config)?;
        found.train.check(&found.held_out, loss, plan.rows)?;
        if loss.needs_reference() {
            plan.beside = config.parameters();
        }
        Ok(Self { found, encoder, config, plan })
    }
}

/// What learning from preferences starts with.
pub struct Start {
    pub folder: std::path::PathBuf,
    /// With the optimizer and the context of such a run, where the recipe does not say otherwise.
    pub recipe: Recipe,
}

/// The model that a recipe starts from. `what` names the kind of recipe in the error.
///
/// # Errors
/// When the recipe names no model, or it cannot be read.
pub fn start(recipe: &Recipe, what: &str, rate: f64) -> Result<(Start, DecoderConfig)> {
    let from = recipe.model.from.as_deref().with_context(|| {
        format!(
            "{what} starts from a model: give `model.from` (a registered model or a folder); `danlu models pull smollm2` brings one"
        )
    })?;
    let config = folder::load_config(Path::new(from)).with_context(|| format!("`model.from` is {from:?}"))?;
    let mut recipe = recipe.clone();
    let optimizer = &mut recipe.optimizer;
    optimizer.kind = OptimizerKind::Adamw;
    let rate = *optimizer.rate.get_or_insert(recipe.adapter.rate(rate));
    optimizer.embedding_rate.get_or_insert(rate);
    let context = recipe.model.context.get_or_insert(CONTEXT);
    *context = (*context).min(config.context());
    let folder = from.into();
    Ok((Start { folder, recipe }, config))
}

/// The preferences of a recipe's sources, encoded for its model, and those held out.
pub struct Found {
    pub data: Vec<DataRecord>,
    pub train: Preferences,
    pub held_out: Preferences,
}

impl Found {
    /// Single judged answers when `judged`, else pairs. Prints what was found and what was left out.
    ///
    /// # Errors
    /// When a source cannot be read or holds something else, or nothing fits.
    pub fn new(home: &Path, recipe: &Recipe, encoder: &Encoder, judged: bool, progress: &mut dyn Progress) -> Result<Self> {
        let (mut data, mut all) = (vec![], vec![]);
        for source in &recipe.data.sources {
            let found = preference::read(&[conversations(home, source, progress)?]).with_context(|| format!("in {source}"))?;
            progress.note(&format!("{source}: {}", found.summary()));
            let single = found.records.iter().filter(|one| matches!(one, preference::Preference::Judged(_))).count();
            ensure!(
                judged || single == 0,
                "{single} of the {} records of {source} are single answers judged good or bad, and pairs of a better and a worse answer are \
                 needed here: learn from them with `preference.loss` \"kto\", or leave the source out",
                found.records.len()
            );
            let text = serde_json::to_vec(&found.records)?;
            data.push(DataRecord { name: source.clone(), manifest_hash: danlu_files::hash_bytes(&text) });
            all.extend(found.records);
        }
        let most = recipe.model.context.unwrap_or(CONTEXT);
        // Not by the run's seed: what one model of a line is measured on, no other of it may have learned from.
        let (share, seed) = (recipe.data.held_out, SPLIT);
        let (train, held_out) = if judged {
            let judged = preference::judged(&all);
            let out = preference::held_out(judged.iter().map(|one| &one.prompt), share, seed);
            let fitted = fit(&judged, most, |one| EncodedJudged::new(encoder, one))?;
            let (train, held_out) = divide(fitted, &out, most, progress);
            (Preferences::Judged(train), Preferences::Judged(held_out))
        } else {
            let pairs = preference::pairs(&all);
            let out = preference::held_out(pairs.iter().map(|pair| &pair.prompt), share, seed);
            let (train, held_out) = divide(fit(&pairs, most, |pair| EncodedPair::new(encoder, pair))?, &out, most, progress);
            (Preferences::Pairs(train), Preferences::Pairs(held_out))
        };
        Ok(Self { data, train, held_out })
    }

    /// The plan of a run on these.
    ///
    /// # Errors
    /// When there is nothing to train on.
    pub fn plan(&self, recipe: &Recipe, outline: Outline, config: &DecoderConfig) -> Result<Plan> {
        let count = self.train.len() as u64;
        let tokens = self.train.all_tokens().div_ceil(count.max(1)) as usize;
        let examples = Examples { count, tokens, usual_batch: USUAL_BATCH };
        resolve_examples(recipe, outline, &examples, config.flops_per_token(tokens), danlu_ops::gemm_rate())
    }
}

/// What fits, to train on and to measure with.
fn divide<T>(fitted: Fitted<T>, out: &[bool], most: usize, progress: &mut dyn Progress) -> (Vec<T>, Vec<T>) {
    let Fitted { kept, places, too_long, alike } = fitted;
    let (mut train, mut held_out) = (vec![], vec![]);
    kept.into_iter().zip(places).for_each(|(one, place)| if out[place] { held_out.push(one) } else { train.push(one) });
    progress.note(&format!(
        "{} to learn from, {} held out; left out: {too_long} longer than {most} tokens, {alike} with two answers of the same tokens",
        train.len(),
        held_out.len()
    ));
    (train, held_out)
}

impl Kind for Prefer {
    type Objective = Preference;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Preference> {
        let start = match self.plan.recipe.preference.loss.needs_reference() {
            true => Some(initial_model(&self.plan.recipe, &self.config, &danlu_ops::device())?),
            false => None,
        };
        let (train, held_out) = (self.found.train.clone(), self.found.held_out.clone());
        Preference::new(
            &self.plan,
            train,
            held_out,
            start,
            self.encoder.tokenizer().clone(),
            answering(&self.config, &self.encoder),
        )
    }

    fn fresh(&self, device: &Device) -> Result<Decoder> {
        initial_model(&self.plan.recipe, &self.config, device)
    }

    fn data(&self) -> Vec<DataRecord> {
        self.found.data.clone()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(self.encoder.tokenizer())
    }

    fn template(&self) -> Option<&Template> {
        Some(self.encoder.template())
    }

    fn curve(&self) -> Curve {
        Curve { key: "accuracy", scale: Some(1.0) }
    }

    fn usage(&self, id: &ModelId) -> String {
        format!("danlu chat {id}")
    }

    fn keep(&self, export: &Export, model: &Decoder, summary: &Summary) -> Result<ModelId> {
        let config = answering(&self.config, &self.encoder);
        let probe = self.found.held_out.first().context("there is no held-out preference to compare logits on")?;
        let (tokenizer, template) = (self.encoder.tokenizer(), self.template());
        export.decoder(self, summary, &Made { decoder: model, config: &config, tokenizer, template, probe })
    }
}
