//! The Transformer of 2017, as Marian has it.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use danlu_ops::{Heads, Ids, KvFormat, PagedCache, Segments};

use crate::config::MarianConfig;
use crate::layers::{LayerNorm, Linear, Matrix};
use crate::sequences::layer_of;
use crate::{init, names};

/// Marian's norms take no other; `config.json` has no word for it.
const EPS: f64 = 1e-5;

/// An encoder that reads a text and a decoder that writes its translation, attending to what was read: post-norm, ReLU, sines for positions,
/// one embedding for both languages and the output ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762);
/// [Junczys-Dowmunt et al. 2018](https://aclanthology.org/P18-4020/)).
#[derive(Module, Debug)]
pub struct Marian {
    pub model: MarianModel,
    #[module(skip)]
    shape: Shape,
}

#[derive(Module, Debug)]
pub struct MarianModel {
    /// Tokens of both languages, and the output projection, `[vocabulary, channels]`.
    pub shared: Matrix,
    pub encoder: MarianEncoder,
    pub decoder: MarianDecoder,
}

#[derive(Module, Debug)]
pub struct MarianEncoder {
    pub layers: Vec<MarianEncoderLayer>,
}

#[derive(Module, Debug)]
pub struct MarianDecoder {
    pub layers: Vec<MarianDecoderLayer>,
}

#[derive(Module, Debug)]
pub struct MarianEncoderLayer {
    pub self_attn: MarianAttention,
    pub self_attn_layer_norm: LayerNorm,
    pub fc1: Linear,
    pub fc2: Linear,
    pub final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
pub struct MarianDecoderLayer {
    pub self_attn: MarianAttention,
    pub self_attn_layer_norm: LayerNorm,
    /// To what the encoder read.
    pub encoder_attn: MarianAttention,
    pub encoder_attn_layer_norm: LayerNorm,
    pub fc1: Linear,
    pub fc2: Linear,
    pub final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
pub struct MarianAttention {
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub q_proj: Linear,
    pub out_proj: Linear,
}

#[derive(Clone, Debug)]
struct Shape {
    heads: Heads,
    context: usize,
    /// `[context, channels]`: sines in the first half of the channels, cosines in the second.
    positions: Arc<[f32]>,
}

/// Sources and their translations, packed without padding: the i-th segment of what is written is a translation of the i-th source.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Each source with the end behind it.
    pub sources: Ids,
    pub source_segments: Segments,
    /// Each translation with the end before it, which begins it.
    pub written: Ids,
    pub written_segments: Segments,
    /// What should follow each written token; the end behind the last.
    pub targets: Ids,
}

/// What the decoder attends to of one source: for each layer the keys beside the values, `[tokens, 2 · channels]`, computed once.
#[derive(Clone, Debug)]
pub struct Source {
    layers: Vec<Tensor<2>>,
    tokens: usize,
}

/// Keys and values of what has been written of one translation. A clone shares them, so that several can go on from one beginning.
#[derive(Clone, Debug)]
pub struct Written {
    layers: Vec<PagedCache>,
}

impl Pairs {
    /// Of sources and translations as tokens of text; `end` ends both and begins a translation.
    ///
    /// # Panics
    /// When there is no pair.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a [u32], &'a [u32])>, end: u32) -> Self {
        let (mut sources, mut written, mut targets, mut starts) = (vec![], vec![], vec![], [vec![], vec![]]);
        for (source, translation) in pairs {
            starts[0].push(sources.len() as u32);
            starts[1].push(written.len() as u32);
            sources.extend_from_slice(source);
            sources.push(end);
            written.push(end);
            written.extend_from_slice(translation);
            targets.extend_from_slice(translation);
            targets.push(end);
        }
        assert!(!sources.is_empty(), "a batch of translations has at least one");
        let [of_sources, of_written] = starts;
        Self {
            source_segments: Segments::new(1, sources.len(), of_sources),
            written_segments: Segments::new(1, written.len(), of_written),
            sources: sources.into(),
            written: written.into(),
            targets: targets.into(),
        }
    }
}

