use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::Keys;
use super::{bounded, positive};

/// The shape of a BERT encoder, under the field names of `transformers`, and as its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// The longest text, in tokens: positions are learned, one vector each.
    pub max_position_embeddings: usize,
    /// Texts that can stand beside each other.
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub initializer_range: f64,
    pub pad_token_id: Option<u32>,
}

impl BertConfig {
    /// The paper's shape for a width, depth and context: a feed-forward layer of four times the width, heads of 64 or, in narrow models, 32.
    pub fn new(vocab_size: usize, hidden_size: usize, layers: usize, context: usize) -> Self {
        let head_dim = if hidden_size <= 256 { 32 } else { 64 };
        Self {
            vocab_size,
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: (hidden_size / head_dim).max(1),
            intermediate_size: 4 * hidden_size,
            max_position_embeddings: context,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            initializer_range: 0.02,
            pad_token_id: None,
        }
    }

    /// Checks that the numbers make a model.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        bounded("vocab_size", self.vocab_size, 1 << 24)?;
        bounded("hidden_size", self.hidden_size, 1 << 18)?;
        bounded("intermediate_size", self.intermediate_size, 1 << 20)?;
        bounded("num_hidden_layers", self.num_hidden_layers, 1 << 12)?;
        bounded("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        bounded("max_position_embeddings", self.max_position_embeddings, 1 << 20)?;
        bounded("type_vocab_size", self.type_vocab_size, 1 << 8)?;
        ensure!(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "`hidden_size` ({}) must be a multiple of `num_attention_heads` ({})",
            self.hidden_size,
            self.num_attention_heads
        );
        positive("layer_norm_eps", self.layer_norm_eps)?;
        positive("initializer_range", self.initializer_range)
    }

    /// Number of parameters of the embeddings and layers, without any head.
    pub fn parameters(&self) -> u64 {
        let hidden = self.hidden_size as u64;
        let embeddings = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) as u64 * hidden + 2 * hidden;
        // Biases of the six projections, and two norms.
        let vectors = 9 * hidden + self.intermediate_size as u64;
        embeddings + self.num_hidden_layers as u64 * (self.matrix_parameters_per_layer() + vectors)
    }

    /// Floating-point operations to train on one token of a text of `context` tokens; see [`super::DecoderConfig::flops_per_token`]. No mask
    /// leaves anything of attention out.
    pub fn flops_per_token(&self, context: usize) -> f64 {
        let layers = self.num_hidden_layers as f64;
        6.0 * layers * self.matrix_parameters_per_layer() as f64 + 12.0 * layers * (self.hidden_size * context) as f64
    }

    fn matrix_parameters_per_layer(&self) -> u64 {
        (4 * self.hidden_size * self.hidden_size + 2 * self.hidden_size * self.intermediate_size) as u64
    }
}

impl TryFrom<Value> for BertConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        ensure!(
            keys.text("model_type")? == Some("bert"),
            "`model_type` is {:?}; the encoder here is bert",
            keys.text("model_type")?.unwrap_or("missing")
        );
        ensure!(
            keys.get("quantization_config").is_none(),
            "`quantization_config`: quantized weights in this format are not read"
        );
        keys.only("hidden_act", &["gelu"])?;
        keys.only("position_embedding_type", &["absolute"])?;
        for variant in ["is_decoder", "add_cross_attention"] {
            ensure!(!keys.flag(variant)?.unwrap_or(false), "`{variant}` is true, which is not supported");
        }
        // The defaults are those of transformers, which are the paper's base model.
        let config = Self {
            vocab_size: keys.count("vocab_size")?.unwrap_or(30_522),
            hidden_size: keys.count("hidden_size")?.unwrap_or(768),
            num_hidden_layers: keys.count("num_hidden_layers")?.unwrap_or(12),
            num_attention_heads: keys.count("num_attention_heads")?.unwrap_or(12),
            intermediate_size: keys.count("intermediate_size")?.unwrap_or(3072),
            max_position_embeddings: keys.count("max_position_embeddings")?.unwrap_or(512),
            type_vocab_size: keys.count("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: keys.number("layer_norm_eps")?.unwrap_or(1e-12),
            initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
            pad_token_id: keys.token("pad_token_id")?,
        };
        config.validate()?;
        Ok(config)
    }
}

impl From<BertConfig> for Value {
    fn from(c: BertConfig) -> Self {
        json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": c.vocab_size,
            "hidden_size": c.hidden_size,
            "num_hidden_layers": c.num_hidden_layers,
            "num_attention_heads": c.num_attention_heads,
            "intermediate_size": c.intermediate_size,
            "max_position_embeddings": c.max_position_embeddings,
            "type_vocab_size": c.type_vocab_size,
            "layer_norm_eps": c.layer_norm_eps,
            "initializer_range": c.initializer_range,
            "pad_token_id": c.pad_token_id,
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            // danlu trains without dropout, and so should whoever goes on from its models.
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_what_is_not_computed_is_refused() {
        let config = BertConfig { pad_token_id: Some(3), ..BertConfig::new(100, 64, 2, 32) };
        let value = Value::from(config.clone());
        assert_eq!(BertConfig::try_from(value.clone()).unwrap(), config);
        let check = |key: &str, wrong: Value, says: &str| {
            let mut value = value.clone();
            value[key] = wrong;
            let message = BertConfig::try_from(value).unwrap_err().to_string();
            assert!(message.contains(says), "{key}: {message}");
        };
        check("model_type", json!("roberta"), "roberta");
        check("hidden_act", json!("relu"), "`hidden_act` is \"relu\"");
        check("position_embedding_type", json!("relative_key"), "relative_key");
        check("is_decoder", json!(true), "is_decoder");
        check("num_attention_heads", json!(7), "multiple of `num_attention_heads`");
        check("vocab_size", json!(u64::MAX), "`vocab_size`");
    }
}
