//! `[rl]`: how a model learns from what its answers are worth.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectiveKind;

/// How answers are drawn and learned from, for the objectives `grpo`, `rloo` and `ppo`. What they are worth is `[rewards]`. They are drawn at
/// temperature 1 from the model's own distribution, which is the one that is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RlSpec {
    /// Answers to each question of an update, which grpo and rloo compare with each other.
    #[schemars(range(min = 1, max = 4096))]
    pub samples: usize,
    /// The most tokens of an answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tokens: usize,
    /// How questions are put: automatic is by the model's chat template, where it has one.
    pub template: PromptForm,
    /// Updates of the weights for one drawing of answers. Automatic: 4 for ppo, else 1.
    #[schemars(range(min = 1, max = 100))]
    pub updates: Option<usize>,
    /// How far a token's probability may fall, as a share of what it was, before its gradient stops.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub clip: f64,
    /// How far it may rise. Automatic: as `clip`; more, such as 0.28, keeps rare tokens alive (clip-higher of DAPO, Yu 2025).
    #[schemars(range(min = 0.0, max = 100.0))]
    pub clip_high: Option<f64>,
    /// What grpo divides the advantages of a question's answers by.
    pub scale: AdvantageScale,
    /// How grpo's losses of tokens become one.
    pub average: LossAverage,
    /// Whose probability grpo compares with what it was.
    pub ratio: RatioOf,
    /// Weight of the divergence from the start model: in grpo's loss (the estimator k3 of Schulman 2020), in rloo's and ppo's rewards. 0 keeps
    /// no start model, and logs no divergence.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub kl: f64,
    /// In ppo: let the weight of the divergence follow, so that an answer's divergence comes to this many nats (Ziegler 2019).
    #[schemars(range(min = 1e-6, max = 1000.0))]
    pub kl_target: Option<f64>,
    /// Answers after which that weight has followed a divergence that is off by as much as is counted.
    #[schemars(range(min = 1.0, max = 1e9))]
    pub kl_horizon: f64,
    /// Learn nothing from answers that were cut off (overlong filtering of DAPO).
    pub skip_truncated: bool,
    /// In ppo: what a reward one token later is worth.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// In ppo: 0 trusts the value head, 1 what came out (Schulman 2015).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// In ppo: how far a value may move in the updates of one drawing before its gradient stops.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub value_clip: f64,
    /// In ppo: weight of the value head's loss.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub value_weight: f64,
}

/// How a question becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptForm {
    /// By the model's chat template where it has one, else as plain text.
    #[default]
    Auto,
    /// By the model's chat template, or ChatML where it has none.
    Chat,
    /// As plain text that the model goes on with.
    Plain,
}

/// What the advantages of a group are divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageScale {
    /// The deviation of the rewards of the same question (Shao 2024).
    #[default]
    Group,
    /// The deviation of the rewards of the whole update.
    Batch,
    /// Nothing, which leaves out the bias for questions that are nearly always or nearly never answered (Dr. GRPO, Liu 2025).
    None,
}

/// How the losses of tokens become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossAverage {
    /// The mean over all tokens of the update (DAPO, Yu 2025).
    #[default]
    Token,
    /// The mean over answers of the mean over each one's tokens (Shao 2024), in which a token of a long answer counts less.
    Sequence,
    /// The sum over tokens by the number of answers times `max_tokens` (Dr. GRPO, Liu 2025).
    Fixed,
}

/// Whose probability is compared with what it was when the answer was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RatioOf {
    /// Each token's.
    #[default]
    Token,
    /// The answer's, as the geometric mean of its tokens' (GSPO, Zheng 2025).
    Sequence,
}

impl Default for RlSpec {
    fn default() -> Self {
        RlSpec {
            samples: 8,
            max_tokens: 128,
            template: PromptForm::default(),
            updates: None,
            clip: 0.2,
            clip_high: None,
            scale: AdvantageScale::default(),
            average: LossAverage::default(),
            ratio: RatioOf::default(),
            kl: 0.04,
            kl_target: None,
            kl_horizon: 10_000.0,
            skip_truncated: false,
            gamma: 1.0,
            lambda: 0.95,
            value_clip: 0.2,
            value_weight: 0.1,
        }
    }
}

impl RlSpec {
    /// [`RlSpec::updates`], chosen where it is automatic.
    pub fn updates(&self, kind: ObjectiveKind) -> usize {
        self.updates.unwrap_or(if kind == ObjectiveKind::Ppo { 4 } else { 1 })
    }

    /// The bounds of a ratio.
    pub fn bounds(&self) -> (f64, f64) {
        (1.0 - self.clip, 1.0 + self.clip_high.unwrap_or(self.clip))
    }
}
