//! Any network that says which class a picture has.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use danlu_ops::{Ids, Planes};

use crate::config::{LenetConfig, VitConfig};
use crate::lenet::Lenet;
use crate::vit::VitClassifier;

/// A classifier of pictures.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a program, and both are handles to weights")]
pub enum PictureClassifier {
    Lenet(Lenet),
    Vit(VitClassifier),
}

/// The configuration of any of them.
#[derive(Clone, Debug, PartialEq)]
pub enum PictureConfig {
    Lenet(LenetConfig),
    Vit(VitConfig),
}

impl PictureClassifier {
    /// With initial weights.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a classifier.
    pub fn new(config: &PictureConfig, seed: u64, device: &Device) -> Result<Self> {
        Ok(match config {
            PictureConfig::Lenet(config) => Self::Lenet(Lenet::new(config, seed, device)?),
            PictureConfig::Vit(config) => Self::Vit(VitClassifier::new(config, seed, device)?),
        })
    }

    /// One whose parameters have shapes and no values.
    pub(crate) fn empty(config: &PictureConfig, device: &Device) -> Result<Self> {
        Ok(match config {
            PictureConfig::Lenet(config) => Self::Lenet(Lenet::empty(config, device)?),
            PictureConfig::Vit(config) => Self::Vit(VitClassifier::empty(config, device)?),
        })
    }

    /// The logits of each picture, `[pictures, classes]`, of pictures `[pictures, values]`.
    ///
    /// # Panics
    /// When rows are not pictures of [`PictureConfig::picture`].
    pub fn logits(&self, pictures: Tensor<2>) -> Tensor<2> {
        self.logits_of(pictures, None)
    }

    /// [`PictureClassifier::logits`] from those patches of each picture that are `kept`, as [`crate::Vit::states`] has them.
    ///
    /// # Panics
    /// As [`PictureClassifier::logits`], and when patches are given to a network that reads whole pictures.
    pub fn logits_of(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        self.head(self.states(pictures, kept))
    }

    /// What everything below the head makes of each picture, `[pictures, hidden]`: while that is frozen it is always the same, and
    /// [`PictureClassifier::head`] is all that needs to be computed again.
    ///
    /// # Panics
    /// As [`PictureClassifier::logits_of`].
    pub fn states(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        match self {
            Self::Lenet(lenet) => {
                assert!(kept.is_none(), "convolutions read whole pictures");
                lenet.features(pictures)
            }
            Self::Vit(vit) => vit.vit.wholes(pictures, kept),
        }
    }

    /// The logits, `[pictures, classes]`, of what [`PictureClassifier::states`] gives.
    pub fn head(&self, states: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Lenet(lenet) => lenet.classifier.forward(states),
            Self::Vit(vit) => vit.classifier.forward(states),
        }
    }
}

impl PictureConfig {
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Lenet(_) => "lenet",
            Self::Vit(_) => "vit",
        }
    }

    /// What it reads.
    pub fn picture(&self) -> Planes {
        match self {
            Self::Lenet(config) => config.picture(),
            Self::Vit(config) => config.picture(),
        }
    }

    /// The classes, in the order of the outputs.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Lenet(config) => &config.labels,
            Self::Vit(config) => &config.labels,
        }
    }

    /// What is taken from each channel, as a share of full brightness, and what it is then divided by.
    pub fn scale(&self) -> [&[f64]; 2] {
        match self {
            Self::Lenet(config) => [&config.image_mean, &config.image_std],
            Self::Vit(config) => [&config.image_mean, &config.image_std],
        }
    }

    /// Checks that the numbers make a classifier.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Lenet(config) => config.validate(),
            Self::Vit(config) => config.validate_classifier(),
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        match self {
            Self::Lenet(config) => config.parameters(),
            Self::Vit(config) => config.parameters(),
        }
    }
}
