//! A recipe: everything that decides what a run makes, as one TOML file. The structs here are the one place where keys, their
//! meaning, their bounds and their defaults are written; the parser, the validator and the reference text are derived from them.

mod adapter;
mod classify;
mod distill;
mod gate;
mod parse;
mod preference;
mod rl;
mod schema;
mod shares;
mod tune;

use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adapter::{AdapterKind, AdapterRecipe, Base};
pub use classify::{ClassifySpec, FeaturesSpec, Pooling, Way};
pub use danlu_rewards::RewardsSpec;
pub use distill::{DistillOn, DistillSpec, DivergenceKind};
pub use gate::GateSpec;
pub use preference::{PreferenceLoss, PreferenceSpec};
pub use rl::{AdvantageScale, LossAverage, PromptForm, RatioOf, RlSpec};
pub use tune::{Part, TuneSpec};

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
    pub data: DataSpec,
    pub tokenizer: TokenizerSpec,
    pub model: ModelSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub adapter: AdapterRecipe,
    #[serde(skip_serializing_if = "is_default")]
    pub tune: TuneSpec,
    pub objective: ObjectiveSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub preference: PreferenceSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub classify: ClassifySpec,
    #[serde(skip_serializing_if = "is_default")]
    pub features: FeaturesSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub distill: DistillSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub rl: RlSpec,
    #[serde(skip_serializing_if = "is_default")]
    pub rewards: RewardsSpec,
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

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// Names of the catalogue or of corpora already added, files, folders and globs.
    pub sources: Vec<String>,
    /// How often each source's documents are seen, relative to the others'. Empty: all alike.
    pub weights: Vec<f64>,
    /// Sources with sizes n have shares of the rows like n^(1/temperature), times their weights (Raffel 2020): 1 is by size, larger is more even.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub temperature: f64,
    /// What the model knew before, read again among the sources so that it does not forget it; never measured on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replay: Vec<String>,
    /// The share of the rows that are of `replay`.
    #[schemars(range(min = 0.001, max = 0.9))]
    pub replay_share: f64,
    /// The day that chat templates are told, such as "2026-11-24". Automatic: the day the run begins, where a template asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The share of documents kept out of training to measure with, chosen by their hash.
    #[schemars(range(min = 0.0005, max = 0.5))]
    pub held_out: f64,
}

/// How text becomes tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerSpec {
    /// The algorithm that a new tokenizer is trained with.
    pub kind: TokenizerKind,
    /// Entries of a new tokenizer. Automatic: by the size of the model.
    #[schemars(range(min = 258, max = 1_000_000))]
    pub vocabulary: Option<usize>,
    /// Use this tokenizer.json (or the folder it is in) instead of training one.
    pub from: Option<String>,
}

/// A subword algorithm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// Byte-level byte-pair encoding (Sennrich 2016; Radford 2019).
    #[default]
    Bpe,
    /// Unigram language model (Kudo 2018).
    Unigram,
    /// WordPiece (Schuster 2012; Devlin 2018).
    Wordpiece,
}

/// The network. Give a size, or some or all of the shape, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// The architecture.
    pub kind: ModelKind,
    /// Parameters to aim at, such as "800k", "10M" or "1.5B". Automatic: by the budget and the amount of data.
    pub size: Option<String>,
    /// Start from the weights in this model folder instead of random ones; its shape and, unless `tokenizer.from` says otherwise, its
    /// tokenizer are used.
    pub from: Option<String>,
    /// BLAKE3 of the weights that `from` must have. Automatic, where some of them stay frozen: of those it has when the run begins.
    pub hash: Option<String>,
    /// Transformer blocks.
    #[schemars(range(min = 1, max = 512))]
    pub layers: Option<usize>,
    /// Channels of the residual stream.
    #[schemars(range(min = 8, max = 32_768))]
    pub hidden: Option<usize>,
    /// Query heads.
    #[schemars(range(min = 1, max = 512))]
    pub heads: Option<usize>,
    /// Key and value heads; fewer than `heads` is grouped-query attention (Ainslie 2023). gpt2 has no such choice.
    #[schemars(range(min = 1, max = 512))]
    pub kv_heads: Option<usize>,
    /// Channels of one head. gpt2 has no such choice.
    #[schemars(range(min = 2, max = 1024))]
    pub head_dim: Option<usize>,
    /// Channels inside the feed-forward network.
    #[schemars(range(min = 8, max = 131_072))]
    pub intermediate: Option<usize>,
    /// The most tokens that one forward pass may see, and the length of a training row.
    #[schemars(range(min = 8, max = 1_048_576))]
    pub context: Option<usize>,
    /// Whether the embedding and the output head are one matrix.
    pub tied: Option<bool>,
}

/// An architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Rotary positions, RMSNorm, SwiGLU (Touvron 2023).
    Llama,
    /// Llama with normalised queries and keys (Qwen team 2025).
    #[default]
    Qwen3,
    /// Learned positions, LayerNorm, GELU (Radford 2019).
    Gpt2,
    /// An encoder, in which every token sees its whole text (Devlin 2018).
    Bert,
}

/// What the loss is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSpec {
    /// What the model learns to do.
    pub kind: ObjectiveKind,
}

