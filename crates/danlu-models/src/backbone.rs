//! What a head can stand on: any decoder or encoder.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bert::{Bert, BertHeads};
use crate::classifier::Texts;
use crate::config::{BertConfig, DecoderConfig, HeadConfig, Task};
use crate::{Batch, Decoder, init, names};

/// A network that turns tokens into states.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a program, and both are handles to weights")]
pub enum Backbone {
    Decoder(Decoder),
    Bert(Bert),
}

/// The configuration of any backbone, as its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum BackboneConfig {
    Decoder(DecoderConfig),
    Bert(BertConfig),
}

impl Backbone {
    /// With initial weights, without the parts that say words.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &BackboneConfig, seed: u64, device: &Device) -> Result<Self> {
        Ok(match config {
            BackboneConfig::Decoder(config) => Self::Decoder(Decoder::new(&config.clone().without_head(), seed, device)?),
            BackboneConfig::Bert(config) => Self::Bert(Bert::new(config, BertHeads::default(), seed, device)?),
        })
    }

    pub(crate) fn empty(config: &BackboneConfig, pooler: bool, device: &Device) -> Result<Self> {
        Ok(match config {
            BackboneConfig::Decoder(config) => Self::Decoder(Decoder::empty(&config.clone().without_head(), device)?),
            BackboneConfig::Bert(config) => {
                config.validate()?;
                Self::Bert(Bert::empty(config, BertHeads { pooler, masked_lm: false }, device))
            }
        })
    }

    /// The same weights, without the parts that say words, and with the pooler that the head asks for: its own, or a new one.
    pub(crate) fn under_head(self, config: &BackboneConfig, head: &HeadConfig, seed: u64, device: &Device) -> Result<Self> {
        let mut bert = match self {
            Self::Decoder(decoder) => return Ok(Self::Decoder(decoder.without_head())),
            Self::Bert(bert) => bert,
        };
        bert.cls = None;
        if !head.pools(config) {
            bert.bert.pooler = None;
        } else if bert.bert.pooler.is_none()
            && let Self::Bert(fresh) = Self::empty(config, true, device)?
        {
            let values = |name: &str, shape: &[usize]| {
                Ok(init::values(seed, &format!("bert.pooler.{name}"), shape, config.initializer_range(), 1))
            };
            bert.bert.pooler = fresh.bert.pooler.map(|pooler| names::fill(pooler, values)).transpose()?;
        }
        Ok(Self::Bert(bert))
    }

    /// The last layer's output, `[tokens, hidden]`. With `recompute` only each layer's input is kept for the backward pass.
    ///
    /// # Panics
    /// When a token is outside the vocabulary, or a text is longer than [`Backbone::context`].
    pub fn hidden(&self, texts: &Texts, recompute: bool) -> Tensor<2> {
        match self {
            Self::Decoder(decoder) => {
                let targets = vec![danlu_ops::IGNORE; texts.ids.len()].into();
                let batch = Batch { ids: texts.ids.clone(), targets, segments: texts.segments.clone(), shared: None };
                if recompute { decoder.hidden_recomputed(&batch) } else { decoder.hidden(&batch) }
            }
            Self::Bert(bert) => bert.hidden(&texts.ids, Some(&texts.kinds), &texts.segments, recompute),
        }
    }

    /// What stands for a text, from the state of its first token, `[texts, hidden]`.
    pub(crate) fn pooled(&self, first: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Decoder(_) => first,
            Self::Bert(bert) => bert.pooled(first),
        }
    }

    /// The longest text it can read, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Decoder(decoder) => decoder.context(),
            Self::Bert(bert) => bert.context(),
        }
    }
}

impl BackboneConfig {
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Decoder(config) => config.model_type(),
            Self::Bert(_) => "bert",
        }
    }

    /// How its classes in `transformers` begin.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Decoder(config) => config.class(),
            Self::Bert(_) => "Bert",
        }
    }

    /// Whether the head is called `score` in `transformers`; else it is `classifier`.
    pub(crate) fn scores(&self, task: Task) -> bool {
        match self {
            Self::Decoder(DecoderConfig::Gpt2(_)) => task != Task::Tags,
            Self::Decoder(_) => true,
            Self::Bert(_) => false,
        }
    }

    /// Checks that the numbers make a model.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Decoder(config) => config.validate(),
            Self::Bert(config) => config.validate(),
        }
    }

    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.vocab_size(),
            Self::Bert(config) => config.vocab_size,
        }
    }

    pub fn layers(&self) -> usize {
        match self {
            Self::Decoder(config) => config.layers(),
            Self::Bert(config) => config.num_hidden_layers,
        }
    }

    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.hidden_size(),
            Self::Bert(config) => config.hidden_size,
        }
    }

    /// The longest text, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Decoder(config) => config.context(),
            Self::Bert(config) => config.max_position_embeddings,
        }
    }

    pub fn initializer_range(&self) -> f64 {
        match self {
            Self::Decoder(config) => config.initializer_range(),
            Self::Bert(config) => config.initializer_range,
        }
    }

    /// Parameters of the embeddings and layers, without any head.
    pub fn parameters(&self) -> u64 {
        match self {
            Self::Decoder(config) => config.clone().without_head().parameters(),
            Self::Bert(config) => config.parameters(),
        }
    }

    /// Floating-point operations to train on one token of a text of `context` tokens, without any head.
    pub fn flops_per_token(&self, context: usize) -> f64 {
        match self {
            // The output projection is of no use here.
            Self::Decoder(config) => config.flops_per_token(context) - 6.0 * (config.vocab_size() * config.hidden_size()) as f64,
            Self::Bert(config) => config.flops_per_token(context),
        }
    }

    /// As it is under another head.
    pub(crate) fn headless(&self) -> Self {
        match self {
            Self::Decoder(config) => Self::Decoder(config.clone().without_head()),
            Self::Bert(config) => Self::Bert(config.clone()),
        }
    }
}

impl TryFrom<Value> for BackboneConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        if value["model_type"] == "bert" { Ok(Self::Bert(value.try_into()?)) } else { Ok(Self::Decoder(value.try_into()?)) }
    }
}

impl From<BackboneConfig> for Value {
    fn from(config: BackboneConfig) -> Self {
        match config {
            BackboneConfig::Decoder(config) => config.into(),
            BackboneConfig::Bert(config) => config.into(),
        }
    }
}
