//! `[embed]`: how pictures of one thing are learned to be alike.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Recognition, for the objective `image-embed`: an embedding of pictures in which those of one identity lie in one direction. It is learned by
/// telling identities apart with a margin, and measured on pairs of pictures of identities that were held out whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedSpec {
    /// What an identity is. Automatic: a stamp where the source is one of the catalogue's stamps, else a folder.
    pub identity: Option<IdentityKind>,
    /// Numbers of an embedding.
    #[schemars(range(min = 2, max = 16_384))]
    pub size: usize,
    /// Where the margin is.
    pub loss: MarginLoss,
    /// The margin between identities: radians for arcface, a difference of cosines for cosface. Automatic: 0.5, or 0.35, as in the papers, whose
    /// networks are large; one that cannot yet tell its identities apart learns more from a smaller margin.
    #[schemars(range(min = 0.0, max = 1.5))]
    pub margin: Option<f64>,
    /// What cosines are multiplied by before the softmax; the papers take 64 for tens of thousands of identities, and fewer need less.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub scale: f64,
}

/// What an identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityKind {
    /// One picture with transparency, of which others are made: larger, turned, lit otherwise and on another background each time.
    Stamp,
    /// A folder of pictures, named after whom or what they show.
    Folder,
}

/// Where the margin is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarginLoss {
    /// On the angle (Deng 2019).
    #[default]
    Arcface,
    /// On its cosine (Wang 2018).
    Cosface,
}

impl Default for EmbedSpec {
    fn default() -> Self {
        EmbedSpec { identity: None, size: 128, loss: MarginLoss::default(), margin: None, scale: 64.0 }
    }
}

impl EmbedSpec {
    /// The margin, or that of the paper.
    pub fn margin(&self) -> f64 {
        self.margin.unwrap_or(match self.loss {
            MarginLoss::Arcface => 0.5,
            MarginLoss::Cosface => 0.35,
        })
    }

    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            self.loss != MarginLoss::Cosface || self.margin() < 1.0,
            "`embed.margin` is {}; cosines differ by 2 at most, and cosface takes less than 1 from them",
            self.margin()
        );
        Ok(())
    }
}
