//! From a conversation to tokens, with the mask of those that the assistant says.
//!
//! Where an answer begins and ends is not looked for by its words, which templates strip, move and wrap, but by writing the conversation up
//! to it with the prompt for an answer, and with the answer: what the second has and the first has not is the answer, its end of turn
//! included. This is right whatever the template, as long as it only ever appends; where it does not, that is found and said.

use std::ops::Range;

use anyhow::{Context, Result, anyhow, bail};

use super::{Conversation, Message, Role, Template};
use crate::tokenizer::Tokenizer;

/// A conversation as a model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    /// For each token whether predicting it carries loss: the assistant's words and the token that ends its turn.
    pub loss: Vec<bool>,
    /// Bytes of text whose tokens carry loss, ends of turns not counted.
    pub bytes: u64,
}

/// Writes and encodes conversations for one model.
#[derive(Clone)]
pub struct Encoder {
    template: Template,
    tokenizer: Tokenizer,
    turn_end: u32,
}

impl Encoder {
    /// An encoder for the model that reads `template` with `tokenizer`.
    ///
    /// # Errors
    /// When the template writes no token at the end of an assistant's turn: a model trained with it would never learn to stop.
    pub fn new(template: Template, tokenizer: Tokenizer) -> Result<Self> {
        let probe = [Message::user("Hello"), Message::assistant("Goodbye")];
        let (text, spans) = spans(&template, &Conversation::new(probe.to_vec()), Which::Last)?;
        let mut encoder = Self { template, tokenizer, turn_end: 0 };
        let Masked { ids, ends, .. } = encoder.mask(&text, &spans)?;
        encoder.turn_end = ends.last().map(|&end| ids[end]).context("the template writes no answer")?;
        Ok(encoder)
    }

    pub fn template(&self) -> &Template {
        &self.template
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that ends an assistant's turn: generation stops there.
    pub fn turn_end(&self) -> u32 {
        self.turn_end
    }

    /// A conversation as one sequence in which every answer of the assistant carries loss.
    ///
    /// # Errors
    /// When the template refuses the conversation, leaves a call out, writes an earlier turn otherwise once another follows (use
    /// [`Encoder::rows`]), or when an answer does not end with a token that ends a turn.
    pub fn encode(&self, conversation: &Conversation) -> Result<Encoded> {
        self.encoded(conversation, Which::All)
    }

    /// A conversation in which only the last message, which is the assistant's, carries loss: an answer to a prompt.
    ///
    /// # Errors
    /// As [`Encoder::encode`], and when the last message is not the assistant's.
    pub fn answer(&self, conversation: &Conversation) -> Result<Encoded> {
        self.encoded(conversation, Which::Last)
    }

    /// The tokens of a prompt: messages, and what makes the model answer.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub fn prompt(&self, messages: &[Message], tools: &[serde_json::Value]) -> Result<Vec<u32>> {
        self.tokenizer.encode_with_special(&self.template.render(messages, tools, true)?)
    }

