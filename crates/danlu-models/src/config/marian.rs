use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bounded;
use super::json::Keys;

/// The shape of an encoder and a decoder that translate, under the field names of `transformers`' Marian, and as its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct MarianConfig {
    pub vocab_size: usize,
    /// Channels of both streams.
    pub d_model: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub attention_heads: usize,
    pub ffn_dim: usize,
    /// The longest text on either side, in tokens.
    pub max_position_embeddings: usize,
    /// Fills up rows in other programs; it is never predicted.
    pub pad_token_id: u32,
    /// Ends a source and a translation; a translation begins with it too.
    pub eos_token_id: u32,
}

impl MarianConfig {
    /// The paper's proportions for a width, depth and context: as many layers on either side, a feed-forward layer of four times the width,
    /// heads of 64 channels or, in narrow models, 32.
    pub fn new(vocab_size: usize, d_model: usize, layers: usize, context: usize) -> Self {
        let head_dim = if d_model <= 256 { 32 } else { 64 };
        Self {
            vocab_size,
            d_model,
            encoder_layers: layers,
            decoder_layers: layers,
            attention_heads: (d_model / head_dim).max(1),
            ffn_dim: 4 * d_model,
            max_position_embeddings: context,
            pad_token_id: 0,
            eos_token_id: 0,
        }
    }

    /// Checks that the numbers make a model.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        bounded("vocab_size", self.vocab_size, 1 << 24)?;
        bounded("d_model", self.d_model, 1 << 18)?;
        bounded("encoder_ffn_dim", self.ffn_dim, 1 << 20)?;
        bounded("encoder_layers", self.encoder_layers, 1 << 12)?;
        bounded("decoder_layers", self.decoder_layers, 1 << 12)?;
        bounded("encoder_attention_heads", self.attention_heads, 1 << 12)?;
        bounded("max_position_embeddings", self.max_position_embeddings, 1 << 20)?;
        ensure!(
            self.d_model.is_multiple_of(self.attention_heads),
            "`d_model` ({}) must be a multiple of `encoder_attention_heads` ({})",
            self.d_model,
            self.attention_heads
        );
        ensure!(self.d_model.is_multiple_of(2), "`d_model` is {}; positions are pairs of a sine and a cosine", self.d_model);
        for (key, id) in [("pad_token_id", self.pad_token_id), ("eos_token_id", self.eos_token_id)] {
            ensure!((id as usize) < self.vocab_size, "`{key}` is {id}, and the vocabulary has {} entries", self.vocab_size);
        }
        Ok(())
    }

    /// Number of parameters; the embedding serves both sides and the output.
    pub fn parameters(&self) -> u64 {
        let (d, f) = (self.d_model as u64, self.ffn_dim as u64);
        let vectors = |attentions: u64| attentions * (4 * d + 2 * d) + f + d + 2 * d;
        let encoder = self.encoder_matrices() + vectors(1);
        let decoder = self.decoder_matrices() + vectors(2);
        self.vocab_size as u64 * d + self.encoder_layers as u64 * encoder + self.decoder_layers as u64 * decoder
    }

    fn encoder_matrices(&self) -> u64 {
        (4 * self.d_model * self.d_model + 2 * self.d_model * self.ffn_dim) as u64
    }

    fn decoder_matrices(&self) -> u64 {
        (8 * self.d_model * self.d_model + 2 * self.d_model * self.ffn_dim) as u64
    }

    /// Floating-point operations to train on one pair of a source and a translation of so many tokens: six for each pair of a token and a
    /// parameter that it passes, and for attention twelve for each pair of tokens and channel (six under a causal mask).
    pub fn flops_per_pair(&self, source: f64, target: f64) -> f64 {
        let (d, encoder, decoder) = (self.d_model as f64, self.encoder_layers as f64, self.decoder_layers as f64);
        // A decoder's keys and values of the source are of the source's tokens.
        let across = 2.0 * d * d;
        let of_source = encoder * self.encoder_matrices() as f64 + decoder * across;
        let of_target = decoder * (self.decoder_matrices() as f64 - across) + d * self.vocab_size as f64;
        let attention = d * (12.0 * encoder * source * source + decoder * (6.0 * target * target + 12.0 * source * target));
        6.0 * (source * of_source + target * of_target) + attention
    }
}

