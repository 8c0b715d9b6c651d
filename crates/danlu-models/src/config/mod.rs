//! Configurations of decoders: the `config.json` of `transformers`, read strictly and written so that both its fourth and its
//! fifth generation read it.

mod bert;
mod dense;
mod embedder;
mod gan;
mod head;
mod json;
mod lenet;
mod mae;
mod marian;
mod vit;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

pub use bert::BertConfig;
pub use dense::{DenseConfig, DenseTask};
pub(crate) use embedder::EMBEDDING;
pub use embedder::VitEmbedderConfig;
pub use gan::{GanConfig, GanForm};
pub use head::{HeadConfig, Pooling, Task};
pub(crate) use lenet::Stage;
pub use lenet::{LenetConfig, LenetForm};
pub use mae::MaeConfig;
pub use marian::MarianConfig;
pub use vit::VitConfig;

/// Which decoder, and its shape. Serialized as the `config.json` of `transformers`: `model_type` says the variant.
///
/// Reading refuses what danlu does not compute (sliding windows, biases in Llama's projections, other activations, other kinds of
/// rope scaling): a model that loads gives the logits `transformers` gives. Keys that do not change logits are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum DecoderConfig {
    /// [Touvron et al. 2023](https://arxiv.org/abs/2302.13971), with the grouped queries of
    /// [Llama 2](https://arxiv.org/abs/2307.09288).
    Llama(LlamaConfig),
    /// [Qwen3](https://arxiv.org/abs/2505.09388): Llama's block with RMSNorm on each head's queries and keys.
    Qwen3(Qwen3Config),
    /// [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).
    Gpt2(Gpt2Config),
}

/// The shape of a Llama decoder, under the field names of `transformers`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Heads of keys and values; equal to `num_attention_heads` without grouped queries.
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    /// The longest context, in tokens.
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// The output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; several in some chat models.
    pub eos_token_id: Vec<u32>,
}

/// Qwen3 has Llama's fields; the variant of [`DecoderConfig`] says that queries and keys are normalized.
pub type Qwen3Config = LlamaConfig;

/// How rope's frequencies are changed for contexts longer than the ones trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RopeScaling {
    #[default]
    None,
    /// Every frequency divided by `factor` (position interpolation, [Chen et al. 2023](https://arxiv.org/abs/2306.15595)).
    Linear { factor: f64 },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, those between interpolated
    /// ([Grattafiori et al. 2024](https://arxiv.org/abs/2407.21783)).
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: usize },
}

impl RopeScaling {
    /// What each of the `head_dim / 2` frequencies of base `theta` is divided by.
    pub fn divisors(self, theta: f64, head_dim: usize) -> Vec<f64> {
        let half = head_dim / 2;
        let divisor = |i: usize| match self {
            Self::None => 1.0,
            Self::Linear { factor } => factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let frequency = theta.powf(-(i as f64) / half as f64);
                // How often the frequency turns within the context of pretraining.
                let turns = original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                1.0 / (kept + (1.0 - kept) / factor)
            }
        };
        (0..half).map(divisor).collect()
    }
}

/// The shape of a GPT-2 decoder, under the field names of `transformers`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    pub vocab_size: usize,
    /// The longest context, in tokens: positions are learned, one vector each.
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Width of the feed-forward layer, `4 × n_embd` in the paper.
    pub n_inner: usize,
    pub layer_norm_epsilon: f64,
    pub tie_word_embeddings: bool,
    pub initializer_range: f64,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Vec<u32>,
}

impl LlamaConfig {
    /// A shape with the defaults of the field for the rest: SwiGLU of 8/3 the width rounded up to a multiple of 64, heads of `head_dim`,
    /// no grouped queries, untied embeddings, rope base 10,000.
    pub fn new(vocab_size: usize, hidden_size: usize, layers: usize, head_dim: usize, context: usize) -> Self {
        let heads = (hidden_size / head_dim).max(1);
        Self {
            vocab_size,
            hidden_size,
            intermediate_size: (hidden_size * 8 / 3).next_multiple_of(64),
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim,
            max_position_embeddings: context,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: vec![],
        }
    }

