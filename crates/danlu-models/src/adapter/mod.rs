//! Adapters: a few trained parameters beside a frozen model.
//!
//! [`Decoder::with_adapter`] gives a decoder whose own weights are those of the base, in the same memory, and frozen; several adapters on
//! one base are several such decoders. [`Decoder::base`] is the same without the adapter. [`save`] and [`load`] are PEFT's folders.
//! [`crate::Vit::with_adapter`] is the same for a Vision Transformer, whose updates become part of its weights when it is kept.

mod merge;
mod peft;
mod vit;

use anyhow::{Result, bail, ensure};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_ops::Projection;

pub use merge::{Merged, logits_gap};
pub use peft::{Adapter, base_of, load, named_base, save, set_base};
pub(crate) use peft::{ends, load_on_base};
pub use vit::parameters_of_vit;

use crate::layers::{Linear, Matrix, Quantized, hash};
use crate::{Decoder, DecoderConfig, init, names};

/// What is trained instead of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum AdapterSpec {
    Lora(LoraSpec),
    /// Prompt tuning with this many learned vectors before every document
    /// ([Lester et al. 2021](https://arxiv.org/abs/2104.08691)).
    Prompt {
        tokens: usize,
    },
}

/// Low-rank updates of projections ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)).
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    pub rank: usize,
    /// The update is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Names of projections, whole or their last parts ("q_proj"); `all-linear`: every projection inside the layers.
    pub targets: Vec<String>,
    /// `alpha / sqrt(rank)` instead, so that large ranks learn as fast (rsLoRA, [Kalajdzievski 2023](https://arxiv.org/abs/2312.03732)).
    pub rank_stabilized: bool,
    /// Lengths of the rows learned apart from their directions (DoRA, [Liu et al. 2024](https://arxiv.org/abs/2402.09353)).
    pub dora: bool,
}

/// Every projection inside the layers.
pub const ALL: &str = "all-linear";

impl Default for LoraSpec {
    fn default() -> Self {
        LoraSpec { rank: 16, alpha: 32.0, targets: vec![ALL.into()], rank_stabilized: false, dora: false }
    }
}

impl LoraSpec {
    /// What the product of B and A is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |target: &String| target == ALL || name == target || name.ends_with(&format!(".{target}"));
        self.targets.iter().any(matches)
    }
}

/// The largest rank and number of learned vectors: more is a mistake, and would be believed until memory ends.
const LIMIT: usize = 1 << 16;

impl Decoder {
    /// The same weights, frozen, with a new adapter that changes nothing yet (LoRA), or with vectors of the vocabulary before the input
    /// (prompt tuning). The adapter's initial values are those of PEFT's distributions, the same for the same seed.
    ///
    /// # Errors
    /// When there is an adapter already, a target is no projection of this model, or a number is out of bounds.
    pub fn with_adapter(&self, spec: &AdapterSpec, seed: u64) -> Result<Self> {
        ensure!(!self.is_adapted(), "the model has an adapter already: take its base, or merge it first");
        ensure!(!self.is_in_blocks(), "a model in blocks runs and is not trained: load its weights as floats");
        let mut decoder = names::freeze(self.clone(), |_| true);
        let device = self.embedding().device();
        match spec {
            AdapterSpec::Lora(spec) => attach(decoder.linears(), spec, seed, &device)?,
            AdapterSpec::Prompt { tokens } => {
                ensure!((1..=LIMIT).contains(tokens), "{tokens} learned tokens; there may be from 1 to {LIMIT}");
                ensure!(
                    *tokens < self.context(),
                    "{tokens} learned tokens leave no room in the model's context of {}",
                    self.context()
                );
                let table = self.embedding().values();
                let [vocabulary, hidden] = table.dims();
                let mut rows = vec![];
                for row in init::indices(seed, "prompt_embeddings", vocabulary, *tokens) {
                    rows.extend(numbers(table.clone().narrow(0, row, 1))?);
                }
                *decoder.prompt() = Some(parameter(rows, [*tokens, hidden], &device));
            }
        }
        Ok(decoder)
    }

    /// The same weights, in the same memory, without the adapter.
    #[must_use]
    pub fn base(&self) -> Self {
        let mut base = self.clone();
        detach(base.linears());
        *base.prompt() = None;
        base
    }

    pub fn is_adapted(&self) -> bool {
        let mut handle = self.clone();
        handle.prompt().is_some() || handle.linears().iter().any(|(_, linear)| linear.lora_A.is_some())
    }

    /// Whether weights are held in fewer bits: NF4, or the blocks of a GGUF file.
    pub fn is_quantized(&self) -> bool {
        self.is_in_blocks() || self.clone().linears().iter().any(|(_, linear)| linear.quantized.is_some())
    }

    /// The projections of the layers in 4-bit blocks (NF4), frozen, as the base of QLoRA
    /// ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)).
    ///
    /// # Errors
    /// When there is an adapter already, or values cannot be read from the device.
    pub fn quantized(mut self) -> Result<Self> {
        ensure!(!self.is_adapted(), "the base is quantized before it gets an adapter");
        for (_, linear) in self.linears() {
            let Some(weight) = linear.weight.take() else { continue };
            let (shape, values) = (weight.lazy_shape().dims(), numbers(weight.val())?);
            linear.quantized = Some(Quantized::nf4(&values, shape));
        }
        Ok(names::freeze(self, |_| true))
    }

