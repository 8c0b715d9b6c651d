//! A recipe: everything that decides what a run makes, as one TOML file. The structs here are the one place where keys, their
//! meaning, their bounds and their defaults are written; the parser, the validator and the reference text are derived from them.

mod adapter;
mod classify;
mod course;
mod data;
mod distill;
mod embed;
mod gan;
mod gate;
mod image;
mod model;
mod objective;
mod parse;
mod preference;
mod rl;
mod scene;
mod schema;
mod story;
mod translate;
mod tune;
mod word2vec;

use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adapter::{AdapterKind, AdapterRecipe, Base};
pub use classify::{ClassifySpec, FeaturesSpec, Pooling, Way};
pub use course::{BatchSpec, Budget, CheckpointSpec, EvalSpec, SampleSpec};
pub use danlu_rewards::RewardsSpec;
pub use data::DataSpec;
pub use distill::{DistillOn, DistillSpec, DivergenceKind};
pub use embed::{EmbedSpec, IdentityKind, MarginLoss};
pub use gan::{GanLoss, GanSpec};
pub use gate::GateSpec;
pub use image::{ImageSpec, LenetFormKind, LenetSpec, MaeSpec, VitSpec};
pub use model::{ModelKind, ModelSpec, TokenizerKind, TokenizerSpec};
pub use objective::{ObjectiveKind, ObjectiveSpec};
pub use preference::{PreferenceLoss, PreferenceSpec};
pub use rl::{AdvantageScale, LossAverage, PromptForm, RatioOf, RlSpec};
pub use scene::SceneSpec;
pub use story::StorySpec;
pub use translate::TranslateSpec;
pub use tune::{Part, TuneSpec};
pub use word2vec::{VectorsKind, WindowForm, Word2vecSpec};

/// The newest recipe format this program reads.
pub const VERSION: u32 = 1;

/// A recipe file may have this many bytes.
const LIMIT: u64 = 1 << 20;

/// What a run is made from. A key that is left out, and that has no default below, is chosen by the program ("automatic"); the run
/// folder's `recipe.toml` shows what was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The format of this file.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The run's and the model's name.
    pub name: String,
    /// What the model is for: L0 is general, L1 an industry's, L2 one task's.
    pub level: Level,
    /// Decides the initial weights, the order of the data and the samples.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: u64,
    /// What activations are made of. Weights, gradients and losses are 32-bit floats with any.
    #[serde(skip_serializing_if = "is_default")]
    pub precision: PrecisionKind,
    #[serde(skip_serializing_if = "is_default")]
    pub story: StorySpec,
    pub data: DataSpec,
    pub tokenizer: TokenizerSpec,
    pub model: ModelSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub adapter: AdapterRecipe,
    #[serde(skip_serializing_if = "is_default")]
    pub tune: TuneSpec,
    pub objective: ObjectiveSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub word2vec: Word2vecSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub preference: PreferenceSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub classify: ClassifySpec,
    #[serde(skip_serializing_if = "is_default")]
    pub features: FeaturesSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub image: ImageSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub lenet: LenetSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub gan: GanSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub vit: VitSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub mae: MaeSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub embed: EmbedSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub scene: SceneSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub distill: DistillSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub rl: RlSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub rewards: RewardsSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub translate: TranslateSpec,
    pub batch: BatchSpec,
    pub optimizer: OptimizerSpec,
    pub budget: Budget,
    pub checkpoint: CheckpointSpec,
    pub eval: EvalSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub gate: GateSpec,
    pub sample: SampleSpec,
}

/// The level of a model in its lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// A general model.
    L0,
    /// A model of an industry, made from an L0.
    L1,
    /// A model of one task, made from an L1.
    L2,
}

/// The numbers that activations are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionKind {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 (Kalamkar 2019); only on a graphics card that computes in it.
    Bf16,
}

/// How gradients become updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSpec {
    /// The algorithm.
    pub kind: OptimizerKind,
    /// Peak learning rate of AdamW or gradient descent. Automatic: falls with the width of the model.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub rate: Option<f64>,
    /// Peak learning rate of Muon, in units of the update's root mean square.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub muon_rate: Option<f64>,
    /// Peak learning rate of the embeddings. Automatic: by `rate`.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub embedding_rate: Option<f64>,
    /// AdamW's decay of the mean of gradients.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub beta1: f64,
    /// AdamW's decay of the mean of squared gradients.
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub beta2: f64,
    /// Added to AdamW's denominator.
    #[schemars(range(min = 1e-16, max = 0.1))]
    pub epsilon: f64,
    /// What AdamW's two means are kept in: eight bits each instead of 32 save three quarters of the optimizer's memory.
    #[serde(skip_serializing_if = "is_default")]
    pub moments: MomentsKind,
    /// Muon's momentum.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// Decoupled weight decay of matrices; norms, biases and embeddings have none.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    /// Gradients whose joint length exceeds this are scaled down to it; 0 turns clipping off.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub clip: f64,
    /// How the learning rate changes over the run.
    pub schedule: ScheduleKind,
    /// The share of the run that warms up from zero.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub warmup: f64,
    /// The share of the run, at its end, in which `wsd` decays.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub decay: f64,
    /// The form of `wsd`'s decay.
    pub decay_form: DecayForm,
    /// What is left of the peak rate at the end.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub floor: f64,
}

