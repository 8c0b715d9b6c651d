//! Texts as vectors.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use danlu_data::labelled::Frame;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Backbone, BackboneConfig, Texts};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};

use crate::writer::Writer;

/// The most tokens of one forward pass, so that its memory is bounded; a single text may have more.
const PASS: usize = 4_096;
/// A file of settings is small.
const LIMIT: u64 = 1 << 20;
/// Where `sentence-transformers` keeps how states become a vector.
const POOLING: &str = "1_Pooling/config.json";

/// Makes a vector of each text: the mean of its tokens' last states, or what the model's folder names instead, scaled to length 1 as
/// `sentence-transformers` does ([Reimers & Gurevych 2019](https://arxiv.org/abs/1908.10084)).
pub struct Embedder {
    backbone: Backbone,
    reader: Reader,
    pooling: Pooling,
    vocabulary: usize,
    size: usize,
    context: usize,
    /// The most requests that wait.
    pub queue: usize,
    /// One for each request that waits, and one for that which is worked on.
    pub places: Semaphore,
    /// One forward pass at a time has all threads.
    pub turn: Mutex<()>,
}

/// How a text becomes tokens.
pub enum Reader {
    /// An encoder's, with `[CLS]` before and `[SEP]` after.
    Framed(Frame),
    /// A decoder's, as every text of it begins.
    Begun(Arc<Writer>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pooling {
    Mean,
    First,
    Last,
}

impl Reader {
    /// # Errors
    /// Never for a tokenizer that could be loaded.
    pub fn framed(tokenizer: Tokenizer) -> Result<Self> {
        // Nothing is cut here: what is too long is refused.
        Ok(Self::Framed(Frame::new(tokenizer, usize::MAX)?))
    }
}

impl Embedder {
    /// # Errors
    /// When the folder names a way of pooling that is not known here.
    pub fn new(folder: &Path, backbone: Backbone, config: BackboneConfig, reader: Reader, queue: usize) -> Result<Self> {
        let path = folder.join(POOLING);
        let pooling = if path.is_file() {
            let settings = serde_json::from_str(&danlu_files::read_text_bounded(&path, LIMIT)?)
                .with_context(|| format!("{} is not JSON", path.display()))?;
            pooling(&settings).with_context(|| format!("in {}", path.display()))?
        } else {
            Pooling::Mean
        };
        let (vocabulary, size, context) = (config.vocab_size(), config.hidden_size(), backbone.context());
        let (places, turn) = (Semaphore::new(queue.saturating_add(1).min(Semaphore::MAX_PERMITS)), Mutex::new(()));
        Ok(Self { backbone, reader, pooling, vocabulary, size, context, queue, places, turn })
    }

    /// The tokens of a text, with those that stand around every text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.reader {
            Reader::Framed(frame) => Ok(frame.encode(text, None)?.ids),
            Reader::Begun(writer) => writer.encode(text),
        }
    }

    /// Checks that the model can read a text.
    ///
    /// # Errors
    /// When it has no token, too many, or one that the model does not have.
    pub fn check(&self, ids: &[u32]) -> Result<(), TextError> {
        if ids.is_empty() {
            return Err(TextError::Wrong("a text without tokens has no embedding".to_owned()));
        }
        if ids.len() > self.context {
            return Err(TextError::TooLong { tokens: ids.len(), context: self.context });
        }
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            Some(id) => Err(TextError::Wrong(format!("token {id} is outside the model's vocabulary of {}", self.vocabulary))),
            None => Ok(()),
        }
    }

    /// The vectors of texts that were checked, each of length 1, in one forward pass.
    ///
    /// # Errors
    /// When the device fails.
    pub fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let kinds: Vec<Vec<u32>> = texts.iter().map(|text| vec![0; text.len()]).collect();
        let read = Texts::new(texts.iter().zip(&kinds).map(|(ids, kinds)| (&ids[..], &kinds[..])));
        let states = self.backbone.hidden(&read, false).into_data().convert::<f32>();
        let states: Vec<f32> = states.try_into_vec().map_err(|error| anyhow!("no states came back: {error:?}"))?;
        let vectors = read.segments.iter().map(|text| {
            let states = &states[text.start * self.size..text.end * self.size];
            pool(states, self.size, self.pooling)
        });
        let mut vectors: Vec<Vec<f32>> = vectors.collect();
        vectors.iter_mut().for_each(|vector| to_length_1(vector));
        Ok(vectors)
    }

    /// How many tokens it knows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// How many numbers a vector has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The longest text, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }
}

