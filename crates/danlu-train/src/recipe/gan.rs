//! `[gan]`: how two networks learn against each other.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network that draws pictures and one that tells them from real ones, for the objective `gan` and `model.kind` `gan` or `dcgan`. Both move in
/// every step, by the same loss's two sides (the simultaneous descent of Goodfellow 2016, 3), each with its own moments. A step's pictures are
/// `batch.examples`, and as many are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GanSpec {
    /// What the two play for.
    pub loss: GanLoss,
    /// Whether the discriminator's weights are divided by their largest singular value (Miyato 2018), so that it cannot become steeper than its
    /// inputs: steadier, and without batch norms in the discriminator. Penalties on its gradient (WGAN-GP, R1) want the gradient of a gradient,
    /// which is not computed here; this one needs none.
    pub spectral_norm: bool,
    /// Normal numbers that a picture is drawn from.
    #[schemars(range(min = 1, max = 65_536))]
    pub latent: usize,
    /// Of the generator from noise to picture, and of the discriminator backwards: widths of the layers between, or planes of each stage of
    /// dcgan, which doubles the sides. Empty: 256, 512; or 64, 32.
    pub widths: Vec<usize>,
    /// What the discriminator's learning rate is of the generator's (Heusel 2017).
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub discriminator_rate: f64,
    /// The registered LeNet, or its folder, whose features of drawn and of held-out pictures are compared: their Fréchet distance (Heusel 2017),
    /// precision and recall (Kynkäänniemi 2019). Empty: none, and the measure is how well the discriminator tells held-out pictures from drawn
    /// ones.
    pub judge: String,
    /// Pictures that are drawn for a measure, and as many held-out ones. Distances of other numbers of pictures are not comparable.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub scored: usize,
}

/// What the generator and the discriminator play for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GanLoss {
    /// The discriminator's cross-entropy, and for the generator that of drawn pictures taken for real (Goodfellow 2014, 3).
    #[default]
    NonSaturating,
    /// A margin of one on each side for the discriminator, and the score itself for the generator (Lim 2017).
    Hinge,
}

impl Default for GanSpec {
    fn default() -> Self {
        GanSpec {
            loss: GanLoss::default(),
            spectral_norm: false,
            latent: 64,
            widths: vec![],
            discriminator_rate: 1.0,
            judge: String::new(),
            scored: 2048,
        }
    }
}

impl GanSpec {
    pub(super) fn validate(&self) -> Result<()> {
        ensure!(
            self.widths.len() <= 8 && self.widths.iter().all(|width| (1..=65_536).contains(width)),
            "`gan.widths` is {:?}; give up to 8 numbers from 1 to 65536, or none",
            self.widths
        );
        Ok(())
    }
}
