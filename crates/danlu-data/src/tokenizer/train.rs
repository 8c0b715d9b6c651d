//! Training a tokenizer from a stream of texts.

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer as Library;

use super::fast::byte_letters;
use super::split::SPLIT;
use super::{END_OF_TEXT, PAD, TURN_END, TURN_START, Tokenizer, merges, unigram, words};

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Byte-pair encoding over bytes (Radford et al., 2019): loses nothing, has no unknown token.
    #[default]
    Bpe,
    /// A unigram language model over pieces (Kudo, 2018), here over the same bytes and words as [`Kind::Bpe`], so it loses nothing either.
    Unigram,
    /// Longest match from the left with `##` (Schuster and Nakajima, 2012; BERT): drops spacing and has `[UNK]`.
    WordPiece,
    /// Whole words in small letters, and `[UNK]` for the others: drops all that is no letter or digit. For languages that put spaces
    /// between words.
    Words,
}

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainSpec {
    pub kind: Kind,
    /// Tokens in all, special ones included. A small corpus may give fewer.
    pub vocab_size: usize,
    /// A merge, or a word of [`Kind::Words`], must occur this often.
    pub min_frequency: u64,
    /// Training reads at most this many bytes of text; more changes little.
    pub sample_bytes: u64,
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self { kind: Kind::Bpe, vocab_size: 4096, min_frequency: 2, sample_bytes: 256 << 20 }
    }
}

/// What BERT's kind needs besides the tokens all kinds have.
const WORD_PIECE_SPECIAL: [&str; 4] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// All that whole words have besides themselves.
const WORDS_SPECIAL: [&str; 2] = [END_OF_TEXT, "[UNK]"];

/// A word of [`Kind::Words`]: letters with their marks, also around an apostrophe, or digits.
const WORD: &str = r"[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*|\p{N}+";

/// Trains a tokenizer. The result is a function of `spec` and the texts: two runs write the same bytes, whatever the threads.
///
/// # Errors
/// When the texts fail to be read, hold no text, or need more tokens than `vocab_size` for their alphabet alone.
pub fn train(spec: &TrainSpec, texts: impl Iterator<Item = Result<String>>) -> Result<Tokenizer> {
    let mut vocab: Vec<String> = [END_OF_TEXT, TURN_START, TURN_END, PAD].map(str::to_owned).to_vec();
    match spec.kind {
        Kind::Bpe | Kind::Unigram => {}
        Kind::WordPiece => vocab.extend(WORD_PIECE_SPECIAL.map(str::to_owned)),
        Kind::Words => vocab = WORDS_SPECIAL.map(str::to_owned).to_vec(),
    }
    let special = vocab.clone();
    let untrained = library(spec.kind, &special, untrained_model(spec.kind, &special))?;
    let split = match spec.kind {
        Kind::Bpe | Kind::Unigram => words::Split::Bytes,
        Kind::WordPiece | Kind::Words => words::Split::By(&untrained),
    };
    let words = words::count(split, texts, spec.sample_bytes)?;
    if words.is_empty() {
        bail!("there is no text to train a tokenizer on");
    }
    let alphabet = match spec.kind {
        Kind::Bpe | Kind::Unigram => byte_alphabet(),
        Kind::WordPiece => character_alphabet(&words, spec.vocab_size.saturating_sub(special.len())),
        Kind::Words => vec![],
    };
    let least = special.len() + alphabet.len();
    if spec.vocab_size < least {
        bail!("a vocabulary of {} is too small: special tokens and the alphabet alone take {least}", spec.vocab_size);
    }
    let model = match spec.kind {
        Kind::Bpe => {
            vocab.extend(alphabet);
            let learnt = merges::learn(vocab, &words, "", spec.vocab_size, spec.min_frequency);
            let names = |&(a, b): &(u32, u32)| json!([learnt.vocab[a as usize], learnt.vocab[b as usize]]);
            let pairs: Vec<_> = learnt.merges.iter().map(names).collect();
            bpe_model(&learnt.vocab, pairs)
        }
        Kind::Unigram => unigram_model(unigram::learn(&special, alphabet, words, spec.vocab_size)?),
        Kind::WordPiece => {
            vocab.extend(alphabet);
            word_piece_model(&merges::learn(vocab, &words, CONTINUES, spec.vocab_size, spec.min_frequency).vocab)
        }
        Kind::Words => {
            vocab.extend(frequent(words, spec.vocab_size - special.len(), spec.min_frequency)?);
            words_model(&vocab)
        }
    };
    let json = serde_json::to_vec(&file(spec.kind, &special, model))?;
    Tokenizer::from_json(&json, Some(END_OF_TEXT)).context("the tokenizer just trained cannot be read back")
}

