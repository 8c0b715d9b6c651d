//! Inference: a prompt goes in, text comes out piece by piece; many prompts, and their completions together ([`rollout()`]); or requests as
//! they come ([`serve`]).
//!
//! [`Generator`] joins a decoder and its tokenizer; [`Sampling`] says how the next token is drawn and when to end. The same seed, prompt and
//! weights give the same text.

mod generate;
mod grammar;
mod reading;
mod rollout;
mod sampling;
pub mod serve;
mod stop;

pub use generate::{Finish, Generator, Reason};
pub use grammar::{Grammar, Grammars};
pub use rollout::{Completion, Prompt, Rollout, rollout};
pub use sampling::{Sampler, Sampling};
pub use serve::LogProbs;
pub use stop::StopStrings;
