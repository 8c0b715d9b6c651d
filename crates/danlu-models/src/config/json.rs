//! `config.json` to [`DecoderConfig`] and back.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{DecoderConfig, Gpt2Config, LlamaConfig, RopeScaling};

impl TryFrom<Value> for DecoderConfig {
    type Error = anyhow::Error;

    fn try_from(value: Value) -> Result<Self> {
        let keys = Keys(value.as_object().context("a model's configuration must be a JSON object")?);
        ensure!(
            keys.get("quantization_config").is_none(),
            "`quantization_config`: quantized weights in this format are not read"
        );
        let config = match keys.text("model_type")?.context("`model_type` is missing")? {
            "llama" => Self::Llama(keys.llama(None)?),
            "qwen3" => Self::Qwen3(keys.llama(Some(128))?),
            "gpt2" => Self::Gpt2(keys.gpt2()?),
            other => bail!("`model_type` is \"{other}\"; the decoders here are llama, qwen3 and gpt2"),
        };
        config.validate()?;
        Ok(config)
    }
}

impl From<DecoderConfig> for Value {
    fn from(config: DecoderConfig) -> Self {
        let architecture = match config {
            DecoderConfig::Llama(_) => "LlamaForCausalLM",
            DecoderConfig::Qwen3(_) => "Qwen3ForCausalLM",
            DecoderConfig::Gpt2(_) => "GPT2LMHeadModel",
        };
        let mut value = json!({
            "architectures": [architecture],
            "model_type": config.model_type(),
            "vocab_size": config.vocab_size(),
            "tie_word_embeddings": config.tied(),
            "initializer_range": config.initializer_range(),
            "bos_token_id": config.bos_token_id(),
            "eos_token_id": token_ids(config.eos_token_id()),
            "torch_dtype": "float32",
        });
        let shape = match &config {
            DecoderConfig::Llama(c) => llama(c),
            DecoderConfig::Qwen3(c) => {
                let mut shape = llama(c);
                shape["use_sliding_window"] = json!(false);
                shape
            }
            DecoderConfig::Gpt2(c) => json!({
                "n_positions": c.n_positions,
                "n_embd": c.n_embd,
                "n_layer": c.n_layer,
                "n_head": c.n_head,
                "n_inner": c.n_inner,
                "layer_norm_epsilon": c.layer_norm_epsilon,
                "activation_function": "gelu_new",
                // danlu trains without dropout, and so should whoever goes on from its models.
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
            }),
        };
        if let (Value::Object(all), Value::Object(shape)) = (&mut value, shape) {
            all.extend(shape);
        }
        value
    }
}

fn llama(c: &LlamaConfig) -> Value {
    let scaling = match c.rope_scaling {
        RopeScaling::None => json!({"rope_type": "default"}),
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    };
    // transformers 4 reads `rope_theta` and `rope_scaling`; 5 reads `rope_parameters`, which holds both.
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(c.rope_theta);
    json!({
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": if c.rope_scaling == RopeScaling::None { Value::Null } else { scaling },
        "rope_parameters": parameters,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
    })
}

/// One id as a number, several as a list, none as null: what `transformers` writes.
fn token_ids(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    }
}

