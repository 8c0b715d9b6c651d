//! Text as tokens arrive.

use anyhow::Result;

use super::Tokenizer;

/// So many tokens that end in half a character are not half a character but bytes that are no text; they are let out then.
const HELD: usize = 16;

/// Turns tokens into text one at a time and never shows half a character: bytes are held until they are whole. The pieces together
/// are what [`Tokenizer::decode_text`] gives for all the tokens.
pub struct DecodeStream {
    tokenizer: Tokenizer,
    /// The tokens of the last piece, which some decoders need to see to treat the next one rightly, then those not yet shown.
    ids: Vec<u32>,
    /// How many of `ids` have been shown, and their text.
    shown: usize,
    prefix: String,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), shown: 0, prefix: String::new() }
    }

    /// The text that became whole with this token; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode_text(&self.ids)?;
        let incomplete = text.ends_with(char::REPLACEMENT_CHARACTER) && self.ids.len() - self.shown < HELD;
        if incomplete || text.len() <= self.prefix.len() {
            return Ok(String::new());
        }
        self.advance(text)
    }

    /// What is still held, at the end of the stream: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode_text(&self.ids)?;
        self.advance(text)
    }

    fn advance(&mut self, text: String) -> Result<String> {
        let piece = text.strip_prefix(self.prefix.as_str()).unwrap_or(&text).to_owned();
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        self.prefix = self.tokenizer.decode_text(&self.ids)?;
        Ok(piece)
    }
}
