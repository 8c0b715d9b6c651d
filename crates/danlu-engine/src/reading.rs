//! What one continuation has read.

use danlu_models::{Cache, Decoder, Sequence};
use danlu_ops::KvFormat;

use crate::serve::tail;

/// Prompts are read this many tokens at a time, a whole number of pages, so that memory does not grow with their square.
const PREFILL: usize = 512;

/// Keys and values of one sequence that is read alone.
pub(crate) enum Reading {
    /// Floats are multiplied fastest row by row, whose sums are in another order than those of many rows.
    Cached(Cache),
    /// Blocks have one way for any number of rows, and the path of many sequences is as fast with one. Inputs in eight bits would turn the
    /// last bits of another path into other numbers; so what is written alone is, to the bit, what is written in company. Halves are kept in
    /// pages only, whatever the weights are.
    Paged(Sequence),
}

impl Reading {
    /// Nothing read, with room for `capacity` tokens, at most the decoder's context.
    pub fn new(decoder: &Decoder, kv: KvFormat, capacity: usize) -> Self {
        if decoder.is_in_blocks() || kv != KvFormat::F32 {
            Self::Paged(Sequence::holding(decoder, capacity, kv))
        } else {
            Self::Cached(Cache::new(decoder, capacity))
        }
    }

    /// Reads a prompt of at least one token from its beginning; the logits of the token after it.
    pub fn prompt(&mut self, decoder: &Decoder, prompt: &[u32]) -> Vec<f32> {
        let (mut at, mut logits) = (0, vec![]);
        while at < prompt.len() {
            let end = if prompt.len() - at <= PREFILL { prompt.len() } else { (at + PREFILL).min(tail(prompt.len())) };
            logits = self.step(decoder, &prompt[at..end]);
            at = end;
        }
        logits
    }

    /// Reads more tokens, at least one; the logits of the token after the last.
    pub fn step(&mut self, decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
        match self {
            Self::Cached(cache) => decoder.step(tokens, cache),
            Self::Paged(sequence) => decoder.step_many(&[tokens], &mut [sequence]),
        }
    }
}
