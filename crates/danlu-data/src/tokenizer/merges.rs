//! Byte-pair encoding: which pairs of symbols to merge, most frequent first (Sennrich et al., 2016).
//!
//! The library's trainer keeps several entries of one pair in its queue, each with its own list of words, and which comes first depends on
//! a hash seed drawn at start. Here a pair has one count and one list, and ties go to the smaller ids, so the result is a function of
//! the word counts alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

type Pair = (u32, u32);

/// A vocabulary in the order of ids, and the merges in the order in which they apply.
pub(super) struct Merges {
    pub vocab: Vec<String>,
    pub merges: Vec<Pair>,
}

/// Learns merges until the vocabulary has `vocab_size` tokens or no pair occurs `min_frequency` times.
///
/// `vocab` holds the tokens to begin with (special ones, the alphabet). A word is split into characters; those after the first carry `prefix`
/// (`##` for WordPiece). Characters outside the alphabet end up in no pair.
pub(super) fn learn(vocab: Vec<String>, words: &[(String, u64)], prefix: &str, vocab_size: usize, min_frequency: u64) -> Merges {
    let mut learner = Learner::new(vocab, words, prefix);
    let (mut merges, mut known) = (Vec::new(), HashSet::new());
    while learner.vocab.len() < vocab_size {
        let Some(pair) = learner.most_frequent(min_frequency.max(1)) else { break };
        learner.merge(pair, prefix);
        // A token can be reached in two ways, so a pair can appear again after it was merged. It keeps its first place in the order.
        if known.insert(pair) {
            merges.push(pair);
        }
    }
    Merges { vocab: learner.vocab, merges }
}

struct Word {
    symbols: Vec<u32>,
    count: i64,
}

/// Marks a character outside the alphabet; it pairs with nothing.
const UNKNOWN: u32 = u32::MAX;

struct Learner {
    vocab: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<Word>,
    counts: HashMap<Pair, i64>,
    /// The words a pair was ever seen in. A word may have lost the pair since; merging finds nothing there then.
    places: HashMap<Pair, Vec<u32>>,
    /// Counts as they were when pushed. A stale entry is pushed again with its true count when it comes up.
    queue: BinaryHeap<(i64, Reverse<Pair>)>,
}

impl Learner {
    fn new(vocab: Vec<String>, words: &[(String, u64)], prefix: &str) -> Self {
        let ids: HashMap<String, u32> = vocab.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
        let symbol = |i: usize, c: char| {
            let token = if i == 0 { c.to_string() } else { format!("{prefix}{c}") };
            ids.get(&token).copied().unwrap_or(UNKNOWN)
        };
        let words: Vec<_> = words
            .iter()
            .map(|(word, count)| Word {
                symbols: word.chars().enumerate().map(|(i, c)| symbol(i, c)).collect(),
                count: i64::try_from(*count).unwrap_or(i64::MAX),
            })
            .collect();
        let mut learner = Self { vocab, ids, words, counts: HashMap::new(), places: HashMap::new(), queue: BinaryHeap::new() };
        for (index, word) in learner.words.iter().enumerate() {
            for pair in pairs(&word.symbols) {
                *learner.counts.entry(pair).or_default() += word.count;
                let places = learner.places.entry(pair).or_default();
                if places.last() != Some(&(index as u32)) {
                    places.push(index as u32);
                }
            }
        }
        learner.queue = learner.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        learner
    }

    fn most_frequent(&mut self, min_frequency: u64) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count {
                return (count as u64 >= min_frequency).then_some(pair);
            }
            if now > 0 {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair, prefix: &str) {
        let second = &self.vocab[pair.1 as usize];
        let token = format!("{}{}", self.vocab[pair.0 as usize], second.strip_prefix(prefix).unwrap_or(second));
        let id = *self.ids.entry(token).or_insert_with_key(|token| {
            self.vocab.push(token.clone());
            (self.vocab.len() - 1) as u32
        });
        let mut grown: HashMap<Pair, Vec<u32>> = HashMap::new();
        for index in self.places.remove(&pair).unwrap_or_default() {
            let word = &mut self.words[index as usize];
            let merged = replace(&word.symbols, pair, id);
            if merged.len() == word.symbols.len() {
                continue;
            }
            for old in pairs(&word.symbols) {
                *self.counts.entry(old).or_default() -= word.count;
            }
            for new in pairs(&merged) {
                *self.counts.entry(new).or_default() += word.count;
                if new.0 == id || new.1 == id {
                    let places = grown.entry(new).or_default();
                    if places.last() != Some(&index) {
                        places.push(index);
                    }
                }
            }
            word.symbols = merged;
        }
        self.counts.remove(&pair);
        for (new, places) in grown {
            self.queue.push((self.counts[&new], Reverse(new)));
            self.places.entry(new).or_default().extend(places);
        }
    }
}

fn pairs(symbols: &[u32]) -> impl Iterator<Item = Pair> {
    symbols.windows(2).map(|w| (w[0], w[1])).filter(|&(a, b)| a != UNKNOWN && b != UNKNOWN)
}

/// Replaces the pair by `id` from left to right: `aaa` with the pair `aa` becomes `(aa)a`.
fn replace(symbols: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(symbols.len());
    let mut i = 0;
    while i < symbols.len() {
        if i + 1 < symbols.len() && (symbols[i], symbols[i + 1]) == pair {
            out.push(id);
            i += 2;
        } else {
            out.push(symbols[i]);
            i += 1;
        }
    }
    out
}