/// Why a text cannot be embedded.
#[derive(Debug, PartialEq)]
pub enum TextError {
    TooLong { tokens: usize, context: usize },
    Wrong(String),
}

/// Texts in their order, in groups for one forward pass each.
pub fn passes(texts: Vec<Vec<u32>>) -> Vec<Vec<Vec<u32>>> {
    let (mut passes, mut tokens): (Vec<Vec<Vec<u32>>>, usize) = (vec![], 0);
    for text in texts {
        match passes.last_mut() {
            Some(pass) if tokens + text.len() <= PASS => {
                tokens += text.len();
                pass.push(text);
            }
            _ => {
                tokens = text.len();
                passes.push(vec![text]);
            }
        }
    }
    passes
}

/// Scales a vector to length 1; one of zeros stays as it is.
pub fn to_length_1(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
}

/// The one of a text's states `[tokens, size]`.
fn pool(states: &[f32], size: usize, pooling: Pooling) -> Vec<f32> {
    match pooling {
        Pooling::First => states[..size].to_vec(),
        Pooling::Last => states[states.len() - size..].to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0_f32; size];
            for state in states.chunks_exact(size) {
                sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += x);
            }
            let tokens = (states.len() / size) as f32;
            sum.into_iter().map(|sum| sum / tokens).collect()
        }
    }
}

fn pooling(settings: &Value) -> Result<Pooling> {
    let known = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::First),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let asked: Vec<&str> = settings
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("pooling_mode_") && **value == Value::Bool(true))
        .map(|(key, _)| key.as_str())
        .collect();
    let [asked] = asked[..] else { bail!("one way of pooling is needed; there are {}: {}", asked.len(), asked.join(", ")) };
    match known.into_iter().find(|(name, _)| *name == asked) {
        Some((_, pooling)) => Ok(pooling),
        None => bail!("{asked} is not supported; mean, cls and last token are"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_become_one_vector_of_length_1() {
        let states = [1.0, 2.0, 3.0, 6.0, 5.0, 1.0];
        assert_eq!(pool(&states, 2, Pooling::Mean), [3.0, 3.0]);
        assert_eq!((pool(&states, 2, Pooling::First), pool(&states, 2, Pooling::Last)), (vec![1.0, 2.0], vec![5.0, 1.0]));
        let mut vector = [3.0, -4.0];
        to_length_1(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut nothing = [0.0, 0.0];
        to_length_1(&mut nothing);
        assert_eq!(nothing, [0.0, 0.0]);
    }

    #[test]
    fn the_way_of_pooling_is_the_folders() {
        let mode =
            |name: &str| pooling(&json!({"word_embedding_dimension": 384, "pooling_mode_max_tokens": false, (name): true}));
        assert_eq!(mode("pooling_mode_cls_token").unwrap(), Pooling::First);
        assert_eq!(mode("pooling_mode_mean_tokens").unwrap(), Pooling::Mean);
        assert!(mode("pooling_mode_max_tokens").unwrap_err().to_string().contains("max_tokens is not supported"));
        assert!(pooling(&json!({})).is_err() && pooling(&json!(3)).is_err());
    }

    #[test]
    fn passes_hold_all_texts_in_their_order() {
        let lengths = [PASS - 1, 1, 1, PASS + 5, 3, PASS, 2];
        let texts: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, length)| vec![i as u32; *length]).collect();
        let passes = passes(texts.clone());
        assert_eq!(passes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1, 1, 1]);
        assert_eq!(passes.concat(), texts);
        assert!(super::passes(vec![]).is_empty());
    }
}