    /// BLAKE3 of the base's names and values, for telling bases apart; that of a base in NF4 is of the values it was made from.
    ///
    /// # Errors
    /// When values cannot be read from the device, or are in the blocks of a GGUF file.
    pub fn weights_hash(&self) -> Result<String> {
        ensure!(!self.is_in_blocks(), "a model in blocks is known by its file; its values have no hash");
        let mut base = self.base();
        let mut all: Vec<(String, String)> = vec![];
        for (name, linear) in base.linears() {
            if let Some(Quantized::Nf4 { hash, .. }) = &linear.quantized {
                all.push((format!("{name}.weight"), hash.clone()));
            }
        }
        names::for_each(&base, |name, values| {
            let shape = values.shape().to_vec();
            let values = values.try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{name} of {shape:?}: {error:?}"))?;
            all.push((name.to_string(), hash(&values)));
            Ok(())
        })?;
        all.sort();
        let text: String = all.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
        Ok(danlu_files::hash_bytes(text.as_bytes()))
    }
}

/// How many parameters an adapter has on a model of this configuration; nothing is made.
///
/// # Errors
/// As [`Decoder::with_adapter`].
pub fn parameters(config: &DecoderConfig, spec: &AdapterSpec) -> Result<u64> {
    let spec = match spec {
        AdapterSpec::Prompt { tokens } => return Ok((tokens * config.hidden_size()) as u64),
        AdapterSpec::Lora(spec) => spec,
    };
    count(Decoder::empty(config, &Device::flex())?.linears(), spec)
}

/// The parameters of updates to these projections.
fn count(linears: Vec<Named<'_>>, spec: &LoraSpec) -> Result<u64> {
    let of_one = |[outputs, inputs]: [usize; 2]| spec.rank * (outputs + inputs) + if spec.dora { outputs } else { 0 };
    Ok(targets(linears, spec)?.iter().map(|(_, linear)| of_one(linear.dims()) as u64).sum())
}

/// A projection with its name.
type Named<'a> = (String, &'a mut Linear);

/// The projections that get an update.
fn targets<'a>(linears: Vec<Named<'a>>, spec: &LoraSpec) -> Result<Vec<Named<'a>>> {
    ensure!((1..=LIMIT).contains(&spec.rank), "a rank of {}; it may be from 1 to {LIMIT}", spec.rank);
    ensure!(spec.alpha.is_finite() && spec.alpha > 0.0, "an alpha of {}; it must be above zero", spec.alpha);
    for target in &spec.targets {
        let one = LoraSpec { targets: vec![target.clone()], ..spec.clone() };
        if !linears.iter().any(|(name, _)| one.wants(name)) {
            let mut known: Vec<&str> = linears.iter().filter_map(|(name, _)| name.rsplit('.').next()).chain([ALL]).collect();
            known.sort_unstable();
            known.dedup();
            let near = known.iter().max_by(|a, b| strsim::jaro_winkler(target, a).total_cmp(&strsim::jaro_winkler(target, b)));
            let near = near.copied().unwrap_or(ALL);
            bail!("{target:?} is no projection of this model; did you mean {near:?}? It has {}", known.join(", "));
        }
    }
    Ok(linears.into_iter().filter(|(name, _)| spec.wants(name)).collect())
}

fn attach(linears: Vec<Named<'_>>, spec: &LoraSpec, seed: u64, device: &Device) -> Result<()> {
    for (name, linear) in targets(linears, spec)? {
        let [outputs, inputs] = linear.dims();
        // PEFT's: A as PyTorch draws a linear layer, B zero, so that training begins at the base.
        let a = init::uniform(seed, &format!("{name}.lora_A.weight"), 1.0 / (inputs as f64).sqrt(), spec.rank * inputs);
        linear.lora_A = Some(Matrix { weight: parameter(a, [spec.rank, inputs], device) });
        linear.lora_B = Some(Matrix { weight: parameter(vec![0.0; outputs * spec.rank], [outputs, spec.rank], device) });
        linear.scale = spec.scale();
        if spec.dora {
            linear.lora_magnitude_vector = Some(parameter(lengths(linear)?, [outputs], device));
        }
    }
    Ok(())
}

fn detach(linears: Vec<Named<'_>>) {
    for (_, linear) in linears {
        (linear.lora_A, linear.lora_B, linear.lora_magnitude_vector) = (None, None, None);
    }
}

/// The length of each row of the weight.
fn lengths(linear: &Linear) -> Result<Vec<f32>> {
    let without = Projection { adapter: None, ..linear.projection() };
    let (weight, [_, inputs]) = (numbers(without.merged())?, linear.dims());
    Ok(weight.chunks_exact(inputs).map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32).collect())
}

fn parameter<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_data(TensorData::new(values, shape), device)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let values = tensor.try_into_data().map_err(|error| anyhow::anyhow!("values cannot be read from the device: {error:?}"))?;
    values.try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("weights are of 32-bit floats: {error:?}"))
}
