//! Who or what is in a picture, by an embedding.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use danlu_ops::Ids;

use crate::config::VitEmbedderConfig;
use crate::layers::{Linear, placeholder};
use crate::vit::{Vit, initial};
use crate::{init, names};

/// Added to the square of a length before it divides.
const LENGTH: f64 = 1e-12;

/// A [`Vit`] with a head that gives an embedding of the token of the whole: pictures of one thing lie in one direction, also of things that it
/// was never trained on.
#[derive(Module, Debug)]
pub struct VitEmbedder {
    pub vit: Vit,
    /// `[embedding, hidden]`; under the name that `transformers` gives the head of a classifier.
    pub classifier: Linear,
}

/// An embedder while it learns: beside it a direction for each identity that it is trained on, which nobody needs afterwards.
#[derive(Module, Debug)]
pub struct Recognizer {
    pub embedder: VitEmbedder,
    pub head: Identities,
}

#[derive(Module, Debug)]
pub struct Identities {
    /// `[identities, embedding]`.
    pub centers: Param<Tensor<2>>,
}

impl VitEmbedder {
    /// With initial weights, as [`Vit::new`].
    ///
    /// # Errors
    /// When the configuration's numbers do not make a network.
    pub fn new(config: &VitEmbedderConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::on(Vit::new(&config.vit, seed, device)?, config, seed, device)
    }

    /// A new head on a network that is there.
    ///
    /// # Errors
    /// As [`VitEmbedder::new`].
    pub fn on(vit: Vit, config: &VitEmbedderConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        let head = Linear::new(config.embedding_size, config.vit.hidden_size, true, device);
        let value = |name: &str, shape: &[usize]| Ok(initial(&config.vit, seed, &format!("embedder.{name}"), shape));
        Ok(Self { vit, classifier: names::fill(head, value)? })
    }

    pub(crate) fn empty(config: &VitEmbedderConfig, device: &Device) -> Self {
        let classifier = Linear::new(config.embedding_size, config.vit.hidden_size, true, device);
        Self { vit: Vit::empty(&config.vit, device), classifier }
    }

    /// The embedding of each picture, `[pictures, embedding]`, of length 1, from all of its patches or those that are `kept`. The product of
    /// two is the cosine of the angle between them: how much they are alike.
    ///
    /// # Panics
    /// As [`Vit::states`].
    pub fn embeddings(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        unit(self.classifier.forward(self.vit.wholes(pictures, kept)).cast(DType::F32))
    }
}

impl Recognizer {
    /// An embedder that is to learn so many identities. Their directions begin anywhere, with lengths of about 1, so that a step of a size that
    /// suits other weights turns them by no more than it should.
    pub fn new(embedder: VitEmbedder, config: &VitEmbedderConfig, identities: usize, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        let head = Identities { centers: placeholder([identities, config.embedding_size], device) };
        let deviation = 1.0 / (config.embedding_size as f64).sqrt();
        let head = names::fill(head, |name, shape| Ok(init::values(seed, name, shape, deviation, 1)))?;
        Ok(Self { embedder, head })
    }

    /// The cosines between the embedding of each picture and the direction of each identity, `[pictures, identities]`.
    ///
    /// # Panics
    /// As [`Vit::states`].
    pub fn cosines(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        danlu_ops::linear(self.embedder.embeddings(pictures, kept), unit(self.head.centers.val()), None)
    }
}

/// Each row at length 1.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let squares = x.clone().square().sum_dim(1);
    x / (squares + LENGTH).sqrt()
}
