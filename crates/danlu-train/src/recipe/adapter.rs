//! `[adapter]`: a few trained parameters beside a frozen model.

use anyhow::{Result, ensure};
use danlu_models::{AdapterSpec, LoraSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A few parameters trained beside a frozen model, by AdamW, for any recipe that starts from a decoder; low-rank ones
/// also where a Vision Transformer learns classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterRecipe {
    /// What the adapter is.
    pub kind: AdapterKind,
    /// The rank of each update in lora, rslora and dora.
    #[schemars(range(min = 1, max = 65_536))]
    pub rank: usize,
    /// What an update is multiplied by, times the rank (in rslora, times its square root). Automatic: twice the rank; 8 for rslora.
    #[schemars(range(min = 1e-6, max = 1e6))]
    pub alpha: Option<f64>,
    /// The projections that get an update, by the ends of their names; "all-linear" is every one inside the layers.
    pub targets: Vec<String>,
    /// How the frozen projections are held while the adapter is trained.
    pub base: Base,
    /// Learned vectors before every document, in prompt.
    #[schemars(range(min = 1, max = 65_536))]
    pub tokens: usize,
}

/// A kind of adapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// No adapter: the model's own weights are trained.
    #[default]
    None,
    /// Low-rank updates of projections (Hu 2021).
    Lora,
    /// lora with a scale for which large ranks learn as fast as small ones (Kalajdzievski 2023).
    Rslora,
    /// lora with the lengths of weights learned apart from their directions (Liu 2024).
    Dora,
    /// Learned vectors before every document (Lester 2021).
    Prompt,
}

/// How the projections of a frozen model are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// As 32-bit floats.
    #[default]
    F32,
    /// In 4-bit blocks (QLoRA, Dettmers 2023).
    Nf4,
}

impl Default for AdapterRecipe {
    fn default() -> Self {
        let LoraSpec { rank, targets, .. } = LoraSpec::default();
        AdapterRecipe { kind: AdapterKind::None, rank, alpha: None, targets, base: Base::F32, tokens: 16 }
    }
}

impl AdapterRecipe {
    /// The adapter to train, when there is to be one.
    pub fn spec(&self) -> Option<AdapterSpec> {
        let twice = 2.0 * self.rank as f64;
        let (usual, rank_stabilized, dora) = match self.kind {
            AdapterKind::None => return None,
            AdapterKind::Prompt => return Some(AdapterSpec::Prompt { tokens: self.tokens }),
            AdapterKind::Lora => (twice, false, false),
            AdapterKind::Rslora => (8.0, true, false),
            AdapterKind::Dora => (twice, false, true),
        };
        let (alpha, targets) = (self.alpha.unwrap_or(usual), self.targets.clone());
        Some(AdapterSpec::Lora(LoraSpec { rank: self.rank, alpha, targets, rank_stabilized, dora }))
    }

    /// The learning rate that suits the adapter where `whole` suits the whole model: few parameters that begin at zero are moved faster than
    /// a model's own ([Schulman 2025](https://thinkingmachines.ai/blog/lora/) finds ten times), a prompt's faster still.
    pub fn rate(&self, whole: f64) -> f64 {
        match self.kind {
            AdapterKind::None => whole,
            AdapterKind::Lora | AdapterKind::Rslora | AdapterKind::Dora => 5.0 * whole,
            AdapterKind::Prompt => 100.0 * whole,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            self.kind != AdapterKind::None || *self == AdapterRecipe::default(),
            "`adapter.kind` is missing: write \"lora\", \"rslora\", \"dora\" or \"prompt\""
        );
        ensure!(!self.targets.is_empty(), "`adapter.targets` is empty; name projections, or \"all-linear\"");
        Ok(())
    }
}