/// An optimizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Muon (Jordan 2024) for the hidden matrices, AdamW for embeddings, head, norms and biases.
    #[default]
    Muon,
    /// AdamW (Loshchilov 2017) for everything.
    Adamw,
    /// Plain gradient descent (Robbins 1951) at `rate`, without momentum; the rows of word2vec move by it window by window.
    Sgd,
}

/// The numbers that AdamW's moments are kept in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MomentsKind {
    /// 32-bit floats.
    #[default]
    F32,
    /// Eight bits with a 32-bit scale for each 256 of them (Dettmers 2021); parameters of fewer than 4096 values, such as norms and biases,
    /// keep 32 bits, as does Muon's momentum.
    Int8,
}

/// The form of the learning rate over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Warm-up, stable, decay (Hu 2024).
    #[default]
    Wsd,
    /// Warm-up, then half a cosine (Loshchilov 2016).
    Cosine,
    /// Warm-up, then constant.
    Constant,
    /// Warm-up, then by the inverse square root of the step (Vaswani 2017).
    InverseSqrt,
}

/// The form of `wsd`'s decay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecayForm {
    /// In a straight line.
    #[default]
    Linear,
    /// One minus the square root of the way (Hägele 2024).
    Sqrt,
}

/// Sections of methods that a recipe does not use are not written.
fn is_default<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            version: VERSION,
            name: "model".into(),
            level: Level::L0,
            seed: 0,
            precision: PrecisionKind::default(),
            story: StorySpec::default(),
            data: DataSpec::default(),
            tokenizer: TokenizerSpec::default(),
            model: ModelSpec::default(),
            adapter: AdapterRecipe::default(),
            tune: TuneSpec::default(),
            objective: ObjectiveSpec::default(),
            word2vec: Word2vecSpec::default(),
            preference: PreferenceSpec::default(),
            classify: ClassifySpec::default(),
            features: FeaturesSpec::default(),
            image: ImageSpec::default(),
            lenet: LenetSpec::default(),
            gan: GanSpec::default(),
            vit: VitSpec::default(),
            mae: MaeSpec::default(),
            embed: EmbedSpec::default(),
            scene: SceneSpec::default(),
            distill: DistillSpec::default(),
            rl: RlSpec::default(),
            rewards: RewardsSpec::default(),
            translate: TranslateSpec::default(),
            batch: BatchSpec::default(),
            optimizer: OptimizerSpec::default(),
            budget: Budget::default(),
            checkpoint: CheckpointSpec::default(),
            eval: EvalSpec::default(),
            gate: GateSpec::default(),
            sample: SampleSpec::default(),
        }
    }
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        OptimizerSpec {
            kind: OptimizerKind::default(),
            rate: None,
            muon_rate: None,
            embedding_rate: None,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-10,
            moments: MomentsKind::default(),
            momentum: 0.95,
            weight_decay: 0.1,
            clip: 1.0,
            schedule: ScheduleKind::default(),
            warmup: 0.02,
            decay: 0.4,
            decay_form: DecayForm::default(),
            floor: 0.0,
        }
    }
}

impl Recipe {
    /// Reads and checks a recipe file, with `key=value` overrides applied in order. Overriding one key of `[budget]` replaces the others.
    ///
    /// # Errors
    /// An unknown key (with the nearest valid one), a value of the wrong type or out of bounds, each with file and line, or with the override.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe> {
        let text = danlu_files::read_text_bounded(path, LIMIT).context("a recipe could not be read")?;
        Recipe::from_toml(&text, &path.display().to_string(), overrides)
    }

    /// [`Recipe::load`] for text already in memory; `origin` names it in errors.
    pub fn from_toml(text: &str, origin: &str, overrides: &[String]) -> Result<Recipe> {
        parse::recipe(text, origin, overrides)
    }

    /// The recipe as TOML; reading it back gives the same recipe.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("a recipe could not be written as TOML")
    }

    /// Bounds of every number, and what holds between keys.
    ///
    /// # Errors
    /// The first key that is wrong, what it is and what it may be.
    pub fn validate(&self) -> Result<()> {
        parse::validate(self)
    }

    /// Every key with its meaning, type, bounds and default, as text for people.
    pub fn reference() -> String {
        schema::reference()
    }

    /// Whether some of the weights a run starts from stay as they were.
    pub fn freezes(&self) -> bool {
        self.adapter.kind != AdapterKind::None || self.tune.part != Part::All
    }

    /// Whether everything below the head stays as it was.
    pub fn freezes_below_head(&self) -> bool {
        self.tune.part == Part::Head && self.adapter.kind == AdapterKind::None
    }

    /// What a row of its data is made of and what is counted, for people: what the code calls tokens is a picture where one is read as a whole.
    pub fn unit(&self) -> &'static str {
        match self.objective.kind {
            ObjectiveKind::ImageClassify | ObjectiveKind::ImageEmbed | ObjectiveKind::MaskedImage | ObjectiveKind::Gan => {
                "pictures"
            }
            ObjectiveKind::Detect | ObjectiveKind::Segment | ObjectiveKind::Pose => "pictures",
            ObjectiveKind::Word2vec => "words",
            // Features alone read a text at once.
            ObjectiveKind::Classify | ObjectiveKind::Regression if self.classify.way == Way::Linear => "texts",
            _ => "tokens",
        }
    }

    /// BLAKE3 of the recipe: two runs with equal hashes were asked for the same thing.
    pub fn hash(&self) -> Result<String> {
        Ok(danlu_files::hash_bytes(self.to_toml()?.as_bytes()))
    }
}
