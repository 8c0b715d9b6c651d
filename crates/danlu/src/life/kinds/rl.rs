use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::chat::{Encoder, Template, held_out};
use danlu_data::prompts::{self, Prompt};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::DecoderConfig;
use danlu_registry::ModelId;
use danlu_rewards::holds;
use danlu_train::objectives::rl::{Game, Judge, Learner, Question, Scorer, planned};
use danlu_train::recipe::{OptimizerKind, PromptForm};
use danlu_train::{Plan, Recipe, Summary, initial_model};

use super::{Curve, DataRecord, Kind, sft};
use crate::life::export::{Export, Made};
use crate::life::scorer;

/// The learning rate for a model as wide as this; narrower ones bear more.
const RATE: f64 = 1e-5;
const WIDTH: f64 = 576.0;

/// Questions, and a model that learns to answer them.
pub struct Asked<L> {
    data: Vec<DataRecord>,
    train: Vec<Question>,
    held_out: Vec<Question>,
    reader: Reader,
    scorer: Option<Scorer>,
    config: DecoderConfig,
    plan: Plan,
    learner: PhantomData<L>,
}

/// How questions become tokens.
pub enum Reader {
    Chat(Box<Encoder>),
    Plain { tokenizer: Tokenizer, begin: Option<u32> },
}

impl Reader {
    /// As `form` and the folder's model say.
    ///
    /// # Errors
    /// When the folder has no tokenizer, or its template does not suit it.
    pub fn new(folder: &Path, form: PromptForm, config: &DecoderConfig) -> Result<Self> {
        let chat = match form {
            PromptForm::Auto => Template::of_folder(folder)?.is_some(),
            PromptForm::Chat => true,
            PromptForm::Plain => false,
        };
        if chat {
            return Ok(Self::Chat(Box::new(sft::encoder(folder)?)));
        }
        let tokenizer = Tokenizer::load(folder).with_context(|| format!("{} has no tokenizer", folder.display()))?;
        let begin = if config.eos_token_id().is_empty() { Some(tokenizer.end_of_text()) } else { config.bos_token_id() };
        Ok(Self::Plain { tokenizer, begin })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Chat(encoder) => encoder.tokenizer(),
            Self::Plain { tokenizer, .. } => tokenizer,
        }
    }

    pub fn template(&self) -> Option<&Template> {
        match self {
            Self::Chat(encoder) => Some(encoder.template()),
            Self::Plain { .. } => None,
        }
    }

    /// The tokens that end an answer.
    pub fn ends(&self, config: &DecoderConfig) -> Vec<u32> {
        let first = match self {
            Self::Chat(encoder) => encoder.turn_end(),
            Self::Plain { tokenizer, .. } => tokenizer.end_of_text(),
        };
        let more = config.eos_token_id().iter().copied().filter(|&end| end != first);
        [first].into_iter().chain(more).collect()
    }

    /// # Errors
    /// When the template refuses the question.
    pub fn question(&self, prompt: &Prompt) -> Result<Question> {
        let ids = match self {
            Self::Chat(encoder) => encoder.prompt(&prompt.asked.messages, &prompt.asked.tools)?,
            Self::Plain { tokenizer, begin } => begin.iter().copied().chain(tokenizer.encode(&prompt.text())?).collect(),
        };
        Ok(Question { ids, reference: prompt.reference.clone() })
    }
}

