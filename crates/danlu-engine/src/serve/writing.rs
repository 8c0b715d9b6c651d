use std::sync::Arc;

use anyhow::Result;
use danlu_data::tokenizer::DecodeStream;
use danlu_models::Sequence;

use super::{Event, LogProbs, Request, Sink};
use crate::{Grammar, Reason, Sampler, Sampling, StopStrings};

/// A continuation that is being written.
pub(super) struct Writing {
    /// What the model has read: all tokens of the text so far but the last.
    pub sequence: Sequence,
    /// What a draft model has read of the same text.
    pub draft: Option<Sequence>,
    /// The prompt and what has been written.
    pub text_so_far: Vec<u32>,
    /// The tokens that are read next: the last one, and guesses of those that follow it.
    pub next: Vec<u32>,
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
    drawn: Vec<Result<Drawn>>,
}

/// A token that has been drawn.
struct Drawn {
    token: u32,
    log_probs: Option<LogProbs>,
    /// Whether the grammar lets nothing follow it. The grammar itself has seen all tokens that were drawn, of which this may not be the last.
    ends_grammar: bool,
}

impl Writing {
    /// The continuation number `sample` of a prompt that `sequence` has read, in a context of `context` tokens; `draft` has read nothing yet.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(
        request: &Request,
        sample: usize,
        sequence: Sequence,
        draft: Option<Sequence>,
        text: DecodeStream,
        context: usize,
    ) -> Result<Self> {
        let room = context - request.prompt.len();
        let max_tokens = request.sampling.max_tokens;
        let seed = request.sampling.seed.wrapping_add(sample as u64);
        Ok(Self {
            sequence,
            draft,
            text_so_far: request.prompt.clone(),
            next: vec![],
            sink: request.sink.clone(),
            sample,
            sampler: Sampler::new(&Sampling { seed, ..request.sampling.clone() }, &request.prompt)?,
            grammar: request.grammar.clone(),
            log_probs: request.log_probs,
            stops: StopStrings::new(&request.sampling.stop),
            text,
            tokens: 0,
            limit: if max_tokens <= room { (max_tokens, Reason::MaxTokens) } else { (room, Reason::Context) },
            drawn: vec![],
        })
    }

    /// Tokens that may be guessed: no more than could follow the one that is drawn in any case.
    pub fn room(&self) -> usize {
        self.limit.0 - self.tokens - 1
    }

    /// How many tokens have been drawn and not delivered.
    pub fn drawn(&self) -> usize {
        self.drawn.len()
    }

    /// Draws the next token from its logits, and as long as it is the one that was guessed, the one after it from its logits, `[tokens read,
    /// vocabulary]`, which are overwritten; [`Writing::deliver`] then says so.
    pub fn draw(&mut self, logits: &mut [f32], vocabulary: usize) {
        for (i, logits) in logits.chunks_exact_mut(vocabulary).enumerate() {
            let drawn = self.try_draw(logits);
            let goes_on = matches!(&drawn, Ok(drawn) if self.next.get(i + 1) == Some(&drawn.token) && !drawn.ends_grammar);
            self.drawn.push(drawn);
            if !goes_on {
                break;
            }
        }
    }

    fn try_draw(&mut self, logits: &mut [f32]) -> Result<Drawn> {
        let own = self.log_probs.map(|top| (logits.to_vec(), top));
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits)?;
        }
        let token = self.sampler.sample(logits)?;
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        let log_probs = own.map(|(mut logits, top)| LogProbs::new(&mut logits, token, top));
        Ok(Drawn { token, log_probs, ends_grammar: self.grammar.as_ref().is_some_and(Grammar::is_done) })
    }

    /// Sends what was drawn. Whether the text goes on.
    pub fn deliver(&mut self, ends: &[u32]) -> bool {
        for drawn in std::mem::take(&mut self.drawn) {
            let sent = drawn.and_then(|drawn| self.try_deliver(drawn, ends));
            let goes_on = sent.unwrap_or_else(|error| {
                self.sink.send(Event::Failed(format!("{error:#}")));
                false
            });
            if !goes_on {
                return false;
            }
        }
        // Of what was read ahead only the guesses that were right stay.
        let read = self.text_so_far.len() - 1;
        self.sequence.truncate(read);
        if let Some(draft) = &mut self.draft {
            draft.truncate(read);
        }
        true
    }

    fn try_deliver(&mut self, drawn: Drawn, ends: &[u32]) -> Result<bool> {
        let Drawn { token, log_probs, ends_grammar } = drawn;
        if ends.contains(&token) {
            return self.finish(Reason::EndOfText);
        }
        self.tokens += 1;
        self.text_so_far.push(token);
        let (text, stop) = self.stops.push(&self.text.push(token)?);
        self.sink.send(Event::Token { sample: self.sample, token, text, log_probs });
        if let Some(stop) = stop {
            return Ok(self.finished(String::new(), Reason::StopString(stop)));
        }
        if ends_grammar {
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
