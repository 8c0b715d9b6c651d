use std::sync::Arc;

use crate::{Grammar, LogProbs, Reason, Sampling};

/// What is to be written.
pub struct Request {
    pub prompt: Vec<u32>,
    /// Continuations of the prompt, which is read once. The i-th draws with the seed plus i.
    pub samples: usize,
    pub sampling: Sampling,
    /// Whether tokens come with their log-probabilities, and with those of how many of the likeliest tokens.
    pub log_probs: Option<usize>,
    /// What the text must be like.
    pub grammar: Option<Grammar>,
    pub sink: Arc<dyn Sink>,
}

/// Where the events of a request go.
pub trait Sink: Send + Sync {
    fn send(&self, event: Event);

    /// Nobody listens any more: the request is dropped before the next step, wherever it stands.
    fn is_closed(&self) -> bool;
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt has been read; keys and values of its first `cached` tokens were there already.
    Read { cached: usize },
    Token {
        sample: usize,
        token: u32,
        /// The text that became whole and is known to be no part of a stop string; may be empty.
        text: String,
        log_probs: Option<LogProbs>,
    },
    Finished {
        sample: usize,
        /// What was still held back.
        text: String,
        reason: Reason,
        /// Tokens written, without the one that ends the text.
        tokens: usize,
    },
    /// It cannot go on; nothing follows.
    Failed(String),
}
