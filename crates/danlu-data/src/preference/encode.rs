//! Preferences as tokens that fit a model.

use anyhow::{Result, bail};
use rayon::prelude::*;

use super::{Judged, Pair};
use crate::chat::{Conversation, Encoder, Message};

/// A prompt and an answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The prompt's tokens, then the answer's, of which the last ends the turn.
    pub ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub prompt: usize,
}

/// Two answers to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedPair {
    pub chosen: Answer,
    pub rejected: Answer,
    /// Zero where nobody said by how much the first is better.
    pub margin: f32,
}

/// An answer and whether it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedJudged {
    pub answer: Answer,
    pub good: bool,
}

/// What fits, and how much did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted<T> {
    pub kept: Vec<T>,
    /// Where each came from, so that what is held out stays so.
    pub places: Vec<usize>,
    /// Left out because they are longer than the model can read.
    pub too_long: usize,
    /// Left out because the template writes both answers alike.
    pub alike: usize,
}

impl Answer {
    /// How many tokens the answer itself has.
    pub fn answer_len(&self) -> usize {
        self.ids.len() - self.prompt
    }

    fn new(encoder: &Encoder, prompt: &Conversation, answer: &Message) -> Result<Self> {
        let mut messages = prompt.messages.clone();
        messages.push(answer.clone());
        let encoded = encoder.answer(&Conversation { messages, ..prompt.clone() })?;
        let begin = encoded.loss.iter().position(|&loss| loss);
        let end = encoded.loss.iter().rposition(|&loss| loss);
        let (Some(begin @ 1..), Some(end)) = (begin, end) else { bail!("the template writes no answer after a prompt") };
        // What the template writes after the end of the turn is never predicted.
        Ok(Self { ids: encoded.ids[..=end].to_vec(), prompt: begin })
    }
}

impl EncodedPair {
    /// # Errors
    /// When the template refuses the messages.
    pub fn new(encoder: &Encoder, pair: &Pair) -> Result<Self> {
        let of = |answer| Answer::new(encoder, &pair.prompt, answer);
        Ok(Self { chosen: of(&pair.chosen)?, rejected: of(&pair.rejected)?, margin: pair.margin.unwrap_or(0.0) as f32 })
    }

    /// Tokens of both.
    pub fn tokens(&self) -> usize {
        self.chosen.ids.len() + self.rejected.ids.len()
    }
}

impl EncodedJudged {
    /// # Errors
    /// When the template refuses the messages.
    pub fn new(encoder: &Encoder, judged: &Judged) -> Result<Self> {
        Ok(Self { answer: Answer::new(encoder, &judged.prompt, &judged.answer)?, good: judged.good })
    }
}

/// What [`fit`] asks of its items.
pub trait Fits {
    /// Tokens of the longest sequence.
    fn longest(&self) -> usize;

    /// Whether the two answers are the same tokens.
    fn alike(&self) -> bool;
}

impl Fits for EncodedPair {
    fn longest(&self) -> usize {
        self.chosen.ids.len().max(self.rejected.ids.len())
    }

    fn alike(&self) -> bool {
        self.chosen == self.rejected
    }
}

impl Fits for EncodedJudged {
    fn longest(&self) -> usize {
        self.answer.ids.len()
    }

    fn alike(&self) -> bool {
        false
    }
}

/// Encodes on all threads and leaves out what is longer than `most` tokens. A sequence of n tokens needs n − 1 positions, since the last is
/// only predicted.
///
/// # Errors
/// The first that cannot be encoded; or when nothing fits, with the length of the shortest.
pub fn fit<T: Sync, E: Fits + Send>(
    items: &[T],
    most: usize,
    encode: impl Fn(&T) -> Result<E> + Sync + Send,
) -> Result<Fitted<E>> {
    let encoded: Vec<E> = items.par_iter().map(encode).collect::<Result<_>>()?;
    let shortest = encoded.iter().map(Fits::longest).min().unwrap_or(0);
    let mut fitted = Fitted { kept: vec![], places: vec![], too_long: 0, alike: 0 };
    for (place, one) in encoded.into_iter().enumerate() {
        if one.longest() > most + 1 {
            fitted.too_long += 1;
        } else if one.alike() {
            fitted.alike += 1;
        } else {
            fitted.kept.push(one);
            fitted.places.push(place);
        }
    }
    if fitted.kept.is_empty() {
        bail!(
            "none of {} preferences can be used: {} are longer than the {most} tokens that a row may have (the shortest has {shortest}), and {} \
             have two answers that are the same tokens. Raise `model.context`, or give shorter ones",
            items.len(),
            fitted.too_long,
            fitted.alike
        );
    }
    Ok(fitted)
}
