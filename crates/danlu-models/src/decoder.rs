//! One type for all decoders.

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use danlu_ops::{Ids, KvFormat, LayerCache, PagedCache};

use crate::config::DecoderConfig;
use crate::gpt2::Gpt2;
use crate::layers::{Linear, Quantized, Table};
use crate::llama::Llama;
use crate::sequences::{Parts, Sequence};
use crate::{Batch, init, names, prompt};

/// A decoder-only language model.
#[derive(Module, Debug)]
pub enum Decoder {
    Llama(Llama),
    Qwen3(Llama),
    Gpt2(Gpt2),
}

macro_rules! each {
    ($decoder:expr, $model:ident => $body:expr) => {
        match $decoder {
            Decoder::Llama($model) | Decoder::Qwen3($model) => $body,
            Decoder::Gpt2($model) => $body,
        }
    };
}

impl Decoder {
    /// A decoder with initial weights: normal with the configuration's deviation, those that write to the residual stream scaled by
    /// `1/sqrt(2 × layers)`, scales one, biases zero. The same for the same seed, whatever the number of threads.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &DecoderConfig, seed: u64, device: &Device) -> Result<Self> {
        let (range, layers) = (config.initializer_range(), config.layers());
        names::fill(Self::empty(config, device)?, |name, shape| Ok(init::values(seed, name, shape, range, layers)))
    }

    /// The names and shapes of a configuration's parameters, of which none is made.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn shapes(config: &DecoderConfig) -> Result<Vec<(String, Vec<usize>)>> {
        Ok(names::names_and_shapes(&Self::empty(config, &Device::flex())?))
    }

    /// A decoder whose parameters have shapes and no values.
    pub(crate) fn empty(config: &DecoderConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        Ok(match config {
            DecoderConfig::Llama(config) => Self::Llama(Llama::new(config, false, device)),
            DecoderConfig::Qwen3(config) => Self::Qwen3(Llama::new(config, true, device)),
            DecoderConfig::Gpt2(config) => Self::Gpt2(Gpt2::new(config, device)),
        })
    }

    /// The last layer's normalized output, `[tokens, hidden]`.
    ///
    /// # Panics
    /// When a token is outside the vocabulary, or a document is longer than [`Decoder::context`].
    pub fn hidden(&self, batch: &Batch) -> Tensor<2> {
        self.run(batch, false)
    }

    /// [`Decoder::hidden`] that keeps only each layer's input for the backward pass.
    pub fn hidden_recomputed(&self, batch: &Batch) -> Tensor<2> {
        self.run(batch, true)
    }

    /// Mean negative log-likelihood of the targets, in nats, `[1]`; differentiable.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        danlu_ops::linear_cross_entropy(self.hidden(batch), self.head_weight(), &batch.targets)
    }

    /// [`Decoder::loss`] that keeps only each layer's input for the backward pass and computes the rest again there: the same gradients
    /// for a third more work, and memory that barely grows with depth.
    pub fn loss_recomputed(&self, batch: &Batch) -> Tensor<1> {
        danlu_ops::linear_cross_entropy(self.run(batch, true), self.head_weight(), &batch.targets)
    }

    /// Negative log-likelihood of each target, in nats; zero where the target is [`danlu_ops::IGNORE`]. Without gradients.
    pub fn token_nll(&self, batch: &Batch) -> Vec<f32> {
        danlu_ops::token_nll(self.hidden(batch), self.head_weight(), &batch.targets)
    }

    /// The log-probability of each target, in nats, `[tokens]`, differentiable with a weight of its own for each token; zero where the
    /// target is [`danlu_ops::IGNORE`]. With `recompute`, memory and work are those of [`Decoder::loss_recomputed`].
    pub fn log_probs(&self, batch: &Batch, recompute: bool) -> Tensor<1> {
        danlu_ops::linear_log_probs(self.run(batch, recompute), self.head_weight(), &batch.targets)
    }

    /// [`Decoder::log_probs`] when the gradient of each is `expected`, `[tokens]`, but for one factor that all have in common: then the logits
    /// are computed once ([`danlu_ops::linear_log_probs_expecting`]).
    pub fn log_probs_expecting(&self, batch: &Batch, expected: Vec<f32>, recompute: bool) -> Tensor<1> {
        danlu_ops::linear_log_probs_expecting(self.run(batch, recompute), self.head_weight(), &batch.targets, expected)
    }

    /// Logits of every token, `[tokens, vocabulary]`.
    pub fn logits(&self, batch: &Batch) -> Tensor<2> {
        self.head().logits(self.hidden(batch)).cast(DType::F32)
    }

    /// Reads more tokens of the one sequence in `cache` and returns the logits of the token after the last, `[vocabulary]`.
    ///
    /// Call it on [`Module::valid`] of a decoder that is being trained, or every step builds a graph.
    ///
    /// # Panics
    /// When `tokens` is empty, holds a token outside the vocabulary, or does not fit in what is left of the cache.
    pub fn step(&self, tokens: &[u32], cache: &mut Cache) -> Vec<f32> {
        assert!(!tokens.is_empty(), "a step reads at least one token");
        let ids: Ids = tokens.into();
        let hidden = each!(self, model => model.hidden_cached(&ids, &mut cache.layers));
        let logits = self.head().logits(hidden);
        logits.into_data().convert::<f32>().try_into_vec().expect("just converted to f32")
    }

    /// Reads more tokens of many sequences at once, `parts[i]` of the i-th, and returns the logits of the token after each one's last,
    /// `[sequences, vocabulary]`: every product takes all tokens together. What a sequence gets is the same to the bit whatever others it
    /// is read with; with adapters, which larger batches add to the weights first, up to rounding.
    ///
    /// Call it on [`Module::valid`] of a decoder that is being trained, or every step builds a graph.
    ///
    /// # Panics
    /// When a part is empty, holds a token outside the vocabulary, or does not fit in what is left of its sequence; and when the decoder has
    /// a tuned prompt ([`Decoder::prompt_len`]), which only [`Decoder::step`] reads.
    pub fn step_many(&self, parts: &[&[u32]], sequences: &mut [&mut Sequence]) -> Vec<f32> {
        self.step_many_after(parts, &vec![1; parts.len()], sequences)
    }

    /// [`Decoder::step_many`] with the logits after each of the last `wanted[i]` tokens of the i-th part, `[sum of wanted, vocabulary]`: what
    /// would have followed each of some tokens that are only guessed.
    ///
    /// # Panics
    /// As [`Decoder::step_many`], and when more logits are wanted of a part than it has tokens.
    pub fn step_many_after(&self, parts: &[&[u32]], wanted: &[usize], sequences: &mut [&mut Sequence]) -> Vec<f32> {
        assert_eq!(parts.len(), sequences.len(), "one part for each sequence");
        assert_eq!(self.prompt_len(), 0, "a decoder with a tuned prompt reads one sequence at a time");
        if parts.is_empty() {
            return vec![];
        }
        let mut layers: Vec<&mut [PagedCache]> = sequences.iter_mut().map(|sequence| sequence.layers_mut()).collect();
        let read = Parts::new(parts, wanted, each!(self, model => model.least_rows()));
        let hidden = each!(self, model => model.hidden_many(&read, &mut layers));
        let logits = self.head().logits(hidden);
        let vocabulary = logits.dims()[1];
        let mut logits: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().expect("just converted to f32");
        logits.truncate(wanted.iter().sum::<usize>() * vocabulary);
        logits
    }

    /// The caches of an empty sequence.
    pub(crate) fn paged(&self, capacity: usize, format: KvFormat) -> Vec<PagedCache> {
        let device = self.devices().into_iter().next().unwrap_or_else(danlu_ops::device).inner();
        each!(self, model => model.paged(capacity, format, &device))
    }

    /// The output projection, `[vocabulary, hidden]`: the embedding when they are tied. One in blocks is made floats each time.
    pub fn head_weight(&self) -> Tensor<2> {
        self.head().values()
    }

    /// How many tokens it can tell apart.
    pub fn vocabulary(&self) -> usize {
        self.head().dims()[0]
    }

    /// Whether what it computes is recorded for a backward pass.
    pub fn is_autodiff(&self) -> bool {
        each!(self, model => model.last_norm().val().is_autodiff())
    }

    /// Whether weights are held in the blocks of a GGUF file ([`crate::gguf::decoder_in_blocks`]), so that it runs and is not trained.
    pub fn is_in_blocks(&self) -> bool {
        let mut handle = self.clone();
        let tables = handle.tables().iter().any(|(_, table)| table.blocks.is_some());
        tables || handle.linears().iter().any(|(_, linear)| matches!(linear.quantized, Some(Quantized::Blocks(_))))
    }

    /// Sees to it that few rows are not filled up to many where every product gives a row the same whatever the others.
    pub(crate) fn settle_least_rows(&mut self) {
        let tables = self.tables().iter().all(|(_, table)| table.blocks.is_some());
        if tables && self.linears().iter().all(|(_, linear)| matches!(linear.quantized, Some(Quantized::Blocks(_)))) {
            each!(self, model => model.set_least_rows(1));
        }
    }

    /// The same with `count` of its layers, evenly taken from the first to the last, and its configuration: the start of a smaller model that
    /// is near what the larger one does ([Sanh et al. 2019](https://arxiv.org/abs/1910.01108)).
    ///
    /// # Errors
    /// When there are not so many layers.
    pub fn with_layers(mut self, config: &DecoderConfig, count: usize) -> Result<(Self, DecoderConfig)> {
        let layers = config.layers();
        ensure!((1..=layers).contains(&count), "{count} layers are to be kept of a model that has {layers}");
        let kept: Vec<usize> = (0..count).map(|i| (i * (layers - 1)).checked_div(count - 1).unwrap_or(0)).collect();
        fn keep<L: Clone>(layers: &mut Vec<L>, kept: &[usize]) {
            *layers = kept.iter().map(|&i| layers[i].clone()).collect();
        }
        match &mut self {
            Self::Llama(model) | Self::Qwen3(model) => keep(&mut model.model.layers, &kept),
            Self::Gpt2(model) => keep(&mut model.transformer.h, &kept),
        }
        Ok((self, config.with_layers(count)))
    }

    /// The same without an output projection of its own, for a model that gives something else than tokens.
    #[must_use]
    pub(crate) fn without_head(mut self) -> Self {
        each!(&mut self, model => model.lm_head = None);
        self
    }

    /// The longest sequence it can read, in tokens.
    pub fn context(&self) -> usize {
        each!(self, model => model.context())
    }

    /// Every projection inside the layers with its name, in the order of the fields.
    pub(crate) fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        each!(self, model => model.linears())
    }

    /// The vectors that stand before every document, in prompt tuning.
    pub(crate) fn prompt(&mut self) -> &mut Option<Param<Tensor<2>>> {
        each!(self, model => &mut model.prompt_embeddings)
    }

    pub(crate) fn embedding(&self) -> &Table {
        each!(self, model => model.embedding())
    }

    fn head(&self) -> &Table {
        each!(self, model => model.head())
    }

    /// The embedding and the output projection where it has one, with their names.
    pub(crate) fn tables(&mut self) -> Vec<(&'static str, &mut Table)> {
        each!(self, model => model.tables())
    }

    pub fn prompt_len(&self) -> usize {
        prompt::len(each!(self, model => model.prompt_embeddings.as_ref()))
    }

    fn run(&self, batch: &Batch, recompute: bool) -> Tensor<2> {
        each!(self, model => model.hidden(batch, recompute))
    }
}

/// Keys and values of one sequence, for [`Decoder::step`].
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
    capacity: usize,
    /// Learned vectors that stand before the tokens and are not counted with them.
    prompt: usize,
}

impl Cache {
    /// An empty cache with room for `capacity` tokens, at most the decoder's context.
    pub fn new(decoder: &Decoder, capacity: usize) -> Self {
        let device = decoder.devices().into_iter().next().unwrap_or_else(danlu_ops::device).inner();
        let capacity = capacity.min(decoder.context());
        let prompt = decoder.prompt_len();
        Self { layers: each!(decoder, model => model.caches(capacity + prompt, &device)), capacity, prompt }
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len).saturating_sub(self.prompt)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        let len = if len == 0 { 0 } else { len + self.prompt };
        for layer in &mut self.layers {
            layer.truncate(len);
        }
    }
}
