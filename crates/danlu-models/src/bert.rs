//! BERT.

#![allow(non_snake_case, reason = "the names of transformers have large letters, and what is derived repeats them")]

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Heads, Ids, Segments};

use crate::config::BertConfig;
use crate::layers::{LayerNorm, Linear, Matrix, placeholder};
use crate::{init, names};

/// A post-norm encoder with LayerNorm, learned positions and exact GELU, in which every token sees its whole text
/// ([Devlin et al. 2018](https://arxiv.org/abs/1810.04805)).
#[derive(Module, Debug)]
pub struct Bert {
    pub bert: BertModel,
    /// The head that says which word a masked one was; a bare encoder has none.
    pub cls: Option<BertMaskedLm>,
    #[module(skip)]
    shape: Shape,
}

#[derive(Module, Debug)]
pub struct BertModel {
    pub embeddings: BertEmbeddings,
    pub encoder: BertEncoder,
    /// What sums up a text in its first token; token labels and masked words do without.
    pub pooler: Option<BertDense>,
}

#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// `[vocabulary, channels]`.
    pub word_embeddings: Matrix,
    /// `[context, channels]`.
    pub position_embeddings: Matrix,
    /// Which text of a pair a token belongs to, `[kinds, channels]`.
    pub token_type_embeddings: Matrix,
    pub LayerNorm: LayerNorm,
}

#[derive(Module, Debug)]
pub struct BertEncoder {
    pub layer: Vec<BertLayer>,
}

#[derive(Module, Debug)]
pub struct BertLayer {
    pub attention: BertAttention,
    pub intermediate: BertDense,
    pub output: BertResidual,
}

#[derive(Module, Debug)]
pub struct BertAttention {
    /// `self` in files; see [`names`].
    pub self_: BertSelfAttention,
    pub output: BertResidual,
}

#[derive(Module, Debug)]
pub struct BertSelfAttention {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
}

#[derive(Module, Debug)]
pub struct BertDense {
    pub dense: Linear,
}

/// A projection back to the stream, and the norm after it is added.
#[derive(Module, Debug)]
pub struct BertResidual {
    pub dense: Linear,
    pub LayerNorm: LayerNorm,
}

#[derive(Module, Debug)]
pub struct BertMaskedLm {
    pub predictions: BertPredictions,
}

/// The output projection is the word embedding.
#[derive(Module, Debug)]
pub struct BertPredictions {
    pub transform: BertResidual,
    /// `[vocabulary]`.
    pub bias: Param<Tensor<1>>,
}

#[derive(Clone, Debug)]
struct Shape {
    heads: Heads,
    eps: f64,
}

/// Which heads an encoder has besides its layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BertHeads {
    pub pooler: bool,
    pub masked_lm: bool,
}

