//! `[tokenizer]` and `[model]`: how text becomes tokens, and the network.

use danlu_data::tokenizer::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How text becomes tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerSpec {
    /// The algorithm that a new tokenizer is trained with.
    pub kind: TokenizerKind,
    /// Entries of a new tokenizer. Automatic: by the size of the model.
    #[schemars(range(min = 258, max = 1_000_000))]
    pub vocabulary: Option<usize>,
    /// How often a word must occur to be in a vocabulary of words. Automatic: 5 times.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub least: Option<u64>,
    /// Use this tokenizer.json (or the folder it is in) instead of training one.
    pub from: Option<String>,
}

/// A subword algorithm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// Byte-level byte-pair encoding (Sennrich 2016; Radford 2019).
    #[default]
    Bpe,
    /// Unigram language model (Kudo 2018).
    Unigram,
    /// WordPiece (Schuster 2012; Devlin 2018).
    Wordpiece,
    /// Whole words in small letters, the most frequent ones; for languages that put spaces between words.
    Words,
}

impl From<TokenizerKind> for Kind {
    fn from(kind: TokenizerKind) -> Self {
        match kind {
            TokenizerKind::Bpe => Self::Bpe,
            TokenizerKind::Unigram => Self::Unigram,
            TokenizerKind::Wordpiece => Self::WordPiece,
            TokenizerKind::Words => Self::Words,
        }
    }
}

/// The network. Give a size, or some or all of the shape, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// The architecture.
    pub kind: ModelKind,
    /// Parameters to aim at, such as "800k", "10M" or "1.5B". Automatic: by the budget and the amount of data.
    pub size: Option<String>,
    /// Start from the weights in this model folder instead of random ones; its shape and, unless `tokenizer.from` says otherwise, its
    /// tokenizer are used.
    pub from: Option<String>,
    /// BLAKE3 of the weights that `from` must have. Automatic, where some of them stay frozen: of those it has when the run begins.
    pub hash: Option<String>,
    /// Transformer blocks.
    #[schemars(range(min = 1, max = 512))]
    pub layers: Option<usize>,
    /// Channels of the residual stream.
    #[schemars(range(min = 8, max = 32_768))]
    pub hidden: Option<usize>,
    /// Query heads.
    #[schemars(range(min = 1, max = 512))]
    pub heads: Option<usize>,
    /// Key and value heads; fewer than `heads` is grouped-query attention (Ainslie 2023). gpt2 has no such choice.
    #[schemars(range(min = 1, max = 512))]
    pub kv_heads: Option<usize>,
    /// Channels of one head. gpt2 has no such choice.
    #[schemars(range(min = 2, max = 1024))]
    pub head_dim: Option<usize>,
    /// Channels inside the feed-forward network.
    #[schemars(range(min = 8, max = 131_072))]
    pub intermediate: Option<usize>,
    /// The most tokens that one forward pass may see, and the length of a training row.
    #[schemars(range(min = 8, max = 1_048_576))]
    pub context: Option<usize>,
    /// Whether the embedding and the output head are one matrix.
    pub tied: Option<bool>,
}

/// An architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Rotary positions, RMSNorm, SwiGLU (Touvron 2023).
    Llama,
    /// Llama with normalised queries and keys (Qwen team 2025).
    #[default]
    Qwen3,
    /// Learned positions, LayerNorm, GELU (Radford 2019).
    Gpt2,
    /// An encoder, in which every token sees its whole text (Devlin 2018).
    Bert,
    /// An encoder that reads and a decoder that writes, with as many layers each (Vaswani 2017), for translation.
    Marian,
    /// Two vectors for each word and nothing else (Mikolov 2013); `hidden` is their length.
    Word2vec,
    /// Convolutions over pictures, for image-classify; `[lenet]` gives its shape (LeCun 1998).
    Lenet,
    /// A network that draws pictures and one that judges them, of layers that read everything, for the objective gan (Goodfellow 2014).
    Gan,
    /// The same of convolutions and their transposes, with batch normalization (Radford 2015).
    Dcgan,
    /// An encoder that reads a picture as a text of patches, for image-classify, masked-image, detect, segment and pose; `[vit]` says how (Dosovitskiy 2020).
    Vit,
}