impl Marian {
    /// With initial weights: matrices normal with Glorot's deviation `√(2 / (in + out))`, the embedding with `1/√channels`, so that it has
    /// unit variance once scaled; biases zero. The same for the same seed.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &MarianConfig, seed: u64, device: &Device) -> anyhow::Result<Self> {
        config.validate()?;
        names::fill(Self::empty(config, device), |name, shape| {
            let deviation = match shape {
                _ if name == "model.shared.weight" => (config.d_model as f64).powf(-0.5),
                [out, inp] => (2.0 / (out + inp) as f64).sqrt(),
                _ => 0.0,
            };
            Ok(init::values(seed, name, shape, deviation, 1))
        })
    }

    /// A model whose parameters have shapes and no values.
    pub(crate) fn empty(config: &MarianConfig, device: &Device) -> Self {
        let (d, f) = (config.d_model, config.ffn_dim);
        let linear = |out, inp| Linear::new(out, inp, true, device);
        let norm = || LayerNorm::new(d, device);
        let attention =
            || MarianAttention { k_proj: linear(d, d), v_proj: linear(d, d), q_proj: linear(d, d), out_proj: linear(d, d) };
        let reading = |_| MarianEncoderLayer {
            self_attn: attention(),
            self_attn_layer_norm: norm(),
            fc1: linear(f, d),
            fc2: linear(d, f),
            final_layer_norm: norm(),
        };
        let writing = |_| MarianDecoderLayer {
            self_attn: attention(),
            self_attn_layer_norm: norm(),
            encoder_attn: attention(),
            encoder_attn_layer_norm: norm(),
            fc1: linear(f, d),
            fc2: linear(d, f),
            final_layer_norm: norm(),
        };
        let heads = config.attention_heads;
        Self {
            model: MarianModel {
                shared: Matrix::new(config.vocab_size, d, device),
                encoder: MarianEncoder { layers: (0..config.encoder_layers).map(reading).collect() },
                decoder: MarianDecoder { layers: (0..config.decoder_layers).map(writing).collect() },
            },
            shape: Shape {
                heads: Heads { heads, kv_heads: heads, head_dim: d / heads },
                context: config.max_position_embeddings,
                positions: sines(config.max_position_embeddings, d),
            },
        }
    }

    /// The longest text on either side, in tokens, with the one that ends it.
    pub fn context(&self) -> usize {
        self.shape.context
    }

    /// What the encoder makes of packed sources, `[tokens, channels]`.
    ///
    /// # Panics
    /// When a token is outside the vocabulary, or a source longer than [`Marian::context`].
    pub fn read(&self, sources: &Ids, segments: &Segments) -> Tensor<2> {
        let mut x = self.embed(sources, &segments.positions());
        for layer in &self.model.encoder.layers {
            let qkv = layer.self_attn.qkv(&x);
            let seen = danlu_ops::bidirectional_attention(qkv, self.shape.heads, None, segments);
            x = layer.self_attn_layer_norm.forward(layer.self_attn.out_proj.forward(seen) + x, EPS);
            x = forward(&layer.fc1, &layer.fc2, &layer.final_layer_norm, x);
        }
        x
    }

    /// The decoder's states, `[written tokens, channels]`.
    ///
    /// # Panics
    /// As [`Marian::read`].
    pub fn hidden(&self, pairs: &Pairs) -> Tensor<2> {
        let memory = self.read(&pairs.sources, &pairs.source_segments);
        let (heads, written) = (self.shape.heads, &pairs.written_segments);
        let mut x = self.embed(&pairs.written, &written.positions());
        for layer in &self.model.decoder.layers {
            let kv = layer.encoder_attn.keys_and_values(&memory);
            x = layer.forward(
                x,
                |qkv| danlu_ops::attention(qkv, heads, None, written),
                |q| danlu_ops::cross_attention(q, kv, heads, written, &pairs.source_segments),
            );
        }
        x
    }

    /// The mean loss of the targets, smoothed by `smoothing`, in nats, `[1]`.
    ///
    /// # Panics
    /// As [`Marian::read`].
    pub fn loss(&self, pairs: &Pairs, smoothing: f64) -> Tensor<1> {
        let weight = self.model.shared.weight.val();
        danlu_ops::linear_cross_entropy_smoothed(self.hidden(pairs), weight, &pairs.targets, smoothing)
    }

    /// The negative log-likelihood, in nats, of every target; without gradients.
    ///
    /// # Panics
    /// As [`Marian::read`].
    pub fn token_nll(&self, pairs: &Pairs) -> Vec<f32> {
        danlu_ops::token_nll(self.hidden(pairs), self.model.shared.weight.val(), &pairs.targets)
    }

    /// Logits after every written token, `[written tokens, vocabulary]`.
    ///
    /// # Panics
    /// As [`Marian::read`].
    pub fn logits(&self, pairs: &Pairs) -> Tensor<2> {
        self.model.shared.forward(self.hidden(pairs))
    }

    /// Reads sources, each with the end behind it, to be translated.
    ///
    /// # Panics
    /// As [`Marian::read`], and when a source is empty.
    pub fn sources(&self, sources: &[&[u32]]) -> Vec<Source> {
        if sources.is_empty() {
            return vec![];
        }
        assert!(sources.iter().all(|source| !source.is_empty()), "a source has at least the token that ends it");
        let starts = sources.iter().scan(0, |end, source| Some(std::mem::replace(end, *end + source.len() as u32)));
        let segments = Segments::new(1, sources.iter().map(|source| source.len()).sum(), starts.collect());
        let memory = self.read(&sources.concat().into(), &segments);
        let layers = &self.model.decoder.layers;
        let of_layers: Vec<Tensor<2>> = layers.iter().map(|layer| layer.encoder_attn.keys_and_values(&memory)).collect();
        let one = |segment: std::ops::Range<usize>| Source {
            layers: of_layers.iter().map(|kv| kv.clone().narrow(0, segment.start, segment.len())).collect(),
            tokens: segment.len(),
        };
        segments.iter().map(one).collect()
    }

    /// A translation of which nothing is written.
    pub fn begin(&self) -> Written {
        let device = self.model.shared.weight.lazy_device();
        let one = |_: &MarianDecoderLayer| PagedCache::new(self.shape.heads, self.shape.context, KvFormat::F32, &device);
        Written { layers: self.model.decoder.layers.iter().map(one).collect() }
    }

    /// Writes one more token of each of several translations: of each source as many as `counts` says, in the order of the sources. The
    /// logits of what comes next, `[translations, vocabulary]`. For inference; nothing is differentiated.
    ///
    /// # Panics
    /// When there are not as many tokens and counts as translations and sources, a count is zero, or a translation is as long as
    /// [`Marian::context`].
    pub fn step(&self, sources: &[&Source], counts: &[usize], written: &mut [&mut Written], tokens: &[u32]) -> Tensor<2> {
        assert_eq!(sources.len(), counts.len(), "one count of translations for each source");
        assert_eq!(tokens.len(), written.len(), "one token for each translation");
        assert_eq!(tokens.len(), counts.iter().sum::<usize>(), "each translation is of one of the sources");
        assert!(counts.iter().all(|&count| count > 0), "a source without a translation is not looked at");
        let ends = |lengths: &[usize]| {
            let starts = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + *length as u32)));
            Segments::new(1, lengths.iter().sum(), starts.collect())
        };
        let of_sources = ends(&sources.iter().map(|source| source.tokens).collect::<Vec<_>>());
        let (of_written, ones) = (ends(counts), vec![1; tokens.len()]);
        let heads = self.shape.heads;
        let positions: Vec<u32> = written.iter().map(|one| one.len() as u32).collect();
        let mut caches: Vec<&mut [PagedCache]> = written.iter_mut().map(|one| one.layers.as_mut_slice()).collect();
        let mut x = self.embed(&tokens.into(), &positions);
        for (index, layer) in self.model.decoder.layers.iter().enumerate() {
            let kv = Tensor::cat(sources.iter().map(|source| source.layers[index].clone()).collect(), 0);
            let mut caches = layer_of(&mut caches, index);
            x = layer.forward(
                x,
                |qkv| danlu_ops::attention_paged(qkv, heads, None, &mut caches, &ones),
                |q| danlu_ops::cross_attention(q, kv, heads, &of_written, &of_sources),
            );
        }
        self.model.shared.forward(x)
    }

    /// Embeddings scaled by `√channels`, with their positions added.
    fn embed(&self, ids: &Ids, positions: &[u32]) -> Tensor<2> {
        let x = danlu_ops::embedding(self.model.shared.weight.val(), ids);
        let [tokens, channels] = x.dims();
        let mut table = Vec::with_capacity(tokens * channels);
        for &position in positions {
            let position = position as usize;
            assert!(position < self.shape.context, "a text is longer than the context of {} tokens", self.shape.context);
            table.extend_from_slice(&self.shape.positions[position * channels..][..channels]);
        }
        let table = Tensor::<2>::from_data(TensorData::new(table, [tokens, channels]), &x.device()).cast(x.dtype());
        x * (channels as f64).sqrt() + table
    }
}