impl TryFrom<Value> for MarianConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        ensure!(
            keys.text("model_type")? == Some("marian"),
            "`model_type` is {:?}; the encoder and decoder that translate are marian",
            keys.text("model_type")?.unwrap_or("missing")
        );
        keys.only("activation_function", &["relu"])?;
        for needed in ["scale_embedding", "share_encoder_decoder_embeddings", "tie_word_embeddings"] {
            ensure!(keys.flag(needed)?.unwrap_or(true), "`{needed}` is false, which is not supported");
        }
        let same = |key: &str, other: &str| {
            let (one, two) = (keys.needed(key)?, keys.needed(other)?);
            ensure!(one == two, "`{key}` is {one} and `{other}` {two}; both sides must be alike here");
            Ok(one)
        };
        let token = |key: &str| keys.token(key)?.with_context(|| format!("`{key}` is missing"));
        let config = Self {
            vocab_size: keys.needed("vocab_size")?,
            d_model: keys.needed("d_model")?,
            encoder_layers: keys.needed("encoder_layers")?,
            decoder_layers: keys.needed("decoder_layers")?,
            attention_heads: same("encoder_attention_heads", "decoder_attention_heads")?,
            ffn_dim: same("encoder_ffn_dim", "decoder_ffn_dim")?,
            max_position_embeddings: keys.needed("max_position_embeddings")?,
            pad_token_id: token("pad_token_id")?,
            eos_token_id: token("eos_token_id")?,
        };
        let start = keys.token("decoder_start_token_id")?.unwrap_or(config.eos_token_id);
        ensure!(
            start == config.eos_token_id,
            "`decoder_start_token_id` is {start}; translations begin with `eos_token_id` ({}) here",
            config.eos_token_id
        );
        config.validate()?;
        Ok(config)
    }
}

impl From<MarianConfig> for Value {
    fn from(c: MarianConfig) -> Self {
        json!({
            "architectures": ["MarianMTModel"],
            "model_type": "marian",
            "is_encoder_decoder": true,
            "vocab_size": c.vocab_size,
            "decoder_vocab_size": c.vocab_size,
            "d_model": c.d_model,
            "encoder_layers": c.encoder_layers,
            "decoder_layers": c.decoder_layers,
            "num_hidden_layers": c.encoder_layers,
            "encoder_attention_heads": c.attention_heads,
            "decoder_attention_heads": c.attention_heads,
            "encoder_ffn_dim": c.ffn_dim,
            "decoder_ffn_dim": c.ffn_dim,
            "max_position_embeddings": c.max_position_embeddings,
            "activation_function": "relu",
            "scale_embedding": true,
            "share_encoder_decoder_embeddings": true,
            "tie_word_embeddings": true,
            "pad_token_id": c.pad_token_id,
            "bos_token_id": Value::Null,
            "eos_token_id": c.eos_token_id,
            "decoder_start_token_id": c.eos_token_id,
            "forced_eos_token_id": c.eos_token_id,
            // danlu trains without dropout, and so should whoever goes on from its models.
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "encoder_layerdrop": 0.0,
            "decoder_layerdrop": 0.0,
            "torch_dtype": "float32",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_what_is_not_computed_is_refused() {
        let config = MarianConfig { pad_token_id: 3, eos_token_id: 1, ..MarianConfig::new(100, 64, 2, 32) };
        let value = Value::from(config.clone());
        assert_eq!(MarianConfig::try_from(value.clone()).unwrap(), config);
        let check = |key: &str, wrong: Value, says: &str| {
            let mut value = value.clone();
            value[key] = wrong;
            let message = MarianConfig::try_from(value).unwrap_err().to_string();
            assert!(message.contains(says), "{key}: {message}");
        };
        check("model_type", json!("bart"), "bart");
        check("activation_function", json!("swish"), "`activation_function` is \"swish\"");
        check("scale_embedding", json!(false), "scale_embedding");
        check("decoder_ffn_dim", json!(7), "alike");
        check("decoder_start_token_id", json!(3), "begin with");
        check("pad_token_id", json!(100), "vocabulary has 100");
        check("vocab_size", json!(u64::MAX), "`vocab_size`");
    }

    #[test]
    fn a_pair_costs_six_operations_for_each_token_and_parameter() {
        // Short texts and a wide model: attention's own products are nothing, and every matrix counts once for its side.
        let config = MarianConfig::new(1000, 512, 2, 32);
        let matrices = (2 * (config.encoder_matrices() + config.decoder_matrices()) + 1000 * 512) as f64;
        let flops = config.flops_per_pair(1.0, 1.0);
        assert!((flops / (6.0 * matrices) - 1.0).abs() < 1e-3, "{flops}");
    }
}