impl Bert {
    /// An encoder with initial weights: normal with the configuration's deviation, scales one, biases zero. The same for the same seed.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &BertConfig, heads: BertHeads, seed: u64, device: &Device) -> anyhow::Result<Self> {
        config.validate()?;
        let (range, layers) = (config.initializer_range, config.num_hidden_layers);
        names::fill(Self::empty(config, heads, device), |name, shape| Ok(init::values(seed, name, shape, range, layers)))
    }

    /// An encoder whose parameters have shapes and no values.
    pub(crate) fn empty(config: &BertConfig, heads: BertHeads, device: &Device) -> Self {
        let (c, hidden) = (config, config.hidden_size);
        let linear = |out, inp| Linear::new(out, inp, true, device);
        let norm = || LayerNorm::new(hidden, device);
        let layer = |_| BertLayer {
            attention: BertAttention {
                self_: BertSelfAttention {
                    query: linear(hidden, hidden),
                    key: linear(hidden, hidden),
                    value: linear(hidden, hidden),
                },
                output: BertResidual { dense: linear(hidden, hidden), LayerNorm: norm() },
            },
            intermediate: BertDense { dense: linear(c.intermediate_size, hidden) },
            output: BertResidual { dense: linear(hidden, c.intermediate_size), LayerNorm: norm() },
        };
        let predictions = || BertPredictions {
            transform: BertResidual { dense: linear(hidden, hidden), LayerNorm: norm() },
            bias: placeholder([c.vocab_size], device),
        };
        Self {
            bert: BertModel {
                embeddings: BertEmbeddings {
                    word_embeddings: Matrix::new(c.vocab_size, hidden, device),
                    position_embeddings: Matrix::new(c.max_position_embeddings, hidden, device),
                    token_type_embeddings: Matrix::new(c.type_vocab_size, hidden, device),
                    LayerNorm: norm(),
                },
                encoder: BertEncoder { layer: (0..c.num_hidden_layers).map(layer).collect() },
                pooler: heads.pooler.then(|| BertDense { dense: linear(hidden, hidden) }),
            },
            cls: heads.masked_lm.then(|| BertMaskedLm { predictions: predictions() }),
            shape: Shape {
                heads: Heads {
                    heads: c.num_attention_heads,
                    kv_heads: c.num_attention_heads,
                    head_dim: hidden / c.num_attention_heads,
                },
                eps: c.layer_norm_eps,
            },
        }
    }

    /// The last layer's output, `[tokens, hidden]`. `kinds` says which text of a pair each token belongs to; without it, all to the first.
    ///
    /// # Panics
    /// When a token is outside the vocabulary, or a text is longer than [`Bert::context`].
    pub fn hidden(&self, ids: &Ids, kinds: Option<&Ids>, segments: &Segments, recompute: bool) -> Tensor<2> {
        let embeddings = &self.bert.embeddings;
        let none: Ids;
        let kinds = match kinds {
            Some(kinds) => kinds,
            None => {
                none = vec![0; ids.len()].into();
                &none
            }
        };
        let x = danlu_ops::embedding(embeddings.word_embeddings.weight.val(), ids)
            + danlu_ops::embedding(embeddings.position_embeddings.weight.val(), &segments.positions())
            + danlu_ops::embedding(embeddings.token_type_embeddings.weight.val(), kinds);
        let mut x = embeddings.LayerNorm.forward(x, self.shape.eps);
        for layer in &self.bert.encoder.layer {
            let (shape, segments) = (self.shape.clone(), segments.clone());
            let forward = move |layer: &BertLayer, x| layer.forward(x, &shape, &segments);
            x = if recompute { danlu_ops::recompute(layer, x, forward) } else { forward(layer, x) };
        }
        x
    }

    /// `tanh` of the pooler's projection, `[texts, hidden]` to the same; what comes in where there is no pooler.
    pub fn pooled(&self, first: Tensor<2>) -> Tensor<2> {
        match &self.bert.pooler {
            Some(pooler) => pooler.dense.forward(first).tanh(),
            None => first,
        }
    }

    /// The mean negative log-likelihood of the words under the masks, in nats, `[1]`: `hidden` and `targets` of the same tokens, of which
    /// those with [`danlu_ops::IGNORE`] are not counted.
    ///
    /// # Panics
    /// When the encoder has no head for masked words.
    pub fn masked_loss(&self, hidden: Tensor<2>, targets: &Ids) -> Tensor<1> {
        let (x, weight) = self.masked_head(hidden);
        danlu_ops::linear_cross_entropy(x, weight, targets)
    }

    /// The negative log-likelihood, in nats, of every target; zero for [`danlu_ops::IGNORE`]. Without gradients.
    ///
    /// # Panics
    /// As [`Bert::masked_loss`].
    pub fn masked_nll(&self, hidden: Tensor<2>, targets: &Ids) -> Vec<f32> {
        let (x, weight) = self.masked_head(hidden);
        danlu_ops::token_nll(x, weight, targets)
    }

    /// Logits of the words, `[tokens, vocabulary]`.
    ///
    /// # Panics
    /// As [`Bert::masked_loss`].
    pub fn masked_logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let (x, weight) = self.masked_head(hidden);
        danlu_ops::linear(x, weight, None)
    }

    /// The head's input and weight. Its bias is one more channel of the weight, whose input is always one.
    fn masked_head(&self, hidden: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let predictions =
            &self.cls.as_ref().expect("an encoder that is asked for masked words has the head for them").predictions;
        let transform = &predictions.transform;
        let x = transform.LayerNorm.forward(danlu_ops::gelu_exact(transform.dense.forward(hidden)), self.shape.eps);
        let (tokens, device) = (x.dims()[0], x.device());
        let x = Tensor::cat(vec![x, Tensor::ones([tokens, 1], &device)], 1);
        let embedding = self.bert.embeddings.word_embeddings.weight.val();
        (x, Tensor::cat(vec![embedding, predictions.bias.val().unsqueeze_dim(1)], 1))
    }

    /// The longest text it can read, in tokens.
    pub fn context(&self) -> usize {
        self.bert.embeddings.position_embeddings.weight.lazy_shape()[0]
    }
}

impl BertLayer {
    fn forward(&self, x: Tensor<2>, shape: &Shape, segments: &Segments) -> Tensor<2> {
        let BertSelfAttention { query, key, value } = &self.attention.self_;
        let qkv = danlu_ops::projections(x.clone(), &[query, key, value].map(Linear::projection));
        let seen = danlu_ops::bidirectional_attention(qkv, shape.heads, None, segments);
        let x = self.attention.output.forward(seen, x, shape.eps);
        let wide = danlu_ops::gelu_exact(self.intermediate.dense.forward(x.clone()));
        self.output.forward(wide, x, shape.eps)
    }
}

impl BertResidual {
    fn forward(&self, x: Tensor<2>, stream: Tensor<2>, eps: f64) -> Tensor<2> {
        self.LayerNorm.forward(self.dense.forward(x) + stream, eps)
    }
}
