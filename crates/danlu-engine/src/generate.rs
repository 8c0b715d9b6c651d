//! From a prompt to text.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Decoder, DecoderConfig};
use danlu_ops::KvFormat;

use crate::reading::Reading;
use crate::{Sampler, Sampling, StopStrings};

/// A decoder with its tokenizer, ready to write.
pub struct Generator {
    decoder: Arc<Decoder>,
    tokenizer: Tokenizer,
    begin: Option<u32>,
    ends: Vec<u32>,
    kv: KvFormat,
}

/// Why the text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model ended it.
    EndOfText,
    /// This stop string came up; it is no part of the text.
    StopString(String),
    /// It has as many tokens as were asked for.
    MaxTokens,
    /// Prompt and text fill the model's context.
    Context,
    /// The callback asked to stop.
    Cancelled,
}

/// How a generation went.
#[derive(Clone, Debug)]
pub struct Finish {
    pub reason: Reason,
    /// Tokens written, without the one that ends the text.
    pub tokens: usize,
    /// Tokens read first, the one that begins every text included.
    pub prompt_tokens: usize,
    /// Seconds to read the prompt.
    pub prompt_seconds: f64,
    /// Seconds to write.
    pub seconds: f64,
    pub tokens_per_second: f64,
}

impl Generator {
    /// Texts begin after the tokenizer's end-of-text token, as documents do in training, and end with it.
    ///
    /// A decoder in blocks keeps keys and values in halves: their rounding, 1/2048 of each number, is small beside that of its weights and of the
    /// eight bits its inputs are brought to. One in floats keeps floats, so that what it writes is held to its own whole passes, to which
    /// training compares it, and to other programs. See [`Generator::with_kv`].
    pub fn new(decoder: impl Into<Arc<Decoder>>, tokenizer: Tokenizer) -> Self {
        let decoder = decoder.into();
        // A decoder in training would record every operation for a backward pass that never comes.
        let decoder = if decoder.is_autodiff() { Arc::new(decoder.valid()) } else { decoder };
        let end = tokenizer.end_of_text();
        let kv = if decoder.is_in_blocks() { KvFormat::F16 } else { KvFormat::F32 };
        Self { decoder, tokenizer, begin: Some(end), ends: vec![end], kv }
    }

    /// Keeps keys and values as `format` says.
    #[must_use]
    pub fn with_kv(mut self, format: KvFormat) -> Self {
        self.kv = format;
        self
    }

    /// Takes the tokens that begin and end a text from the model's configuration, where it names any.
    #[must_use]
    pub fn with_config(mut self, config: &DecoderConfig) -> Self {
        if !config.eos_token_id().is_empty() {
            self.ends.extend(config.eos_token_id());
            self.begin = config.bos_token_id();
        }
        self
    }

    /// Text ends with this token too: the end of a turn, in a conversation.
    #[must_use]
    pub fn with_end(mut self, token: u32) -> Self {
        self.ends.push(token);
        self
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub(crate) fn shared_decoder(&self) -> Arc<Decoder> {
        self.decoder.clone()
    }

    /// How keys and values are kept.
    pub fn kv(&self) -> KvFormat {
        self.kv
    }

    /// The tokens that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The tokens of a text to go on with: the one that begins every text, where the model has one, and its own.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.begin.into_iter().collect();
        ids.extend(self.tokenizer.encode(prompt)?);
        Ok(ids)
    }

    /// Writes what follows `prompt`, calling `piece` with each piece of text as soon as it is whole.
    ///
    /// # Errors
    /// Before anything is written: when the prompt does not leave room for a token, with both counts, or a setting is out of range. While
    /// writing: when logits are not numbers.
    pub fn generate(&self, prompt: &str, sampling: &Sampling, piece: impl FnMut(&str) -> ControlFlow<()>) -> Result<Finish> {
        self.generate_from(&self.encode(prompt)?, sampling, piece)
    }

    /// [`Generator::generate`] from tokens, to which nothing is added.
    ///
    /// # Errors
    /// As [`Generator::generate`], and when there is no token or one the model does not have.
    pub fn generate_from(
        &self,
        prompt: &[u32],
        sampling: &Sampling,
        mut piece: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Finish> {
        let context = self.decoder.context();
        ensure!(!prompt.is_empty(), "there is nothing to go on from: the prompt has no token");
        ensure!(
            prompt.len() < context,
            "the prompt has {} tokens and the model's context {context}: shorten the prompt to at most {} tokens",
            prompt.len(),
            context - 1
        );
        let vocabulary = self.decoder.vocabulary();
        if let Some(token) = prompt.iter().find(|token| **token as usize >= vocabulary) {
            anyhow::bail!(
                "token {token} of the prompt is outside the model's vocabulary of {vocabulary}: is this its tokenizer?"
            );
        }
        let mut sampler = Sampler::new(sampling, prompt)?;
        let mut stops = StopStrings::new(&sampling.stop);
        let mut text = self.tokenizer.stream();

        let began = Instant::now();
        let mut read = Reading::new(&self.decoder, self.kv, prompt.len().saturating_add(sampling.max_tokens));
        let mut logits = read.prompt(&self.decoder, prompt);
        let prompt_seconds = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let mut tokens = 0;
        let reason = loop {
            if tokens == sampling.max_tokens {
                break Reason::MaxTokens;
            }
            if prompt.len() + tokens == context {
                break Reason::Context;
            }
            let token = sampler.sample(&mut logits)?;
            if self.ends.contains(&token) {
                break Reason::EndOfText;
            }
            tokens += 1;
            let (shown, stop) = stops.push(&text.push(token)?);
            if !shown.is_empty() && piece(&shown).is_break() {
                break Reason::Cancelled;
            }
            if let Some(stop) = stop {
                break Reason::StopString(stop);
            }
            if tokens < sampling.max_tokens && prompt.len() + tokens < context {
                logits = read.step(&self.decoder, &[token]);
            }
        };
        let seconds = began.elapsed().as_secs_f64();

        let reason = match reason {
            ended @ (Reason::Cancelled | Reason::StopString(_)) => ended,
            ended => {
                // Half a character, or the beginning of a stop string, may still be held back.
                let (mut shown, stop) = stops.push(&text.finish()?);
                if stop.is_none() {
                    shown.push_str(&stops.finish());
                }
                if !shown.is_empty() {
                    let _ = piece(&shown);
                }
                stop.map_or(ended, Reason::StopString)
            }
        };
        let tokens_per_second = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        Ok(Finish { reason, tokens, prompt_tokens: prompt.len(), prompt_seconds, seconds, tokens_per_second })
    }
}
