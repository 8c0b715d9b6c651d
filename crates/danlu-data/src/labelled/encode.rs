//! Labelled texts as tokens.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::record::{Example, Label, spaced};
use crate::sampler::IGNORE;
use crate::tokenizer::{TURN_END, Tokenizer};

/// What stands around a text: `begin text between pair between`. The last of it is what a decoder sums a text up in.
#[derive(Clone)]
pub struct Frame {
    tokenizer: Tokenizer,
    begin: u32,
    between: u32,
    /// The most tokens of a whole row.
    longest: usize,
}

/// A text as a model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedExample {
    pub ids: Vec<u32>,
    /// Which text of a pair each token belongs to.
    pub kinds: Vec<u32>,
    /// For tags, the place of each token's tag in the list of tags, at the first token of each word; [`IGNORE`] elsewhere.
    pub tags: Vec<u32>,
    /// Whether something was cut off to fit.
    pub cut: bool,
}

impl Frame {
    /// BERT's `[CLS]` and `[SEP]` where they are; else the token that ends documents before a text, as in pretraining, and behind it the one that
    /// ends turns: what a decoder makes of the former says that a document begins, and it would have to unlearn that first.
    ///
    /// # Errors
    /// When rows of `longest` tokens leave no room for a text.
    pub fn new(tokenizer: Tokenizer, longest: usize) -> Result<Self> {
        ensure!(longest >= 8, "rows of {longest} tokens leave no room for a text; raise `model.context` to 8 or more");
        let end = tokenizer.end_of_text();
        let begin = tokenizer.token_to_id("[CLS]").filter(|_| tokenizer.token_to_id("[SEP]") == Some(end)).unwrap_or(end);
        let between = if begin == end { tokenizer.token_to_id(TURN_END).unwrap_or(end) } else { end };
        Ok(Self { tokenizer, begin, between, longest })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that other programs fill rows with: none that a text ends with, since they look for the last one that is another.
    pub fn padding(&self) -> Option<u32> {
        let named = ["[PAD]", "<|pad|>", "<pad>", "<|im_start|>"].iter().find_map(|name| self.tokenizer.token_to_id(name));
        let special = (0..self.tokenizer.vocab_size() as u32).filter(|id| self.tokenizer.is_special(*id));
        named.into_iter().chain(special).find(|id| *id != self.begin && *id != self.between)
    }

    /// The tokenizer with this frame as its post-processor, so that other programs read texts as they were trained on.
    ///
    /// # Errors
    /// When the tokenizer cannot be written or read back.
    pub fn framed(&self) -> Result<Tokenizer> {
        let mut file: Value = serde_json::from_str(&self.tokenizer.to_json()?)?;
        let name = |id| self.tokenizer.id_to_token(id).context("the tokens around a text have no names");
        let (begin, between) = (name(self.begin)?, name(self.between)?);
        let special = |name: &str, kind: u32| json!({"SpecialToken": {"id": name, "type_id": kind}});
        let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
        let mut known = serde_json::Map::new();
        for (name, id) in [(&begin, self.begin), (&between, self.between)] {
            known.insert(name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}));
        }
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [special(&begin, 0), text("A", 0), special(&between, 0)],
            "pair": [special(&begin, 0), text("A", 0), special(&between, 0), text("B", 1), special(&between, 1)],
            "special_tokens": known,
        });
        let end = self.tokenizer.id_to_token(self.tokenizer.end_of_text());
        Tokenizer::from_json(&serde_json::to_vec(&file)?, end.as_deref())
    }

    /// A text and the one beside it. What does not fit is cut from the longer of the two, at its end.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<EncodedExample> {
        let mut first = self.tokenizer.encode(text)?;
        let mut second = pair.map(|pair| self.tokenizer.encode(pair)).transpose()?;
        let room = self.longest - if second.is_some() { 3 } else { 2 };
        let mut cut = false;
        while first.len() + second.as_ref().map_or(0, Vec::len) > room {
            cut = true;
            match &mut second {
                Some(second) if second.len() > first.len() => second.pop(),
                _ => first.pop(),
            };
        }
        let mut ids = vec![self.begin];
        ids.extend(first);
        ids.push(self.between);
        let mut kinds = vec![0; ids.len()];
        if let Some(second) = second {
            kinds.resize(ids.len() + second.len() + 1, 1);
            ids.extend(second);
            ids.push(self.between);
        }
        Ok(EncodedExample { tags: vec![], ids, kinds, cut })
    }

    /// An example; `tag` gives the place of a tag in the list of tags.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    pub fn example(&self, example: &Example, tag: impl Fn(&str) -> Option<u32>) -> Result<EncodedExample> {
        let Label::Tags(words) = &example.label else { return self.encode(&example.text, example.pair.as_deref()) };
        let (mut ids, mut tags, mut cut) = (vec![self.begin], vec![IGNORE], false);
        let mut before = None;
        for (word, name) in words {
            let space = if spaced(before, word.chars().next()) { " " } else { "" };
            before = word.chars().next_back();
            let pieces = self.tokenizer.encode(&format!("{space}{word}"))?;
            if ids.len() + pieces.len() + 1 > self.longest {
                cut = true;
                break;
            }
            // The first piece of a word speaks for it.
            let first = tag(name).unwrap_or(IGNORE);
            tags.extend(pieces.iter().enumerate().map(|(i, _)| if i == 0 { first } else { IGNORE }));
            ids.extend(pieces);
        }
        ids.push(self.between);
        tags.push(IGNORE);
        Ok(EncodedExample { kinds: vec![0; ids.len()], ids, tags, cut })
    }
}
