//! `[tune]`: which part of a model is trained, and how fast each of its layers.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which part of a model is trained, for recipes that start from one; the rest stays as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TuneSpec {
    /// The part that is trained.
    pub part: Part,
    /// How many of the layers nearest to the output `last-layers` trains.
    #[schemars(range(min = 1, max = 10_000))]
    pub layers: Option<usize>,
    /// The learning rate of each layer as a share of that of the layer above it; 1 treats all alike (Howard 2018; Clark 2020 use 0.8).
    #[schemars(range(min = 0.01, max = 1.0))]
    pub rate_decay: f64,
}

/// A part of a model. What is new in it, such as the classes of a classifier, is trained in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Every parameter.
    #[default]
    All,
    /// The `layers` nearest to the output, and what stands above them.
    LastLayers,
    /// The output projection alone (the embedding, in a model where it is both), or what stands above the layers of an encoder.
    Head,
    /// The scales and shifts of the norms.
    Norms,
    /// The biases (BitFit, Ben Zaken 2021).
    Biases,
}

impl Default for TuneSpec {
    fn default() -> Self {
        TuneSpec { part: Part::default(), layers: None, rate_decay: 1.0 }
    }
}

impl TuneSpec {
    pub(super) fn validate(&self) -> Result<()> {
        let last = self.part == Part::LastLayers;
        ensure!(!last || self.layers.is_some(), "`tune.part` is \"last-layers\": say how many with `tune.layers`");
        ensure!(last || self.layers.is_none(), "`tune.layers` goes with `tune.part = \"last-layers\"`");
        Ok(())
    }
}
