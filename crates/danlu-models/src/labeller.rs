//! What says which class a picture has: a network, features of the picture, or both.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use danlu_ops::{Ids, Planes};

use crate::classifier::FeatureHead;
use crate::names;
use crate::picture::{PictureClassifier, PictureConfig};

/// A network and a head on features, whose logits are added up; or one of them alone.
#[derive(Module, Debug)]
pub struct PictureLabeller {
    /// None: the features alone decide. Its parameters have the names they have without features.
    pub backbone: Option<PictureClassifier>,
    pub features: Option<FeatureHead>,
}

/// What a [`PictureLabeller`] is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureLabellerConfig {
    /// None: the features alone decide.
    pub network: Option<PictureConfig>,
    /// What it reads; of a network as its own configuration has it, and so are the next three.
    pub picture: Planes,
    /// The classes, in the order of the outputs.
    pub labels: Vec<String>,
    /// What is taken from each channel, as a share of full brightness, and what it is then divided by.
    pub image_mean: Vec<f64>,
    pub image_std: Vec<f64>,
    /// Numbers that stand beside a picture; zero for none.
    pub features: usize,
}

/// The most features, as of texts.
const MOST_FEATURES: usize = 1 << 24;

impl PictureLabeller {
    /// The network, where the configuration has one, and beside it the features, whose weights begin at zero: they change nothing yet.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a classifier.
    pub fn new(backbone: Option<PictureClassifier>, config: &PictureLabellerConfig, device: &Device) -> Result<Self> {
        ensure!(backbone.is_some() == config.network.is_some(), "the configuration and the model do not both have a network");
        let zeros = |head: FeatureHead| names::fill(head, |_, shape| Ok(vec![0.0; shape.iter().product()]));
        Ok(Self { backbone, features: config.feature_head(device)?.map(zeros).transpose()? })
    }

    /// The names and shapes of its parameters, of which none is made.
    ///
    /// # Errors
    /// As [`PictureLabeller::new`].
    pub fn shapes(config: &PictureLabellerConfig) -> Result<Vec<(String, Vec<usize>)>> {
        let device = Device::flex();
        let features = config.feature_head(&device)?;
        let backbone = config.network.as_ref().map(|network| PictureClassifier::empty(network, &device)).transpose()?;
        Ok(names::names_and_shapes(&Self { backbone, features }))
    }

    /// [`PictureClassifier::states`] of the network; none without one.
    ///
    /// # Panics
    /// As there.
    pub fn states(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Option<Tensor<2>> {
        Some(self.backbone.as_ref()?.states(pictures, kept))
    }

    /// The logits of each picture, `[pictures, classes]`: of the states of [`PictureLabeller::states`], and of the features
    /// `[pictures, features]` where there are any.
    ///
    /// # Panics
    /// When a part that it was made with is not given.
    pub fn head(&self, states: Option<Tensor<2>>, features: Option<Tensor<2>>) -> Tensor<2> {
        let of_network = self.backbone.as_ref().map(|network| network.head(states.expect("a network reads its states")));
        let of_features =
            self.features.as_ref().map(|head| head.of_rows(features.expect("a classifier with features reads them")));
        match (of_network, of_features) {
            (Some(a), Some(b)) => a + b,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => unreachable!("a classifier without a network has features"),
        }
    }

    /// [`PictureLabeller::states`] and [`PictureLabeller::head`] in one.
    ///
    /// # Panics
    /// As those.
    pub fn logits(&self, pictures: Tensor<2>, features: Option<Tensor<2>>) -> Tensor<2> {
        self.head(self.states(pictures, None), features)
    }
}

impl From<PictureClassifier> for PictureLabeller {
    fn from(network: PictureClassifier) -> Self {
        Self { backbone: Some(network), features: None }
    }
}

impl PictureLabellerConfig {
    /// A network with so many features beside it, or none.
    pub fn of(network: PictureConfig, features: usize) -> Self {
        let [mean, deviation] = network.scale().map(<[f64]>::to_vec);
        Self {
            picture: network.picture(),
            labels: network.labels().to_vec(),
            image_mean: mean,
            image_std: deviation,
            network: Some(network),
            features,
        }
    }

    /// The kind of the network, as in `config.json`.
    pub fn model_type(&self) -> &'static str {
        self.network.as_ref().map_or(Self::FEATURES, PictureConfig::model_type)
    }

    /// The `model_type` of features alone.
    pub(crate) const FEATURES: &'static str = "picture_features";

    /// Checks that the numbers make a classifier.
    ///
    /// # Errors
    /// Names what is wrong and what it may be.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.features <= MOST_FEATURES, "{} features are more than a head may have", self.features);
        if let Some(network) = &self.network {
            return network.validate();
        }
        let Planes { channels, height, width } = self.picture;
        ensure!(self.features > 0, "without a network there must be features");
        ensure!(
            [1, 3].contains(&channels) && [height, width].iter().all(|side| (1..=4096).contains(side)),
            "pictures of {height}×{width} with {channels} channels"
        );
        let classes = self.labels.len();
        ensure!((2..=1 << 16).contains(&classes), "there are {classes} classes; a classifier tells from 2 to 65536 apart");
        let usable = |x: &[f64]| x.len() == channels && x.iter().all(|x| x.is_finite());
        ensure!(
            usable(&self.image_mean) && usable(&self.image_std) && self.image_std.iter().all(|x| *x > 0.0),
            "`image_mean` and `image_std` must have a number for each of the {channels} channels, and deviations above zero"
        );
        Ok(())
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let of_features = if self.features > 0 { (self.features + 1) * self.labels.len() } else { 0 };
        self.network.as_ref().map_or(0, PictureConfig::parameters) + of_features as u64
    }

    /// The head on features without values, where there are any.
    pub(crate) fn feature_head(&self, device: &Device) -> Result<Option<FeatureHead>> {
        self.validate()?;
        Ok((self.features > 0).then(|| FeatureHead::empty(self.features, self.labels.len(), device)))
    }
}