impl<L: Learner> Asked<L> {
    /// # Errors
    /// When the recipe names no model or no reward, or questions cannot be read.
    pub fn new(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self> {
        let from = recipe.model.from.as_deref().context(
            "reinforcement learning starts from a model that is right now and then: give `model.from` (a registered model or a folder)",
        )?;
        let folder = Path::new(from);
        let config = danlu_models::folder::load_config(folder).with_context(|| format!("`model.from` is {from:?}"))?;
        let reader = Reader::new(folder, recipe.rl.template, &config)?;
        let mut recipe = recipe.clone();
        careful(&mut recipe, &config);
        let scorer = scorer::open(&mut recipe.rewards, &reader)?;

        let (mut data, mut all) = (vec![], vec![]);
        for source in &recipe.data.sources {
            let found = prompts::read(&[sft::conversations(home, source, progress)?]).with_context(|| format!("in {source}"))?;
            progress.note(&format!("{source}: {}", found.summary()));
            let hash = danlu_files::hash_bytes(format!("{:?}", found.records).as_bytes());
            data.push(DataRecord { name: source.clone(), manifest_hash: hash });
            all.extend(found.records);
        }
        if recipe.rewards.code.is_some() {
            progress.note(&format!("code of answers is run: {}", holds()?));
        }
        let asked: Vec<_> = all.iter().map(|one| one.asked.clone()).collect();
        let out = held_out(&asked, recipe.data.held_out, sft::SPLIT);
        let (mut train, mut held_out, mut too_long) = (vec![], vec![], 0);
        for (prompt, out) in all.iter().zip(out) {
            let question = reader.question(prompt)?;
            match (question.ids.len() < config.context(), out) {
                (false, _) => too_long += 1,
                (true, true) => held_out.push(question),
                (true, false) => train.push(question),
            }
        }
        ensure!(!train.is_empty(), "no question is left to learn from: {too_long} are longer than the model can read");
        progress.note(&format!("{} questions, {} held out, {too_long} too long for the model", train.len(), held_out.len()));
        let mut plan = planned(&recipe, &train, &config, danlu_ops::gemm_rate())?;
        plan.beside += scorer.as_ref().map_or(0, Scorer::parameters);
        let asked = Self { data, train, held_out, reader, scorer, config, plan, learner: PhantomData };
        // What cannot be judged is better known before a run is begun.
        let judge = asked.judge()?;
        asked.train.iter().chain(&asked.held_out).try_for_each(|question| judge.accepts(question))?;
        Ok(asked)
    }
}

impl<L> Asked<L> {
    fn judge(&self) -> Result<Judge> {
        let recipe = &self.plan.recipe;
        let (tokenizer, ends) = (self.reader.tokenizer().clone(), self.reader.ends(&self.config));
        Judge::new(&recipe.rewards, recipe.rl.max_tokens, tokenizer, ends, self.scorer.clone())
    }
}

/// What suits a model that knows something already, where the recipe does not say otherwise.
fn careful(recipe: &mut Recipe, config: &DecoderConfig) {
    recipe.optimizer.kind = OptimizerKind::Adamw;
    let usual = recipe.adapter.rate(RATE * (WIDTH / config.hidden_size() as f64).max(1.0));
    let rate = *recipe.optimizer.rate.get_or_insert(usual);
    recipe.optimizer.embedding_rate.get_or_insert(rate);
}

impl<L: Learner> Kind for Asked<L> {
    type Objective = L;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn objective(&self) -> Result<L> {
        let recipe = &self.plan.recipe;
        let game = Game::new(&self.plan, self.train.clone(), self.held_out.clone(), self.judge()?)?;
        let near = recipe.rl.kl > 0.0;
        let start = near.then(|| initial_model(recipe, &self.config, &danlu_ops::device())).transpose()?;
        L::new(game, recipe.objective.kind, start)
    }

    fn fresh(&self, device: &Device) -> Result<L::Model> {
        Ok(L::model(initial_model(&self.plan.recipe, &self.config, device)?))
    }

    fn data(&self) -> Vec<DataRecord> {
        self.data.clone()
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(self.reader.tokenizer())
    }

    fn template(&self) -> Option<&Template> {
        self.reader.template()
    }

    fn curve(&self) -> Curve {
        Curve { key: "reward", scale: Some(1.0) }
    }

    fn keep(&self, export: &Export, model: &L::Model, summary: &Summary) -> Result<ModelId> {
        let probe = self.held_out.first().map_or(&[][..], |one| &one.ids);
        let (config, tokenizer, template) = (&self.config, self.reader.tokenizer(), self.reader.template());
        export.decoder(self, summary, &Made { decoder: L::decoder(model), config, tokenizer, template, probe })
    }
}
