use std::sync::Arc;

use anyhow::Result;
use danlu_data::tokenizer::DecodeStream;
use danlu_models::Sequence;

use super::{Event, LogProbs, Request, Sink};
use crate::{Grammar, Reason, Sampler, Sampling, StopStrings};

/// A continuation that is being written.
pub(super) struct Writing {
    pub sequence: Sequence,
    /// The token that is read next.
    pub last: u32,
    pub sink: Arc<dyn Sink>,
    sample: usize,
    sampler: Sampler,
    grammar: Option<Grammar>,
    log_probs: Option<usize>,
    stops: StopStrings,
    text: DecodeStream,
    tokens: usize,
    /// The most tokens it may have, and why it ends there.
    limit: (usize, Reason),
    drawn: Option<Result<(u32, Option<LogProbs>)>>,
}

impl Writing {
    /// The continuation number `sample` of a prompt that `sequence` has read, in a context of `context` tokens.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(request: &Request, sample: usize, sequence: Sequence, text: DecodeStream, context: usize) -> Result<Self> {
        let room = context - request.prompt.len();
        let max_tokens = request.sampling.max_tokens;
        let seed = request.sampling.seed.wrapping_add(sample as u64);
        Ok(Self {
            sequence,
            last: 0,
            sink: request.sink.clone(),
            sample,
            sampler: Sampler::new(&Sampling { seed, ..request.sampling.clone() }, &request.prompt)?,
            grammar: request.grammar.clone(),
            log_probs: request.log_probs,
            stops: StopStrings::new(&request.sampling.stop),
            text,
            tokens: 0,
            limit: if max_tokens <= room { (max_tokens, Reason::MaxTokens) } else { (room, Reason::Context) },
            drawn: None,
        })
    }

    /// Draws the next token from its logits, which it overwrites; [`Writing::deliver`] then says so.
    pub fn draw(&mut self, logits: &mut [f32]) {
        self.drawn = Some(self.try_draw(logits));
    }

    fn try_draw(&mut self, logits: &mut [f32]) -> Result<(u32, Option<LogProbs>)> {
        let own = self.log_probs.map(|top| (logits.to_vec(), top));
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits)?;
        }
        let token = self.sampler.sample(logits)?;
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        Ok((token, own.map(|(mut logits, top)| LogProbs::new(&mut logits, token, top))))
    }

    /// Sends what was drawn. Whether the text goes on.
    pub fn deliver(&mut self, ends: &[u32]) -> bool {
        let Some(drawn) = self.drawn.take() else { return true };
        let sent = drawn.and_then(|(token, log_probs)| self.try_deliver(token, log_probs, ends));
        sent.unwrap_or_else(|error| {
            self.sink.send(Event::Failed(format!("{error:#}")));
            false
        })
    }

    fn try_deliver(&mut self, token: u32, log_probs: Option<LogProbs>, ends: &[u32]) -> Result<bool> {
        if ends.contains(&token) {
            return self.finish(Reason::EndOfText);
        }
        self.tokens += 1;
        self.last = token;
        let (text, stop) = self.stops.push(&self.text.push(token)?);
        self.sink.send(Event::Token { sample: self.sample, token, text, log_probs });
        if let Some(stop) = stop {
            return Ok(self.finished(String::new(), Reason::StopString(stop)));
        }
        if self.grammar.as_ref().is_some_and(Grammar::is_done) {
            return self.finish(Reason::EndOfText);
        }
        if self.tokens == self.limit.0 {
            return self.finish(self.limit.1.clone());
        }
        Ok(true)
    }

    /// Half a character, or the beginning of a stop string, may still be held back.
    fn finish(&mut self, reason: Reason) -> Result<bool> {
        let (mut text, stop) = self.stops.push(&self.text.finish()?);
        if stop.is_none() {
            text.push_str(&self.stops.finish());
        }
        Ok(self.finished(text, stop.map_or(reason, Reason::StopString)))
    }

    fn finished(&self, text: String, reason: Reason) -> bool {
        self.sink.send(Event::Finished { sample: self.sample, text, reason, tokens: self.tokens });
        false
    }
}
