//! Evaluation sets: fixed items and a measure, the same for every model of a line.

use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use danlu_data::chat::{Conversation, Encoded, Encoder, append};
use danlu_data::preference::Pair;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Prompt, Rollout, Sampling, rollout};
use danlu_models::{Batch, Decoder};
use serde::{Deserialize, Serialize};

use crate::answers::{chrf, exact_match, rouge_l, token_f1};
use crate::measure::{Document, document_bits};
use crate::preferred::preferred;
use crate::scores::Scores;
use crate::unit::{ANSWER_BITS_PER_BYTE, BITS_PER_BYTE, Better, Unit};

/// Answers that are written at the same time.
const WIDTH: usize = 32;

/// What a set is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Of texts.
    BitsPerByte,
    /// Of what the assistant says in conversations.
    AnswerBitsPerByte,
    /// What the model answers has the words that were expected, and no others.
    ExactMatch,
    /// The words that the answer shares with the one expected.
    TokenF1,
    /// The words that it shares with it in the same order.
    RougeL,
    /// The sequences of characters that it shares with it.
    Chrf,
    /// Of two answers the better one is the likelier, token by token.
    PreferenceAccuracy,
}

impl Metric {
    pub const ALL: [Self; 7] = [
        Self::BitsPerByte,
        Self::AnswerBitsPerByte,
        Self::ExactMatch,
        Self::TokenF1,
        Self::RougeL,
        Self::Chrf,
        Self::PreferenceAccuracy,
    ];

    /// As in recipes: `rouge-l`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits-per-byte",
            Self::AnswerBitsPerByte => "answer-bits-per-byte",
            Self::ExactMatch => "exact-match",
            Self::TokenF1 => "token-f1",
            Self::RougeL => "rouge-l",
            Self::Chrf => "chrf",
            Self::PreferenceAccuracy => "preference-accuracy",
        }
    }

    pub fn unit(self) -> Unit {
        let higher = |name, label| Unit { name, label, better: Better::Higher };
        match self {
            Self::BitsPerByte => BITS_PER_BYTE,
            Self::AnswerBitsPerByte => ANSWER_BITS_PER_BYTE,
            Self::ExactMatch => higher("exact_match", "exact match"),
            Self::TokenF1 => higher("token_f1", "token F1"),
            Self::RougeL => higher("rouge_l", "ROUGE-L"),
            Self::Chrf => higher("chrf", "chrF"),
            Self::PreferenceAccuracy => higher("preference_accuracy", "preference accuracy"),
        }
    }

    /// How near an answer is to the one expected, where the measure is of answers that the model writes.
    fn of_answers(self) -> Option<fn(&str, &str) -> f64> {
        match self {
            Self::BitsPerByte | Self::AnswerBitsPerByte | Self::PreferenceAccuracy => None,
            Self::ExactMatch => Some(exact_match),
            Self::TokenF1 => Some(token_f1),
            Self::RougeL => Some(rouge_l),
            Self::Chrf => Some(chrf),
        }
    }
}

impl FromStr for Metric {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name() == text)
            .ok_or_else(|| anyhow!("{text:?} is no measure; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Items {
    Texts(Vec<String>),
    Conversations(Vec<Conversation>),
    Pairs(Vec<Pair>),
}

/// A set of items with its measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSet {
    pub name: String,
    pub metric: Metric,
    /// The most tokens of an answer.
    pub answer_tokens: usize,
    pub items: Items,
}

/// A model that is measured, with what it reads and writes by.
pub struct Subject<'a> {
    /// Without autodiff.
    pub decoder: &'a Decoder,
    pub tokenizer: &'a Tokenizer,
    /// How it holds conversations, where it can.
    pub encoder: Option<&'a Encoder>,
}

impl EvalSet {
    /// BLAKE3 of all that decides a model's scores: two scores with the same hash are of the same items.
    ///
    /// # Errors
    /// When the items cannot be written as JSON.
    pub fn hash(&self) -> Result<String> {
        let longest = self.metric.of_answers().map(|_| self.answer_tokens);
        Ok(danlu_files::hash_bytes(&serde_json::to_vec(&(self.metric, longest, &self.items))?))
    }

    /// What the model comes to on each item, in their order.
    ///
    /// # Errors
    /// When there is no item, the measure does not suit the items, the model holds no conversations and the items are some, or one does not
    /// fit into its context.
    pub fn scores(&self, subject: &Subject) -> Result<Scores> {
        let scores = match (&self.items, self.metric, self.metric.of_answers()) {
            (Items::Texts(texts), Metric::BitsPerByte, _) => text_bits(subject, texts),
            (Items::Conversations(all), Metric::AnswerBitsPerByte, _) => answers_bits(subject, all),
            (Items::Conversations(all), _, Some(near)) => self.written(subject, all, near),
            (Items::Pairs(all), Metric::PreferenceAccuracy, _) => encoder(subject).and_then(|by| preferred(subject, by, all)),
            (Items::Texts(_), ..) => Err(anyhow!("{} is of conversations, and these are texts", self.metric.name())),
            (Items::Conversations(_), Metric::BitsPerByte, _) => {
                Err(anyhow!("{} is of texts, and these are conversations", self.metric.name()))
            }
            (Items::Conversations(_), ..) => Err(anyhow!("{} is of pairs, and these are conversations", self.metric.name())),
            (Items::Pairs(_), ..) => Err(anyhow!("{} is not of pairs of answers, and these are some", self.metric.name())),
        };
        scores.with_context(|| format!("{} cannot be measured on {}", self.metric.name(), self.name))
    }

