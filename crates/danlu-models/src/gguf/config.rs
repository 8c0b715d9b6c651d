//! Metadata to [`DecoderConfig`].

use anyhow::{Context, Result, bail, ensure};

use super::{Gguf, Value};
use crate::{DecoderConfig, Gpt2Config, LlamaConfig, RopeScaling};

/// Rope's tables may take this much memory, or as much as the file, whichever is more: the length of the context is only a number in it.
const ROPE_BYTES: usize = 64 << 20;

/// The configuration of the decoder in a file.
///
/// # Errors
/// Names the key that is missing, of another kind, or that asks for what danlu does not compute.
pub fn config(gguf: &Gguf) -> Result<DecoderConfig> {
    let read = || {
        let architecture = gguf.get("general.architecture").and_then(Value::as_str);
        let architecture = architecture.context("`general.architecture` is missing, so that the kind of model is not known")?;
        let keys = Keys { gguf, architecture };
        let config = match architecture {
            "llama" => DecoderConfig::Llama(keys.llama()?),
            "qwen3" => DecoderConfig::Qwen3(keys.llama()?),
            "gpt2" => DecoderConfig::Gpt2(keys.gpt2()?),
            other => bail!("`general.architecture` is \"{other}\"; the decoders here are llama, qwen3 and gpt2"),
        };
        config.validate()?;
        keys.check_size(&config)?;
        Ok(config)
    };
    read().map_err(|error: anyhow::Error| error.context(format!("in the metadata of {}", gguf.path().display())))
}

struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn llama(&self) -> Result<LlamaConfig> {
        for experts in ["expert_count", "expert_used_count"] {
            ensure!(
                self.count(experts)?.unwrap_or(0) == 0,
                "`{}` is not 0; mixtures of experts are not supported",
                self.name(experts)
            );
        }
        let hidden_size = self.needed("embedding_length")?;
        let heads = self.needed("attention.head_count")?;
        let head_dim = match self.count("attention.key_length")? {
            Some(given) => given,
            None => hidden_size / heads.max(1),
        };
        for (key, what) in [("attention.value_length", "values"), ("rope.dimension_count", "rope")] {
            let other = self.count(key)?.unwrap_or(head_dim);
            ensure!(
                other == head_dim,
                "`{}` is {other} and heads have {head_dim} channels; {what} of a part of them are not supported",
                self.name(key)
            );
        }
        ensure!(
            self.count("attention.sliding_window")?.unwrap_or(0) == 0,
            "`{}` is set; only full attention is supported",
            self.name("attention.sliding_window")
        );
        Ok(LlamaConfig {
            vocab_size: self.vocabulary()?,
            hidden_size,
            intermediate_size: self.needed("feed_forward_length")?,
            num_hidden_layers: self.needed("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: self.count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            max_position_embeddings: self.needed("context_length")?,
            rms_norm_eps: self.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
            rope_theta: self.number("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling(head_dim)?,
            tie_word_embeddings: self.tied()?,
            initializer_range: 0.02,
            bos_token_id: self.token("bos")?,
            eos_token_id: self.token("eos")?.into_iter().collect(),
        })
    }

    fn gpt2(&self) -> Result<Gpt2Config> {
        let n_embd = self.needed("embedding_length")?;
        Ok(Gpt2Config {
            vocab_size: self.vocabulary()?,
            n_positions: self.needed("context_length")?,
            n_embd,
            n_layer: self.needed("block_count")?,
            n_head: self.needed("attention.head_count")?,
            n_inner: self.count("feed_forward_length")?.unwrap_or(n_embd.saturating_mul(4)),
            layer_norm_epsilon: self.number("attention.layer_norm_epsilon")?.unwrap_or(1e-5),
            tie_word_embeddings: self.tied()?,
            initializer_range: 0.02,
            bos_token_id: self.token("bos")?,
            eos_token_id: self.token("eos")?.into_iter().collect(),
        })
    }

    /// The rows of the embedding are what the model has, whatever a key says.
    fn vocabulary(&self) -> Result<usize> {
        match self.gguf.shape("token_embd.weight") {
            Some([vocabulary, _]) => Ok(*vocabulary),
            Some(other) => bail!("token_embd.weight has the shape {other:?}, not that of an embedding"),
            None => bail!("there is no tensor token_embd.weight"),
        }
    }

    /// Without an output projection the embedding serves; some files hold it a second time.
    fn tied(&self) -> Result<bool> {
        if self.gguf.shape("output.weight").is_none() {
            return Ok(true);
        }
        let (output, embedding) = (self.gguf.tensor("output.weight")?, self.gguf.tensor("token_embd.weight")?);
        Ok((output.format(), output.shape(), output.bytes()) == (embedding.format(), embedding.shape(), embedding.bytes()))
    }

    fn rope_scaling(&self, head_dim: usize) -> Result<RopeScaling> {
        let kind = self.text("rope.scaling.type")?.unwrap_or("none");
        let factor = self.number("rope.scaling.factor")?.or(self.number("rope.scale_linear")?);
        let scaling = match (kind, factor) {
            ("none", _) => RopeScaling::None,
            ("linear", Some(factor)) => RopeScaling::Linear { factor },
            ("linear", None) => bail!("`{}` is missing", self.name("rope.scaling.factor")),
            (other, _) => bail!("rope scaling of type \"{other}\" is not supported; none, linear and Llama 3's are"),
        };
        match (self.gguf.shape("rope_freqs.weight"), scaling) {
            (None, scaling) => Ok(scaling),
            (Some(_), RopeScaling::None) => self.llama3(head_dim),
            (Some(_), _) => bail!("rope is scaled both linearly and by rope_freqs.weight"),
        }
    }

    /// Llama 3.1's scaling is in the file as one divisor for each frequency. The rule they come from is found again, since that is what
    /// `config.json` can say; divisors that do not come from it are refused.
    fn llama3(&self, head_dim: usize) -> Result<RopeScaling> {
        let divisors = self.gguf.tensor("rope_freqs.weight")?;
        ensure!(
            divisors.shape() == [head_dim / 2],
            "rope_freqs.weight has the shape {:?}, not [{}]",
            divisors.shape(),
            head_dim / 2
        );
        let divisors = divisors.dequantize();
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let factor = divisors.iter().fold(1.0f32, |most, x| most.max(*x));
        let factor = f64::from(factor);
        for original in [8192, 4096, 2048, 16_384, 32_768, 1024, 512, 256, 128, 64, 32, 16] {
            let rule = RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: original,
            };
            let expected = rule.divisors(theta, head_dim);
            if divisors.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() <= 1e-3 * expected) {
                return Ok(rule);
            }
        }
        bail!("rope_freqs.weight scales rope by another rule than Llama 3.1's, which is not supported")
    }

    /// Refuses numbers that ask for more than the file can be for, before anything is made after them.
    fn check_size(&self, config: &DecoderConfig) -> Result<()> {
        let (layers, context) = (config.layers(), config.context());
        let last = format!("blk.{}.attn_norm.weight", layers - 1);
        ensure!(self.gguf.shape(&last).is_some(), "`{}` is {layers}, and there is no tensor {last}", self.name("block_count"));
        let (DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c)) = config else { return Ok(()) };
        let queries = self.gguf.shape("blk.0.attn_q.weight");
        let expected = [c.num_attention_heads * c.head_dim, c.hidden_size];
        ensure!(queries == Some(&expected), "blk.0.attn_q.weight has the shape {queries:?}; the metadata makes it {expected:?}");
        let tables = context.saturating_mul(c.head_dim).saturating_mul(size_of::<f32>());
        ensure!(
            tables <= ROPE_BYTES.max(self.gguf.bytes()),
            "`{}` is {context}, which would take more memory than the file has bytes",
            self.name("context_length")
        );
        Ok(())
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn needed(&self, key: &str) -> Result<usize> {
        self.count(key)?.with_context(|| format!("`{}` is missing", self.name(key)))
    }

    /// A whole number, or a list that says the same one for every layer.
    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| {
            let one = match value.as_array() {
                None => value.as_u64(),
                Some(list) => {
                    let first = list.values().next().and_then(Value::as_u64);
                    first.filter(|_| list.values().all(|value| value.as_u64() == first))
                }
            };
            one.and_then(|n| usize::try_from(n).ok())
        })
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| value.as_f64().or(value.as_u64().map(|n| n as f64)))
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    fn token(&self, which: &str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{which}_token_id");
        let Some(value) = self.gguf.get(&key) else { return Ok(None) };
        // -1 stands for "none".
        if value.as_i64() == Some(-1) || value == Value::U32(u32::MAX) {
            return Ok(None);
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(Some(id.with_context(|| format!("`{key}` must be a token's id; it is {value:?}"))?))
    }

    fn typed<'v, T>(&'v self, key: &str, what: &str, read: impl FnOnce(Value<'v>) -> Option<T>) -> Result<Option<T>> {
        let name = self.name(key);
        let Some(value) = self.gguf.get(&name) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => bail!("`{name}` must be {what}; it is {}", format!("{value:?}").chars().take(80).collect::<String>()),
        }
    }
}
