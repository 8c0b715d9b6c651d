use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::Keys;
use super::{VitConfig, bounded};

/// The key that says that the head gives embeddings and not the logits of classes.
pub(crate) const EMBEDDING: &str = "embedding_size";

/// The shape of a Vision Transformer whose head gives an embedding. Its `config.json` is that of a classifier of `transformers` with as many
/// outputs: what that gives as logits is the embedding before it is brought to length 1, and has the same cosines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct VitEmbedderConfig {
    /// The encoder, which has no classes.
    pub vit: VitConfig,
    /// Numbers of an embedding.
    pub embedding_size: usize,
}

impl VitEmbedderConfig {
    /// Checks that the numbers make a network.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.vit.validate()?;
        bounded(EMBEDDING, self.embedding_size, 1 << 14)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.vit.parameters() + (self.embedding_size * (self.vit.hidden_size + 1)) as u64
    }

    /// Floating-point operations to train on one picture of which `kept` patches are seen, beside `identities` others.
    pub fn flops(&self, kept: usize, identities: usize) -> f64 {
        self.vit.flops(kept) + 6.0 * (self.embedding_size * (self.vit.hidden_size + identities)) as f64
    }
}

impl TryFrom<Value> for VitEmbedderConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        let embedding_size = keys.needed(EMBEDDING)?;
        let config = Self { vit: VitConfig::try_from(value)?, embedding_size };
        config.validate()?;
        Ok(config)
    }
}

impl From<VitEmbedderConfig> for Value {
    fn from(config: VitEmbedderConfig) -> Self {
        let mut value = Self::from(config.vit);
        value[EMBEDDING] = json!(config.embedding_size);
        value["num_labels"] = json!(config.embedding_size);
        value
    }
}