/// The keys of one JSON object. A key that is null counts as absent.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn llama(&self, default_head_dim: Option<usize>) -> Result<LlamaConfig> {
        self.only("hidden_act", &["silu", "swish"])?;
        for bias in ["attention_bias", "mlp_bias"] {
            ensure!(!self.flag(bias)?.unwrap_or(false), "`{bias}` is true; projections with biases are not supported here");
        }
        ensure!(
            !self.flag("use_sliding_window")?.unwrap_or(false),
            "`use_sliding_window` is true; only full attention is supported"
        );
        if let Some(layer) =
            self.get("layer_types").and_then(Value::as_array).and_then(|l| l.iter().find(|l| *l != "full_attention"))
        {
            bail!("`layer_types` has {layer}; only \"full_attention\" is supported");
        }
        let hidden_size = self.needed("hidden_size")?;
        let heads = self.needed("num_attention_heads")?;
        let head_dim = match (self.count("head_dim")?, default_head_dim) {
            (Some(given), _) => given,
            (None, Some(default)) => default,
            (None, None) => hidden_size / heads.max(1),
        };
        let (rope_theta, rope_scaling) = self.rope()?;
        Ok(LlamaConfig {
            vocab_size: self.needed("vocab_size")?,
            hidden_size,
            intermediate_size: self.needed("intermediate_size")?,
            num_hidden_layers: self.needed("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: self.count("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            max_position_embeddings: self.needed("max_position_embeddings")?,
            rms_norm_eps: self.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: self.flag("tie_word_embeddings")?.unwrap_or(false),
            initializer_range: self.number("initializer_range")?.unwrap_or(0.02),
            bos_token_id: self.token("bos_token_id")?,
            eos_token_id: self.tokens("eos_token_id")?,
        })
    }

    fn gpt2(&self) -> Result<Gpt2Config> {
        // The tanh form of GELU has two names.
        self.only("activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
        ensure!(
            self.flag("scale_attn_weights")?.unwrap_or(true),
            "`scale_attn_weights` is false; unscaled attention is not supported"
        );
        for variant in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
            ensure!(!self.flag(variant)?.unwrap_or(false), "`{variant}` is true, which is not supported");
        }
        let n_embd = self.needed("n_embd")?;
        Ok(Gpt2Config {
            vocab_size: self.needed("vocab_size")?,
            n_positions: self.needed("n_positions")?,
            n_embd,
            n_layer: self.needed("n_layer")?,
            n_head: self.needed("n_head")?,
            n_inner: self.count("n_inner")?.unwrap_or(n_embd.saturating_mul(4)),
            layer_norm_epsilon: self.number("layer_norm_epsilon")?.unwrap_or(1e-5),
            tie_word_embeddings: self.flag("tie_word_embeddings")?.unwrap_or(true),
            initializer_range: self.number("initializer_range")?.unwrap_or(0.02),
            bos_token_id: self.token("bos_token_id")?,
            eos_token_id: self.tokens("eos_token_id")?,
        })
    }

    /// Rope's base and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).
    fn rope(&self) -> Result<(f64, RopeScaling)> {
        let scaling = match (self.get("rope_parameters"), self.get("rope_scaling")) {
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => return Ok((self.number("rope_theta")?.unwrap_or(10_000.0), RopeScaling::None)),
        };
        let inner = Keys(scaling.as_object().context("rope's parameters must be an object")?);
        let theta = inner.number("rope_theta")?.or(self.number("rope_theta")?).unwrap_or(10_000.0);
        ensure!(
            inner.number("partial_rotary_factor")?.unwrap_or(1.0) == 1.0,
            "`partial_rotary_factor` other than 1 is not supported"
        );
        let kind = inner.text("rope_type")?.or(inner.text("type")?).unwrap_or("default");
        let factor = |key: &str| inner.number(key)?.with_context(|| format!("`{key}` is missing in rope's parameters"));
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: factor("factor")?,
                low_freq_factor: factor("low_freq_factor")?,
                high_freq_factor: factor("high_freq_factor")?,
                original_max_position_embeddings: inner.needed("original_max_position_embeddings")?,
            },
            other => bail!("rope of type \"{other}\" is not supported; default, linear and llama3 are"),
        };
        Ok((theta, scaling))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn only(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(found) if !allowed.contains(&found) => bail!("`{key}` is \"{found}\"; supported: {}", allowed.join(", ")),
            _ => Ok(()),
        }
    }

    pub(super) fn needed(&self, key: &str) -> Result<usize> {
        self.count(key)?.with_context(|| format!("`{key}` is missing"))
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// Some configurations say "no token" with -1.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.tokens(key)?.first().copied())
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let read = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect::<Option<Vec<_>>>(),
            one if one.as_i64() == Some(-1) => Some(vec![]),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(read.unwrap_or_default())
    }

    fn typed<T>(&self, key: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => bail!("`{key}` must be {what}; it is {}", value.to_string().chars().take(80).collect::<String>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<DecoderConfig> {
        DecoderConfig::try_from(value)
    }

    fn tiny_llama() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 5000.0, "eos_token_id": [1, 2], "some_future_key": {"a": 1},
        })
    }

    fn with(mut value: Value, key: &str, new: Value) -> Value {
        value[key] = new;
        value
    }

    #[test]
    fn what_is_written_is_read_back() {
        let scaled = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_theta": 5000.0});
        let gpt2 = json!({"model_type": "gpt2", "vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2});
        for value in [
            tiny_llama(),
            with(tiny_llama(), "rope_parameters", scaled),
            with(tiny_llama(), "rope_scaling", json!({"type": "linear", "factor": 2.0})),
            with(with(tiny_llama(), "model_type", json!("qwen3")), "head_dim", json!(16)),
            gpt2,
        ] {
            let config = parse(value).unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<DecoderConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let DecoderConfig::Llama(config) = parse(tiny_llama()).unwrap() else { panic!("not llama") };
        assert_eq!((config.head_dim, config.rope_theta, config.tie_word_embeddings), (8, 5000.0, false));
        assert_eq!(config.eos_token_id, [1, 2]);
        let DecoderConfig::Qwen3(config) = parse(with(tiny_llama(), "model_type", json!("qwen3"))).unwrap() else { panic!() };
        assert_eq!(config.head_dim, 128);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let check = |key: &str, value: Value, says: &str| {
            let message = parse(with(tiny_llama(), key, value)).unwrap_err().to_string();
            assert!(message.contains(says), "{key}: {message}");
        };
        check("model_type", json!("mamba"), "mamba");
        check("model_type", Value::Null, "`model_type` is missing");
        check("hidden_act", json!("gelu"), "`hidden_act` is \"gelu\"");
        check("attention_bias", json!(true), "`attention_bias`");
        check("use_sliding_window", json!(true), "sliding");
        check("layer_types", json!(["full_attention", "sliding_attention"]), "sliding_attention");
        check("rope_scaling", json!({"rope_type": "yarn", "factor": 2}), "yarn");
        check("rope_scaling", json!({"rope_type": "llama3", "factor": 2}), "low_freq_factor");
        check("quantization_config", json!({"bits": 4}), "quantization_config");
        check("vocab_size", json!(-3), "`vocab_size` must be a whole number");
        check("vocab_size", json!(0), "from 1 to");
        check("hidden_size", json!(u64::MAX), "`hidden_size`");
        check("num_hidden_layers", json!(1_000_000_000), "`num_hidden_layers` must be from 1");
        check("num_key_value_heads", json!(3), "multiple of `num_key_value_heads`");
        check("head_dim", json!(7), "must be even");
        check("rms_norm_eps", json!(0), "positive");
        assert!(parse(json!([1])).is_err());
    }
}
