//! What people prefer: pairs of a better and a worse answer, answers that were judged good or bad, and answers in their order.

mod encode;
mod parse;
#[cfg(test)]
mod tests;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use encode::{Answer, EncodedJudged, EncodedPair, Fitted, fit};

use crate::chat::{Conversation, Message, Records, read_with};
use crate::source::Source;

/// Two answers to one prompt, of which one is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The messages before the answers, and the tools there are.
    pub prompt: Conversation,
    pub chosen: Message,
    pub rejected: Message,
    /// By how much the first is better, where somebody said so.
    pub margin: Option<f64>,
}

/// An answer and whether it is good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub prompt: Conversation,
    pub answer: Message,
    pub good: bool,
}

/// What one record says. An order of n answers is the pairs that follow from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Preference {
    Pairs(Vec<Pair>),
    Judged(Judged),
}

/// Reads preferences from JSON, JSON lines and parquet, in the forms in which TRL and LLaMA-Factory keep them:
///
/// - pairs: a prompt (`prompt` as text or messages, `conversations`, `messages`, or `instruction` and `input`) with `chosen` and `rejected`, each
///   text, a message, or messages; or `chosen` and `rejected` as whole conversations that differ in their last message; and `margin`, or
///   `score_chosen` and `score_rejected`;
/// - judgements: a prompt with `completion`, or a conversation that ends with the answer, and `label` (or `kto_tag`) true or false;
/// - orders: a prompt with `ranking`, a list of answers from the best to the worst, or `answers` with `scores`.
///
/// # Errors
/// As [`crate::chat::read`]: a record that cannot be used is passed over and kept with file, line and reason; too many are an error.
pub fn read(sources: &[Source]) -> Result<Records<Preference>> {
    read_with(sources, parse::preference)
}

/// All pairs, in order. Judgements make none.
pub fn pairs(preferences: &[Preference]) -> Vec<Pair> {
    let of = |preference: &Preference| match preference {
        Preference::Pairs(pairs) => pairs.clone(),
        Preference::Judged(_) => vec![],
    };
    preferences.iter().flat_map(of).collect()
}

/// All judgements, in order. A pair makes two.
pub fn judged(preferences: &[Preference]) -> Vec<Judged> {
    let two = |pair: &Pair| {
        let one = |answer: &Message, good| Judged { prompt: pair.prompt.clone(), answer: answer.clone(), good };
        [one(&pair.chosen, true), one(&pair.rejected, false)]
    };
    let of = |preference: &Preference| match preference {
        Preference::Pairs(pairs) => pairs.iter().flat_map(two).collect(),
        Preference::Judged(judged) => vec![judged.clone()],
    };
    preferences.iter().flat_map(of).collect()
}

/// Whether each prompt is held out, by what stands in it, so that one question is on one side only; see [`crate::chat::held_out`].
pub fn held_out<'a>(prompts: impl IntoIterator<Item = &'a Conversation>, share: f64, seed: u64) -> Vec<bool> {
    let prompts: Vec<Conversation> = prompts.into_iter().cloned().collect();
    crate::chat::held_out(&prompts, share, seed)
}
