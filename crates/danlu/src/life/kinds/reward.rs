use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::chat::{Encoder, Template};
use danlu_data::preference::EncodedPair;
use danlu_data::tokenizer::{PAD, Tokenizer};
use danlu_models::{DecoderConfig, RewardModel, folder};
use danlu_registry::ModelId;
use danlu_train::objectives::preference::Preferences;
use danlu_train::{Outline, Plan, Recipe, Reward, Summary, initial_model};

use super::preference::{Found, start};
use super::sft::encoder;
use super::{Curve, DataRecord, Kind};
use crate::life::export::{Export, agree};

/// The head is new and learns from nothing, so more than what preferences need.
const RATE: f64 = 2e-5;
/// Held-out pairs that are scored again after reading back.
const PROBES: usize = 4;

/// A reward model from pairs.
pub struct Judge {
    found: Found,
    encoder: Encoder,
    config: DecoderConfig,
    plan: Plan,
}

impl Judge {
    /// # Errors
    /// When the recipe names no model, the data is no pairs, or the template does not suit the tokenizer.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let (start, config) = start(recipe, "a reward model", RATE)?;
        let encoder = encoder(&start.folder)?;
        let found = Found::new(home, &start.recipe, &encoder, false, progress)?;
        ensure!(!found.held_out.is_empty(), "no pair is held out to measure with; raise `data.held_out` or give more");
        let plan = found.plan(&start.recipe, outline(&config), &config)?;
        Ok(Self { found, encoder, config, plan })
    }

    fn held_out(&self) -> Result<&[EncodedPair]> {
        match &self.found.held_out {
            Preferences::Pairs(pairs) => Ok(pairs),
            Preferences::Judged(_) => bail!("a reward model learns from pairs"),
        }
    }

    /// A token that fills up short texts: one that ends none.
    fn pad(&self) -> Result<u32> {
        let (tokenizer, end) = (self.encoder.tokenizer(), self.encoder.turn_end());
        let known = tokenizer.token_to_id(PAD).into_iter().chain([tokenizer.end_of_text()]);
        let any = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_special(id));
        known
            .chain(any)
            .find(|&id| id != end)
            .context("the tokenizer has no special token but the one that ends turns, and padding needs another")
    }
}

/// A score in the place of the vocabulary's.
fn outline(config: &DecoderConfig) -> Outline {
    let hidden = config.hidden_size() as u64;
    let head = if config.tied() { 0 } else { config.vocab_size() as u64 * hidden };
    let mut outline = Outline::from(config);
    outline.vocabulary = 1;
    outline.parameters = outline.parameters - head + hidden;
    outline.embeddings -= head;
    outline.trained = outline.parameters;
    outline
}

impl Kind for Judge {
    type Objective = Reward;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<Reward> {
        let Preferences::Pairs(train) = &self.found.train else { bail!("a reward model learns from pairs") };
        Reward::new(&self.plan, train.clone(), self.held_out()?.to_vec(), self.encoder.tokenizer().clone())
    }

    fn fresh(&self, device: &Device) -> Result<RewardModel> {
        let decoder = initial_model(&self.plan.recipe, &self.config, device)?;
        Ok(RewardModel::new(decoder, &self.config, self.plan.recipe.seed)?.0)
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

    /// A reward model writes nothing; what it measured is what there is to see.
    fn usage(&self, id: &ModelId) -> String {
        format!("danlu models show {id}")
    }

    fn keep(&self, export: &Export, model: &RewardModel, summary: &Summary) -> Result<ModelId> {
        let (tokenizer, template, pad) = (self.encoder.tokenizer(), self.encoder.template(), self.pad()?);
        let probes: Vec<&[u32]> = self.held_out()?.iter().take(PROBES).map(|pair| &pair.chosen.ids[..]).collect();
        // Programs read a reward model as whole weights.
        let model = &model.merged()?.to_device(&Device::flex());
        let expected = model.score(&probes)?;
        let write = |dir: &Path| {
            folder::save_reward(model, &self.config, pad, dir)?;
            tokenizer.export(dir, self.config.context())?;
            template.save(dir)
        };
        let check = |copy: &Path| {
            let (read, _) = folder::load_reward(copy, &Device::flex()).context("it does not load")?;
            agree(&expected, &read.score(&probes)?)
        };
        export.folder(self, summary, write, check)
    }
}
