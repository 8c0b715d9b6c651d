//! `[preference]`: how a model learns from what people prefer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How preferences become a loss, for the objectives `preference` and `reward`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreferenceSpec {
    /// The loss of the objective `preference`.
    pub loss: PreferenceLoss,
    /// How much a change of a log-probability counts as reward; larger keeps nearer to the start model. In ipo it sets the distance aimed at,
    /// in orpo the weight of the odds. Automatic: 2 for simpo, else 0.1.
    #[schemars(range(min = 1e-6, max = 1000.0))]
    pub beta: Option<f64>,
    /// The share of pairs believed to be the wrong way round: cDPO (Mitchell 2023) with dpo, the same with simpo; robust needs it.
    #[schemars(range(min = 0.0, max = 0.49))]
    pub label_smoothing: f64,
    /// The margin that simpo asks for between the two rewards.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub gamma: f64,
    /// Weight of the chosen answers' mean negative log-likelihood, added to the loss. Automatic: 1 for orpo, else 0.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sft: Option<f64>,
    /// Weight of good answers in kto.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub desirable: f64,
    /// Weight of bad answers in kto.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub undesirable: f64,
    /// In `reward`: how strongly the sum of the two rewards is drawn to zero (Eisenstein 2023).
    #[schemars(range(min = 0.0, max = 100.0))]
    pub center: f64,
}

/// A loss on preferences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PreferenceLoss {
    /// Direct preference optimization (Rafailov 2023).
    #[default]
    Dpo,
    /// Identity preference optimization (Azar 2023), with log-probabilities per token.
    Ipo,
    /// The hinge of SLiC (Zhao 2023) on dpo's rewards.
    Hinge,
    /// dpo that is unbiased when a share of pairs, `label_smoothing`, is the wrong way round (Chowdhury 2024).
    Robust,
    /// Simple preference optimization (Meng 2024): log-probabilities per token and no reference model.
    Simpo,
    /// Odds-ratio preference optimization (Hong 2024): tuning and preference at once, no reference model.
    Orpo,
    /// Kahneman-Tversky optimization (Ethayarajh 2024): answers judged good or bad, no pairs.
    Kto,
}

impl Default for PreferenceSpec {
    fn default() -> Self {
        PreferenceSpec {
            loss: PreferenceLoss::default(),
            beta: None,
            label_smoothing: 0.0,
            gamma: 1.0,
            sft: None,
            desirable: 1.0,
            undesirable: 1.0,
            center: 0.0,
        }
    }
}

impl PreferenceSpec {
    /// [`PreferenceSpec::beta`], chosen where it is automatic.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == PreferenceLoss::Simpo { 2.0 } else { 0.1 })
    }

    /// [`PreferenceSpec::sft`], chosen where it is automatic.
    pub fn sft(&self) -> f64 {
        self.sft.unwrap_or(if self.loss == PreferenceLoss::Orpo { 1.0 } else { 0.0 })
    }
}

impl PreferenceLoss {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            PreferenceLoss::Dpo => "dpo",
            PreferenceLoss::Ipo => "ipo",
            PreferenceLoss::Hinge => "hinge",
            PreferenceLoss::Robust => "robust",
            PreferenceLoss::Simpo => "simpo",
            PreferenceLoss::Orpo => "orpo",
            PreferenceLoss::Kto => "kto",
        }
    }

    /// Whether it compares with the start model.
    pub fn needs_reference(self) -> bool {
        !matches!(self, PreferenceLoss::Simpo | PreferenceLoss::Orpo)
    }

    /// Whether an answer's log-probability counts per token.
    pub fn per_token(self) -> bool {
        matches!(self, PreferenceLoss::Ipo | PreferenceLoss::Simpo | PreferenceLoss::Orpo)
    }
}