    fn validate(&self) -> Result<()> {
        bounded("vocab_size", self.vocab_size, 1 << 24)?;
        bounded("hidden_size", self.hidden_size, 1 << 18)?;
        bounded("intermediate_size", self.intermediate_size, 1 << 20)?;
        bounded("num_hidden_layers", self.num_hidden_layers, 1 << 12)?;
        bounded("num_attention_heads", self.num_attention_heads, 1 << 12)?;
        bounded("num_key_value_heads", self.num_key_value_heads, 1 << 12)?;
        bounded("head_dim", self.head_dim, 1 << 12)?;
        bounded("max_position_embeddings", self.max_position_embeddings, 1 << 20)?;
        ensure!(
            self.num_attention_heads.is_multiple_of(self.num_key_value_heads),
            "`num_attention_heads` ({}) must be a multiple of `num_key_value_heads` ({})",
            self.num_attention_heads,
            self.num_key_value_heads
        );
        ensure!(self.head_dim.is_multiple_of(2), "`head_dim` must be even for rope; it is {}", self.head_dim);
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        positive("initializer_range", self.initializer_range)?;
        match self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor", high_freq_factor)?;
                ensure!(high_freq_factor > low_freq_factor, "`high_freq_factor` must be larger than `low_freq_factor`");
                bounded("original_max_position_embeddings", original_max_position_embeddings, 1 << 20)
            }
        }
    }
}

impl Gpt2Config {
    /// The paper's shape for a width, depth and context: heads of 64, a feed-forward layer of four times the width, tied embeddings.
    pub fn new(vocab_size: usize, n_embd: usize, n_layer: usize, context: usize) -> Self {
        Self {
            vocab_size,
            n_positions: context,
            n_embd,
            n_layer,
            n_head: (n_embd / 64).max(1),
            n_inner: 4 * n_embd,
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: vec![],
        }
    }

    fn validate(&self) -> Result<()> {
        bounded("vocab_size", self.vocab_size, 1 << 24)?;
        bounded("n_positions", self.n_positions, 1 << 20)?;
        bounded("n_embd", self.n_embd, 1 << 18)?;
        bounded("n_layer", self.n_layer, 1 << 12)?;
        bounded("n_head", self.n_head, 1 << 12)?;
        bounded("n_inner", self.n_inner, 1 << 20)?;
        ensure!(
            self.n_embd.is_multiple_of(self.n_head),
            "`n_embd` ({}) must be a multiple of `n_head` ({})",
            self.n_embd,
            self.n_head
        );
        positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        positive("initializer_range", self.initializer_range)
    }
}