    /// Greedy answers, each compared with the conversation's own.
    fn written(&self, subject: &Subject, conversations: &[Conversation], near: fn(&str, &str) -> f64) -> Result<Scores> {
        let start = Instant::now();
        let encoder = encoder(subject)?;
        let (mut prompts, mut expected) = (Vec::new(), Vec::new());
        for conversation in conversations {
            let Some((before, answer)) = conversation.split_last() else { bail!("a conversation does not end with an answer") };
            prompts.push(Prompt { index: prompts.len() as u64, ids: encoder.prompt(before, &conversation.tools)? });
            expected.push(answer.text());
        }
        let spec = Rollout {
            max_tokens: self.answer_tokens,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            ends: vec![encoder.turn_end(), subject.tokenizer.end_of_text()],
            width: WIDTH,
            ..Rollout::default()
        };
        let (mut items, mut tokens) = (Vec::new(), 0);
        for (completion, expected) in rollout(subject.decoder, &prompts, &spec)?.iter().zip(&expected) {
            tokens += completion.tokens.len() as u64;
            let end = completion.tokens.len() - usize::from(completion.ended);
            let answer = subject.tokenizer.decode_text(&completion.tokens[..end])?;
            items.push((near(answer.trim(), expected), 1.0));
        }
        ensure!(!items.is_empty(), "it has no items");
        Ok(Scores { unit: self.metric.unit(), items, tokens, bytes: 0, seconds: start.elapsed().as_secs_f64() })
    }
}

fn encoder<'a>(subject: &'a Subject) -> Result<&'a Encoder> {
    subject.encoder.context("the model holds no conversations: it has no chat template whose turns its tokenizer can end")
}

fn text_bits(subject: &Subject, texts: &[String]) -> Result<Scores> {
    let documents: Vec<Document> = texts
        .iter()
        .map(|text| {
            let mut tokens = vec![subject.tokenizer.end_of_text()];
            tokens.extend(subject.tokenizer.encode(text)?);
            Ok(Document { tokens: tokens.into(), bytes: text.len() as u64 })
        })
        .collect::<Result<_>>()?;
    document_bits(|batch| subject.decoder.token_nll(batch), subject.decoder.context(), documents.into_iter(), None)
}

fn answers_bits(subject: &Subject, conversations: &[Conversation]) -> Result<Scores> {
    let (start, encoder) = (Instant::now(), encoder(subject)?);
    let (mut items, mut tokens) = (Vec::new(), 0);
    for conversation in conversations {
        // Rows of one conversation are one item: what was sampled independently.
        let (mut bits, mut bytes) = (0.0, 0.0);
        for row in encoder.rows(conversation)? {
            ensure!(
                row.ids.len() <= subject.decoder.context(),
                "a conversation has {} tokens, and the model's context {}",
                row.ids.len(),
                subject.decoder.context()
            );
            tokens += row.ids.len() as u64;
            let (of_row, long) = answer_bits(subject.decoder, &row);
            (bits, bytes) = (bits + of_row, bytes + long);
        }
        items.push((bits, bytes));
    }
    ensure!(!items.is_empty(), "it has no items");
    ensure!(items.iter().all(|(bits, _)| bits.is_finite()), "the model's likelihood of an answer is not a number");
    let bytes = items.iter().map(|item| item.1).sum::<f64>() as u64;
    Ok(Scores { unit: ANSWER_BITS_PER_BYTE, items, tokens, bytes, seconds: start.elapsed().as_secs_f64() })
}

/// The bits that the decoder needs for the answers of a conversation, and the bytes that they have.
pub fn answer_bits(decoder: &Decoder, one: &Encoded) -> (f64, f64) {
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    append(one, &mut ids, &mut targets);
    let length = ids.len();
    let nll = decoder.token_nll(&Batch::new(ids, targets, 1, length, vec![]));
    let bits = nll.iter().map(|&nats| f64::from(nats)).sum::<f64>() / std::f64::consts::LN_2;
    (bits, one.bytes.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_names() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse::<Metric>().unwrap(), metric);
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
        let error = "rouge".parse::<Metric>().unwrap_err().to_string();
        assert!(error.contains("rouge-l"), "{error}");
    }

    #[test]
    fn the_hash_is_of_items_and_measure() {
        let set = |metric, text: &str, name: &str| EvalSet {
            name: name.into(),
            metric,
            answer_tokens: 8,
            items: Items::Texts(vec![text.into()]),
        };
        let hash = |metric, text, name| set(metric, text, name).hash().unwrap();
        let one = hash(Metric::BitsPerByte, "a", "x");
        assert_eq!(one, hash(Metric::BitsPerByte, "a", "y"), "whatever it is called");
        assert_ne!(one, hash(Metric::BitsPerByte, "b", "x"));
        assert_ne!(one, hash(Metric::Chrf, "a", "x"));
    }
}
