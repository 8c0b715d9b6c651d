//! Byte-level BPE of our own kind without the library's detours: the same ids, an order of magnitude sooner.
//!
//! The library keeps for each word its offsets in the original text and a normalized copy. Here a word is bytes: one that is a token is looked
//! up whole, the others are merged once and remembered.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;
use tokenizers::Tokenizer as Library;

use super::split::{SPLIT, words};

/// Words longer than this are left to the library, whose merging does not grow with the square of the length.
const MAX_WORD: usize = 256;

/// The merged words remembered by one thread; about 10 MB at most.
const MAX_REMEMBERED: usize = 1 << 16;

/// No merge.
const NONE: u32 = u32::MAX;

type Remembered = HashMap<Box<[u8]>, Box<[u32]>>;

pub(super) struct Fast {
    /// The id of each single byte.
    bytes: [u32; 256],
    /// Tokens that merging their own bytes leads to.
    whole: HashMap<Box<[u8]>, u32>,
    merges: Merges,
    /// What threads remember while they do not encode.
    remembered: Mutex<Vec<Remembered>>,
}

impl Fast {
    /// Whether it is worth a look: what text goes through before the model is what [`super::train`] makes of it. Most tokenizers made elsewhere are
    /// told apart here, without their vocabulary being written out.
    pub(super) fn may_be(library: &Library) -> bool {
        library.get_normalizer().is_none()
            && library.get_post_processor().is_none()
            && serde_json::to_value(library.get_pre_tokenizer()).is_ok_and(|steps| splits(&steps))
    }

    /// The fast form of the tokenizer with this `tokenizer.json`, if it is of the kind that [`super::train`] makes.
    pub(super) fn new(json: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(json).ok()?;
        let model = &file["model"];
        let plain = model["type"] == "BPE"
            && ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"]
                .iter()
                .all(|key| model[*key].is_null())
            && model["byte_fallback"] == false
            && model["ignore_merges"] == false
            && file["normalizer"].is_null()
            && file["post_processor"].is_null()
            && file["added_tokens"].as_array()?.iter().all(|token| token["special"] == true)
            && splits(&file["pre_tokenizer"]);
        if !plain {
            return None;
        }
        let letters = byte_letters();
        let vocab = model["vocab"].as_object()?;
        let id = |token: &str| vocab.get(token).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let mut bytes = [0; 256];
        for (byte, letter) in letters.iter().enumerate() {
            bytes[byte] = id(letter.encode_utf8(&mut [0; 4]))?;
        }
        let mut merges = Merges::with_capacity(model["merges"].as_array()?.len());
        for (rank, pair) in model["merges"].as_array()?.iter().enumerate() {
            let (a, b) = (pair[0].as_str()?, pair[1].as_str()?);
            merges.insert(id(a)?, id(b)?, u32::try_from(rank).ok()?, id(&format!("{a}{b}"))?);
        }
        let mut fast = Self { bytes, whole: HashMap::new(), merges, remembered: Mutex::default() };
        let byte: HashMap<char, u8> = letters.iter().zip(0..=u8::MAX).map(|(&letter, byte)| (letter, byte)).collect();
        for token in vocab.keys() {
            // Special tokens are spelt in other characters, or lead elsewhere.
            let Some(word) = token.chars().map(|letter| byte.get(&letter).copied()).collect::<Option<Vec<u8>>>() else {
                continue;
            };
            if word.len() <= MAX_WORD && id(token).is_some_and(|id| fast.merge(&word) == [id]) {
                fast.whole.insert(word.into(), id(token)?);
            }
        }
        Some(fast)
    }

    /// The ids of `text`, or nothing when it has a word for the library.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut remembered = self.remembered.lock().ok().and_then(|mut all| all.pop()).unwrap_or_default();
        let mut whole = true;
        for word in words(text)? {
            let word = word.as_bytes();
            if let Some(&id) = self.whole.get(word) {
                ids.push(id);
            } else if let Some(known) = remembered.get(word) {
                ids.extend_from_slice(known);
            } else if word.len() <= MAX_WORD {
                let merged = self.merge(word);
                ids.extend_from_slice(&merged);
                if remembered.len() >= MAX_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(word.into(), merged.into());
            } else {
                whole = false;
                break;
            }
        }
        if let Ok(mut all) = self.remembered.lock() {
            all.push(remembered);
        }
        whole.then_some(ids)
    }

    /// Merges the bytes of a word, always the pair of least rank and the leftmost of those.
    fn merge(&self, word: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = word.iter().map(|&byte| self.bytes[byte as usize]).collect();
        let pair = |ids: &[u32], at: usize| ids.get(at + 1).map_or((NONE, NONE), |&next| self.merges.get(ids[at], next));
        let mut ranks: Vec<(u32, u32)> = (0..ids.len()).map(|at| pair(&ids, at)).collect();
        while let Some((at, &(rank, merged))) = ranks.iter().enumerate().min_by_key(|(_, (rank, _))| *rank)
            && rank != NONE
        {
            ids[at] = merged;
            ids.remove(at + 1);
            ranks.remove(at + 1);
            ranks[at] = pair(&ids, at);
            if at > 0 {
                ranks[at - 1] = pair(&ids, at - 1);
            }
        }
        ids
    }
}

/// Whether these steps before the model cut text into words by [`SPLIT`] and spell their bytes, and do nothing else.
fn splits(steps: &Value) -> bool {
    let byte_level =
        |step: &Value| step["type"] == "ByteLevel" && step["add_prefix_space"] == false && step["use_regex"] == false;
    let split = |step: &Value| {
        step["type"] == "Split" && step["pattern"]["Regex"] == SPLIT && step["behavior"] == "Isolated" && step["invert"] == false
    };
    match steps["pretokenizers"].as_array().map(Vec::as_slice) {
        Some([first, second]) => split(first) && byte_level(second),
        _ => false,
    }
}

/// A table from pairs of ids to the rank and result of their merge, with open addressing: most lookups miss, and miss at once.
struct Merges {
    /// (pair, rank, merged); [`EMPTY`] where there is none.
    slots: Vec<(u64, u32, u32)>,
}

const EMPTY: u64 = u64::MAX;

impl Merges {
    fn with_capacity(count: usize) -> Self {
        Self { slots: vec![(EMPTY, NONE, NONE); (count * 2 + 1).next_power_of_two()] }
    }

    fn key(a: u32, b: u32) -> u64 {
        u64::from(a) << 32 | u64::from(b)
    }

    /// The slot of the pair, or the empty one where it would be.
    fn slot(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        // Fibonacci hashing; the upper bits are the mixed ones.
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.slots[at].0 != key && self.slots[at].0 != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }

    fn get(&self, a: u32, b: u32) -> (u32, u32) {
        let (_, rank, merged) = self.slots[self.slot(Self::key(a, b))];
        (rank, merged)
    }

    /// As in the library, of a pair given twice the later rank counts. The table has room for twice the pairs it is made for.
    fn insert(&mut self, a: u32, b: u32, rank: u32, merged: u32) {
        let slot = self.slot(Self::key(a, b));
        self.slots[slot] = (Self::key(a, b), rank, merged);
    }
}

/// The character that stands for each byte in a byte-level vocabulary (Radford et al., 2019): itself where it is visible, else the next
/// one from U+0100 on.
pub(super) fn byte_letters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}