const CONTINUES: &str = "##";

fn bpe_model(vocab: &[String], merges: Vec<Value>) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": numbered(vocab), "merges": merges,
    })
}

fn unigram_model(pieces: Vec<(String, f64)>) -> Value {
    json!({ "type": "Unigram", "unk_id": null, "vocab": pieces, "byte_fallback": false })
}

fn word_piece_model(vocab: &[String]) -> Value {
    json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": CONTINUES, "max_input_chars_per_word": 100,
        "vocab": numbered(vocab),
    })
}

fn words_model(vocab: &[String]) -> Value {
    json!({ "type": "WordLevel", "unk_token": "[UNK]", "vocab": numbered(vocab) })
}

/// The most frequent words, the most frequent first; of equally frequent ones the first in the order of their letters.
fn frequent(mut words: Vec<(String, u64)>, most: usize, least: u64) -> Result<Vec<String>> {
    words.retain(|(_, count)| *count >= least);
    if words.is_empty() {
        bail!("no word occurs {least} times, so there is no vocabulary; give more text, or ask for fewer occurrences");
    }
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    words.truncate(most);
    Ok(words.into_iter().map(|(word, _)| word).collect())
}

/// The model before training, so that the same file describes how text is split then and later.
fn untrained_model(kind: Kind, special: &[String]) -> Value {
    match kind {
        Kind::Bpe => bpe_model(special, vec![]),
        Kind::Unigram => unigram_model(special.iter().map(|token| (token.clone(), 0.0)).collect()),
        Kind::WordPiece => word_piece_model(special),
        Kind::Words => words_model(special),
    }
}

fn library(kind: Kind, special: &[String], model: Value) -> Result<Library> {
    let json = serde_json::to_vec(&file(kind, special, model))?;
    let mut library = Library::from_bytes(&json).map_err(|e| anyhow!("cannot set up the tokenizer: {e}"))?;
    library.set_encode_special_tokens(true);
    Ok(library)
}

/// A whole `tokenizer.json`.
fn file(kind: Kind, special: &[String], model: Value) -> Value {
    let added: Vec<_> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true })
        })
        .collect();
    let (normalizer, pre_tokenizer, decoder) = match kind {
        Kind::Bpe | Kind::Unigram => {
            let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
            let split = json!({ "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false });
            (Value::Null, json!({ "type": "Sequence", "pretokenizers": [split, bytes] }), bytes)
        }
        Kind::WordPiece => (
            json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": false, "lowercase": false }),
            json!({ "type": "BertPreTokenizer" }),
            json!({ "type": "WordPiece", "prefix": CONTINUES, "cleanup": true }),
        ),
        Kind::Words => (
            json!({ "type": "Lowercase" }),
            json!({ "type": "Split", "pattern": { "Regex": WORD }, "behavior": "Removed", "invert": true }),
            Value::Null,
        ),
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    })
}

fn numbered(vocab: &[String]) -> Map<String, Value> {
    vocab.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
}

/// The 256 characters that stand for bytes, in the order of their code points.
pub(super) fn byte_alphabet() -> Vec<String> {
    let mut characters = byte_letters();
    characters.sort_unstable();
    characters.into_iter().map(String::from).collect()
}

/// The most frequent characters, plain and continuing, in at most a quarter of the vocabulary: rare ones of large scripts become `[UNK]`.
fn character_alphabet(words: &[(String, u64)], vocab_size: usize) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for (word, count) in words {
        for (i, c) in word.chars().enumerate() {
            let token = if i == 0 { c.to_string() } else { format!("{CONTINUES}{c}") };
            *counts.entry(token).or_default() += count;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(vocab_size.div_ceil(4));
    let mut alphabet: Vec<_> = counts.into_iter().map(|(token, _)| token).collect();
    alphabet.sort_unstable();
    alphabet
}