/// A training objective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Predict the next token of every document.
    #[default]
    CausalLm,
    /// Say which words stood where some were taken away, from both sides (Devlin 2018).
    MaskedLm,
    /// Predict what the assistant says in conversations, from a model that is there already (Ouyang 2022).
    Sft,
    /// Say which of several labels each text has.
    Classify,
    /// Say a number for each text.
    Regression,
    /// Say a tag for each word of a text.
    TokenClassify,
    /// Prefer the answers that people prefer, from a model that is there already; `preference.loss` says how (Rafailov 2023).
    Preference,
    /// Score answers as people would, from pairs of a better and a worse one and from a model that is there already (Ouyang 2022).
    Reward,
    /// Say what a larger model would, which reads with the same tokenizer; `[distill]` says how (Hinton 2015).
    Distill,
    /// Answer questions so that the reward is higher than of other answers to the same question (Shao 2024).
    Grpo,
    /// The same with the mean of the other answers as the baseline, and whole answers as actions (Ahmadian 2024).
    Rloo,
    /// The same with a value head that says, token by token, what is to be expected (Schulman 2017; Ouyang 2022).
    Ppo,
}

/// How many tokens an update sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSpec {
    /// Tokens of one update of the weights, rounded to whole rows. Automatic: grows with the length of the run.
    #[schemars(range(min = 8, max = 1_000_000_000))]
    pub tokens: Option<usize>,
    /// Examples of one update, where rows are examples (pairs, answers in reinforcement learning, labelled texts). Automatic: by the
    /// objective.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub examples: Option<usize>,
    /// Tokens that go through the model at once; an update is split into pieces of this size, with the same result. Automatic: by
    /// the size of the model.
    #[schemars(range(min = 8, max = 100_000_000))]
    pub micro_tokens: Option<usize>,
    /// Compute activations again in the backward pass instead of keeping them: a third more work, far less memory.
    pub recompute: bool,
}

/// How gradients become updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSpec {
    /// The algorithm.
    pub kind: OptimizerKind,
    /// Peak learning rate of AdamW. Automatic: falls with the width of the model.
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

/// How long to train: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Minutes of the clock, evaluations included.
    #[schemars(range(min = 0.01, max = 5_256_000.0))]
    pub minutes: Option<f64>,
    /// Tokens, repeated ones included.
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_u64))]
    pub tokens: Option<u64>,
    /// Times that the data is seen.
    #[schemars(range(min = 0.001, max = 1e6))]
    pub epochs: Option<f64>,
    /// Updates of the weights.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub steps: Option<u64>,
    /// Floating-point operations, forward and backward.
    #[schemars(range(min = 1.0, max = 1e30))]
    pub flops: Option<f64>,
}

/// When to save and what to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Steps between checkpoints. Automatic: by `minutes`.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// Minutes between checkpoints, when `every` is not given.
    #[schemars(range(min = 0.01, max = 100_000.0))]
    pub minutes: f64,
    /// How many of the newest are kept.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep: usize,
    /// A checkpoint at a multiple of this many steps is kept for good.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub keep_every: Option<u64>,
}

/// When and how to measure on held-out text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSpec {
    /// Steps between measurements. Automatic: about `share` of the time.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// The share of the run's time that measuring may take, when `every` is not given.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub share: f64,
    /// What is measured: "bits-per-byte".
    pub tasks: Vec<String>,
    /// Held-out tokens of one measurement during the run; the last one, at the end, uses `final_tokens`.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub tokens: u64,
    /// Held-out tokens of the measurement at the end.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub final_tokens: u64,
}

/// Text written by the model during and after the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SampleSpec {
    /// Steps between samples; 0 for none but the last. Automatic: with every second measurement.
    #[schemars(range(max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// The prompts. Empty: the first words of held-out documents.
    pub prompts: Vec<String>,
    /// Tokens to write after each prompt.
    #[schemars(range(min = 1, max = 100_000))]
    pub tokens: usize,
    /// Randomness: 0 takes the likeliest token, 1 the model's own distribution.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability are drawn from (Holtzman 2019).
    #[schemars(range(min = 0.01, max = 1.0))]
    pub top_p: f64,
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
            data: DataSpec::default(),
            tokenizer: TokenizerSpec::default(),
            model: ModelSpec::default(),
            adapter: AdapterRecipe::default(),
            tune: TuneSpec::default(),
            objective: ObjectiveSpec::default(),
            preference: PreferenceSpec::default(),
            classify: ClassifySpec::default(),
            features: FeaturesSpec::default(),
            distill: DistillSpec::default(),
            rl: RlSpec::default(),
            rewards: RewardsSpec::default(),
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

impl Default for DataSpec {
    fn default() -> Self {
        DataSpec {
            sources: vec!["wiki-leads".into()],
            weights: vec![],
            temperature: 1.0,
            replay: vec![],
            replay_share: 0.1,
            date: None,
            held_out: 0.02,
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

impl Default for CheckpointSpec {
    fn default() -> Self {
        CheckpointSpec { every: None, minutes: 1.0, keep: 3, keep_every: None }
    }
}

impl Default for EvalSpec {
    fn default() -> Self {
        EvalSpec { every: None, share: 0.04, tasks: vec!["bits-per-byte".into()], tokens: 16_384, final_tokens: 262_144 }
    }
}

impl Default for SampleSpec {
    fn default() -> Self {
        SampleSpec { every: None, prompts: vec![], tokens: 64, temperature: 0.8, top_p: 0.95 }
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

    /// BLAKE3 of the recipe: two runs with equal hashes were asked for the same thing.
    pub fn hash(&self) -> Result<String> {
        Ok(danlu_files::hash_bytes(self.to_toml()?.as_bytes()))
    }
}

impl Budget {
    /// The keys that are given, for errors and for views.
    pub fn given(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("minutes", self.minutes),
            ("tokens", self.tokens.map(|n| n as f64)),
            ("epochs", self.epochs),
            ("steps", self.steps.map(|n| n as f64)),
            ("flops", self.flops),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