    /// A conversation as one sequence, or, where the template writes earlier turns otherwise once others follow (as those of thinking models
    /// do, which leave earlier thoughts out), as one for each answer, each as the model will see it when it is asked.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn rows(&self, conversation: &Conversation) -> Result<Vec<Encoded>> {
        match self.encode(conversation) {
            Err(error) if error.is::<Rewritten>() => {}
            encoded => return Ok(vec![encoded?]),
        }
        let answers = (0..conversation.messages.len()).filter(|&i| learned(&conversation.messages[i]));
        answers
            .map(|i| {
                let messages = conversation.messages[..=i].to_vec();
                self.answer(&Conversation { messages, ..conversation.clone() })
            })
            .collect()
    }

    fn encoded(&self, conversation: &Conversation, which: Which) -> Result<Encoded> {
        let (text, spans) = spans(&self.template, conversation, which)?;
        let Masked { ids, ends, offsets } = self.mask(&text, &spans)?;
        let mut loss = vec![false; ids.len()];
        let mut bytes = 0;
        for (span, &end) in spans.iter().zip(&ends) {
            // What the template writes after the end of the turn, a line end most often, is never generated.
            (0..=end).filter(|&i| overlaps(&offsets[i], span)).for_each(|i| loss[i] = true);
            bytes += offsets[end].start.saturating_sub(span.start) as u64;
        }
        Ok(Encoded { ids, loss, bytes })
    }

    fn mask(&self, text: &str, spans: &[Range<usize>]) -> Result<Masked> {
        let (ids, offsets) = self.tokenizer.encode_with_special_offsets(text)?;
        let mut ends = Vec::with_capacity(spans.len());
        for span in spans {
            let inside = |i: &usize| offsets[*i].start >= span.start && offsets[*i].end <= span.end;
            let end = (0..ids.len()).rev().filter(inside).find(|&i| self.tokenizer.is_special(ids[i]));
            let end = end.filter(|&i| text[offsets[i].end..span.end].trim().is_empty());
            ends.push(end.with_context(|| {
                let tail = tail(&text[span.clone()], 40);
                format!(
                    "an assistant's turn ends with {tail:?}, which is no special token of the tokenizer: no token that ends the turn would \
                     carry loss, and the model would never learn to stop. Use a template that ends turns with a special token of this \
                     tokenizer, or add the token to the tokenizer"
                )
            })?);
        }
        Ok(Masked { ids, ends, offsets })
    }
}

/// The tokens of a text.
struct Masked {
    ids: Vec<u32>,
    /// For each turn of the assistant, the index of the token that ends it.
    ends: Vec<usize>,
    /// Where each token lies in the text.
    offsets: Vec<Range<usize>>,
}

/// The template wrote an earlier turn otherwise once another followed.
#[derive(Debug)]
struct Rewritten(usize);

impl std::fmt::Display for Rewritten {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self(turn) = self;
        write!(
            f,
            "the chat template writes message {turn} otherwise once others follow it, so its tokens cannot be told apart in one row"
        )
    }
}

impl std::error::Error for Rewritten {}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    All,
    Last,
}

fn learned(message: &Message) -> bool {
    message.role == Role::Assistant && message.train
}

/// The whole text, and where in it the assistant's answers are, each with the end of its turn.
fn spans(template: &Template, conversation: &Conversation, which: Which) -> Result<(String, Vec<Range<usize>>)> {
    let Conversation { messages, tools, .. } = conversation;
    let last = messages.len().saturating_sub(1);
    if which == Which::Last && messages.last().is_none_or(|message| message.role != Role::Assistant) {
        bail!("the last message is not the assistant's, so there is no answer to learn from");
    }
    let whole = template.render(messages, tools, false)?;
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        if !learned(message) || (which == Which::Last && i != last) {
            continue;
        }
        if i == 0 {
            bail!("the conversation begins with the assistant, so its first message answers nothing");
        }
        let with = if i == last { whole.clone() } else { template.render(&messages[..=i], tools, false)? };
        let asked = template.render(&messages[..i], tools, true)?;
        // A prompt for an answer may hold more than an answer that is given, such as the beginning of a thought.
        let start = common(&asked, &with);
        if start < asked.len() && start < template.render(&messages[..i], tools, false)?.len() || !whole.starts_with(&with) {
            return Err(anyhow!(Rewritten(i + 1)));
        }
        check_written(&with[start..], message)?;
        spans.push(start..with.len());
    }
    if spans.is_empty() {
        bail!("it has no answer of an assistant to learn from");
    }
    Ok((whole, spans))
}

/// A template that knows no tools writes nothing for a call, and the model would learn to say nothing.
fn check_written(written: &str, message: &Message) -> Result<()> {
    if let Some(call) = message.tool_calls.iter().find(|call| !written.contains(&call.function.name)) {
        bail!("the chat template does not write the call of {:?}; use one that knows tools", call.function.name);
    }
    let end = tail(message.text().trim(), 24);
    if !written.contains(end) {
        bail!("the chat template leaves out what the assistant says: {end:?} is not in what it writes");
    }
    Ok(())
}

/// At most the last `bytes` of a text.
fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

/// How many bytes two texts begin with alike, whole characters.
fn common(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(same)
}

fn overlaps(token: &Range<usize>, span: &Range<usize>) -> bool {
    token.end > span.start && token.start < span.end
}
