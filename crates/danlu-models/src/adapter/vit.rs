//! Low-rank updates of the projections of a Vision Transformer.

use anyhow::{Result, bail, ensure};
use burn::module::Module;
use burn::tensor::Device;

use super::merge::merge;
use super::{AdapterSpec, LoraSpec, attach, count};
use crate::{Vit, VitConfig, names};

impl Vit {
    /// The same weights, frozen, with a new adapter that changes nothing yet, as [`crate::Decoder::with_adapter`]. Its projections are called
    /// "query", "key", "value" and "dense".
    ///
    /// # Errors
    /// When there is an adapter already, a target is no projection of this network, a number is out of bounds, or it is prompt tuning.
    pub fn with_adapter(&self, spec: &AdapterSpec, seed: u64) -> Result<Self> {
        let mut vit = names::freeze(self.clone(), |_| true);
        ensure!(!vit.is_adapted(), "the network has an adapter already: merge it first");
        let device = vit.embeddings.cls_token.lazy_device();
        attach(vit.linears(), low_rank(spec)?, seed, &device)?;
        Ok(vit)
    }

    /// The adapter merged into the weights: the same outputs from whole weights, without autodiff.
    ///
    /// # Errors
    /// When there is nothing to merge.
    pub fn merged(&self) -> Result<Self> {
        let mut vit = self.valid();
        ensure!(vit.is_adapted(), "there is no adapter to merge");
        merge(vit.linears());
        Ok(vit)
    }

    fn is_adapted(&mut self) -> bool {
        self.linears().iter().any(|(_, linear)| linear.lora_A.is_some())
    }
}

/// How many parameters an adapter has on a network of this configuration; nothing is made.
///
/// # Errors
/// As [`Vit::with_adapter`].
pub fn parameters_of_vit(config: &VitConfig, spec: &AdapterSpec) -> Result<u64> {
    count(Vit::empty(config, &Device::flex()).linears(), low_rank(spec)?)
}

fn low_rank(spec: &AdapterSpec) -> Result<&LoraSpec> {
    match spec {
        AdapterSpec::Lora(spec) => Ok(spec),
        AdapterSpec::Prompt { .. } => bail!("prompt tuning is for decoders; a Vision Transformer has lora, rslora and dora"),
    }
}
