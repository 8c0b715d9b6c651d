//! A decoder that gives a text one number: how good it is.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::DecoderConfig;
use crate::layers::Matrix;
use crate::{Batch, Decoder, init, names};

/// Tokens that are read at once when many texts are scored.
const TOKENS: usize = 2048;

/// A decoder with a scalar head on each text's last token, as `transformers` has it in `LlamaForSequenceClassification` (and those of Qwen3
/// and GPT-2) with one label.
#[derive(Module, Debug)]
pub struct RewardModel {
    backbone: Decoder,
    /// `[1, hidden]`.
    score: Matrix,
}

impl RewardModel {
    /// A reward model that starts from a language model: its output projection goes, and a head drawn from the seed comes. Also the
    /// configuration without the projection.
    ///
    /// # Errors
    /// When the head cannot be made.
    pub fn new(decoder: Decoder, config: &DecoderConfig, seed: u64) -> Result<(Self, DecoderConfig)> {
        let device = decoder.devices().into_iter().next().unwrap_or_default();
        let (range, hidden) = (config.initializer_range(), config.hidden_size());
        let head = names::fill(Matrix::new(1, hidden, &device), |_, shape| {
            Ok(init::values(seed, "score.weight", shape, range, config.layers()))
        })?;
        Ok((Self { backbone: decoder.without_head(), score: head }, config.clone().without_head()))
    }

    /// One whose parameters have shapes and no values.
    pub(crate) fn empty(config: &DecoderConfig, device: &Device) -> Result<Self> {
        let backbone = Decoder::empty(&config.clone().without_head(), device)?;
        Ok(Self { backbone, score: Matrix::new(1, config.hidden_size(), device) })
    }

    /// The score of each of the batch's segments, at its last token, `[segments]`; differentiable. With `recompute`, memory and work are
    /// those of [`Decoder::loss_recomputed`].
    pub fn scores(&self, batch: &Batch, recompute: bool) -> Tensor<1> {
        let hidden = if recompute { self.backbone.hidden_recomputed(batch) } else { self.backbone.hidden(batch) };
        let last = batch.segments.iter().map(|segment| segment.end as u32 - 1).collect();
        let scores = self.score.forward(danlu_ops::embedding(hidden, &last));
        let count = scores.dims()[0];
        scores.reshape([count])
    }

    /// The score of each text, which is its prompt and an answer to it up to the token that ends it. Without gradients.
    ///
    /// # Errors
    /// When a text is empty, longer than [`RewardModel::context`], or has a token that the model has not.
    pub fn score(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let (context, vocabulary) = (self.context(), self.backbone.embedding().dims()[0]);
        for (i, text) in texts.iter().enumerate() {
            ensure!(!text.is_empty(), "text {i} is empty, and nothing can be said of it");
            ensure!(
                text.len() <= context,
                "text {i} has {} tokens and the reward model's context {context}: shorten the prompt or the answer",
                text.len()
            );
            if let Some(token) = text.iter().find(|token| **token as usize >= vocabulary) {
                anyhow::bail!(
                    "token {token} of text {i} is outside the reward model's vocabulary of {vocabulary}: is this its tokenizer?"
                );
            }
        }
        let model = self.valid();
        let mut scores = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |text: &&&[u32]| {
                tokens += text.len();
                tokens <= TOKENS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            rest = later;
            let found = model.scores(&Batch::documents(now), false).into_data().try_into_vec::<f32>();
            let found = found.map_err(|error| anyhow::anyhow!("scores are not 32-bit floats: {error:?}"))?;
            ensure!(
                found.iter().all(|score| score.is_finite()),
                "the reward model gives scores that are not numbers; its weights are damaged"
            );
            scores.extend(found);
        }
        Ok(scores)
    }

    /// The same without an adapter: merged into the weights, where there is one.
    ///
    /// # Errors
    /// When it is one of prompt tuning, which changes no weight.
    pub fn merged(&self) -> Result<Self> {
        let Self { backbone, score } = self.valid();
        Ok(Self { backbone: if backbone.is_adapted() { backbone.merged()?.decoder } else { backbone }, score })
    }

    /// The longest text it can read, in tokens.
    pub fn context(&self) -> usize {
        self.backbone.context()
    }
}
