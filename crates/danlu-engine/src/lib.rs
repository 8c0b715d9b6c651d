//! Inference: a prompt goes in, text comes out piece by piece; or many prompts, and their completions together ([`rollout()`]).
//!
//! [`Generator`] joins a decoder and its tokenizer; [`Sampling`] says how the next token is drawn and when to end. The same seed, prompt and
//! weights give the same text.

mod generate;
mod rollout;
mod sampling;
mod stop;

pub use generate::{Finish, Generator, Reason};
pub use rollout::{Completion, Prompt, Rollout, rollout};
pub use sampling::{Sampler, Sampling};
pub use stop::StopStrings;