impl Written {
    /// Tokens written so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, PagedCache::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl MarianAttention {
    fn qkv(&self, x: &Tensor<2>) -> Tensor<2> {
        danlu_ops::projections(x.clone(), &[&self.q_proj, &self.k_proj, &self.v_proj].map(Linear::projection))
    }

    fn keys_and_values(&self, memory: &Tensor<2>) -> Tensor<2> {
        danlu_ops::projections(memory.clone(), &[&self.k_proj, &self.v_proj].map(Linear::projection))
    }
}

impl MarianDecoderLayer {
    fn forward(
        &self,
        x: Tensor<2>,
        to_itself: impl FnOnce(Tensor<2>) -> Tensor<2>,
        to_source: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let seen = to_itself(self.self_attn.qkv(&x));
        let x = self.self_attn_layer_norm.forward(self.self_attn.out_proj.forward(seen) + x, EPS);
        let seen = to_source(self.encoder_attn.q_proj.forward(x.clone()));
        let x = self.encoder_attn_layer_norm.forward(self.encoder_attn.out_proj.forward(seen) + x, EPS);
        forward(&self.fc1, &self.fc2, &self.final_layer_norm, x)
    }
}

/// The feed-forward network, and the norm after it is added.
fn forward(fc1: &Linear, fc2: &Linear, norm: &LayerNorm, x: Tensor<2>) -> Tensor<2> {
    norm.forward(fc2.forward(danlu_ops::relu(fc1.forward(x.clone()))) + x, EPS)
}

/// The paper's positions (3.5), with the sines before the cosines instead of between them.
fn sines(context: usize, channels: usize) -> Arc<[f32]> {
    let half = channels / 2;
    let angle = |position: usize, pair: usize| position as f64 / 10_000f64.powf((2 * pair) as f64 / channels as f64);
    let row = |position: usize| {
        let sines = (0..half).map(move |pair| angle(position, pair).sin());
        sines.chain((0..half).map(move |pair| angle(position, pair).cos()))
    };
    (0..context).flat_map(row).map(|value| value as f32).collect()
}