impl DecoderConfig {
    /// Checks that the numbers make a model: each within its bounds, and those that must divide each other doing so.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.validate(),
            Self::Gpt2(config) => config.validate(),
        }
    }

    /// How its classes in `transformers` begin.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Llama(_) => "Llama",
            Self::Qwen3(_) => "Qwen3",
            Self::Gpt2(_) => "GPT2",
        }
    }

    /// The name of the architecture as `transformers` has it in `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Llama(_) => "llama",
            Self::Qwen3(_) => "qwen3",
            Self::Gpt2(_) => "gpt2",
        }
    }

    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
        }
    }

    pub fn layers(&self) -> usize {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
        }
    }

    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.hidden_size,
            Self::Gpt2(config) => config.n_embd,
        }
    }

    /// The longest context, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
        }
    }

    /// The output projection is the embedding.
    pub fn tied(&self) -> bool {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.tie_word_embeddings,
            Self::Gpt2(config) => config.tie_word_embeddings,
        }
    }

    /// The same with another number of layers.
    #[must_use]
    pub fn with_layers(&self, count: usize) -> Self {
        let mut config = self.clone();
        match &mut config {
            Self::Llama(config) | Self::Qwen3(config) => config.num_hidden_layers = count,
            Self::Gpt2(config) => config.n_layer = count,
        }
        config
    }

    /// The same with another number of entries in the vocabulary.
    #[must_use]
    pub fn with_vocabulary(mut self, entries: usize) -> Self {
        match &mut self {
            Self::Llama(config) | Self::Qwen3(config) => config.vocab_size = entries,
            Self::Gpt2(config) => config.vocab_size = entries,
        }
        self
    }

    /// The same without an output projection of its own.
    #[must_use]
    pub(crate) fn without_head(mut self) -> Self {
        match &mut self {
            Self::Llama(config) | Self::Qwen3(config) => config.tie_word_embeddings = true,
            Self::Gpt2(config) => config.tie_word_embeddings = true,
        }
        self
    }

    pub fn bos_token_id(&self) -> Option<u32> {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.bos_token_id,
            Self::Gpt2(config) => config.bos_token_id,
        }
    }

    /// Tokens that end a text.
    pub fn eos_token_id(&self) -> &[u32] {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => &config.eos_token_id,
            Self::Gpt2(config) => &config.eos_token_id,
        }
    }

    /// Standard deviation of the initial weights.
    pub fn initializer_range(&self) -> f64 {
        match self {
            Self::Llama(config) | Self::Qwen3(config) => config.initializer_range,
            Self::Gpt2(config) => config.initializer_range,
        }
    }

    /// Number of parameters; tied embeddings count once.
    pub fn parameters(&self) -> u64 {
        let (vocabulary, hidden, layers) = (self.vocab_size() as u64, self.hidden_size() as u64, self.layers() as u64);
        let head = if self.tied() { 0 } else { vocabulary * hidden };
        let rest = match self {
            Self::Llama(_) => layers * 2 * hidden + hidden,
            Self::Qwen3(config) => layers * (2 * hidden + 2 * config.head_dim as u64) + hidden,
            // Two norms of scale and shift, and the four projections' biases.
            Self::Gpt2(config) => {
                layers * (4 * hidden + 3 * hidden + hidden + config.n_inner as u64 + hidden)
                    + 2 * hidden
                    + config.n_positions as u64 * hidden
            }
        };
        vocabulary * hidden + head + layers * self.matrix_parameters_per_layer() + rest
    }

    /// Floating-point operations to train on one token of a context of `context` tokens: six for each parameter in a product (two
    /// forward, four backward; the output projection counts, looking up an embedding does not) and six for each channel of attention
    /// and earlier position, of which a causal mask leaves half ([Kaplan et al. 2020](https://arxiv.org/abs/2001.08361)).
    pub fn flops_per_token(&self, context: usize) -> f64 {
        let products =
            self.layers() as u64 * self.matrix_parameters_per_layer() + (self.vocab_size() * self.hidden_size()) as u64;
        let (heads, head_dim) = match self {
            Self::Llama(config) | Self::Qwen3(config) => (config.num_attention_heads, config.head_dim),
            Self::Gpt2(config) => (config.n_head, config.n_embd / config.n_head),
        };
        6.0 * products as f64 + 6.0 * (self.layers() * heads * head_dim) as f64 * context as f64
    }

    /// Bytes of keys and values kept for each token of a context, in f32.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let channels = match self {
            Self::Llama(config) | Self::Qwen3(config) => config.num_key_value_heads * config.head_dim,
            Self::Gpt2(config) => config.n_embd,
        };
        (self.layers() * 2 * channels * size_of::<f32>()) as u64
    }

    fn matrix_parameters_per_layer(&self) -> u64 {
        let count = match self {
            Self::Llama(c) | Self::Qwen3(c) => {
                let attention = c.hidden_size * c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads);
                attention + 3 * c.hidden_size * c.intermediate_size
            }
            Self::Gpt2(c) => 4 * c.n_embd * c.n_embd + 2 * c.n_embd * c.n_inner,
        };
        count as u64
    }
}

fn bounded(key: &str, value: usize, most: usize) -> Result<()> {
    ensure!((1..=most).contains(&value), "`{key}` must be from 1 to {most}; it is {value}");
    Ok(())
}

fn positive(key: &str, value: f64) -> Result<()> {
    ensure!(value.is_finite() && value > 0.0, "`{key}` must be a positive number; it is {value}");
    Ok(())
}
