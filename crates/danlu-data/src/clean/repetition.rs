//! How much of a text repeats itself: the measures of Gopher's table A1 (Rae et al., arXiv 2112.11446).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::hash;

/// Keys that are hashes already are their own hash.
#[derive(Default)]
pub(super) struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Table<V> = HashMap<u64, V, BuildHasherDefault<Itself>>;

/// The share of repeated pieces (lines, paragraphs), by number and by characters.
pub(super) fn repeated<'a>(pieces: impl Iterator<Item = &'a str>) -> (f64, f64) {
    let mut seen: Table<()> = Table::default();
    let (mut number, mut repeats, mut bytes, mut repeated_bytes) = (0usize, 0usize, 0usize, 0usize);
    for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
        number += 1;
        bytes += piece.len();
        if seen.insert(hash::bytes(piece.as_bytes()), ()).is_some() {
            repeats += 1;
            repeated_bytes += piece.len();
        }
    }
    let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    (share(repeats, number), share(repeated_bytes, bytes))
}

/// n-gram measures over one text's words, each a hash and a length.
pub(super) struct Ngrams {
    hashes: Vec<u64>,
    /// Characters before each word, and after the last, so that the length of a run is a difference.
    ends: Vec<u64>,
}

impl Ngrams {
    pub fn new(words: &[(u64, u32)]) -> Self {
        let mut ends = Vec::with_capacity(words.len() + 1);
        let mut end = 0;
        ends.push(0);
        for (_, length) in words {
            end += u64::from(*length);
            ends.push(end);
        }
        Self { hashes: words.iter().map(|(hash, _)| *hash).collect(), ends }
    }

    fn characters(&self) -> f64 {
        (*self.ends.last().unwrap_or(&0)).max(1) as f64
    }

    fn length(&self, at: usize, n: usize) -> u64 {
        self.ends[at + n] - self.ends[at]
    }

    /// The share of characters in the most frequent n-gram, if any comes twice.
    pub fn top(&self, n: usize) -> f64 {
        let mut counts: Table<(u32, u32)> = Table::with_capacity_and_hasher(self.hashes.len(), Default::default());
        let mut best = (1u32, 0u64);
        for (at, hash) in hash::windows(&self.hashes, n).enumerate() {
            let (count, _) = counts.entry(hash).and_modify(|(count, _)| *count += 1).or_insert((1, at as u32));
            if *count > 1 {
                // Of equally frequent ones the longest counts, so that the measure does not depend on their order.
                best = best.max((*count, self.length(at, n)));
            }
        }
        if best.0 < 2 { 0.0 } else { f64::from(best.0) * best.1 as f64 / self.characters() }
    }

    /// The share of characters in n-grams that came before, no character counted twice.
    pub fn duplicate(&self, n: usize) -> f64 {
        let mut seen: Table<()> = Table::with_capacity_and_hasher(self.hashes.len(), Default::default());
        let (mut covered, mut free_from) = (0, 0);
        for (at, hash) in hash::windows(&self.hashes, n).enumerate() {
            if at < free_from {
                continue;
            }
            if seen.insert(hash, ()).is_some() {
                covered += self.length(at, n);
                free_from = at + n;
            }
        }
        covered as f64 / self.characters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ngrams(text: &str) -> Ngrams {
        let words: Vec<_> = text.split(' ').map(|word| (hash::bytes(word.as_bytes()), word.len() as u32)).collect();
        Ngrams::new(&words)
    }

    #[test]
    fn repeated_lines() {
        assert_eq!(repeated("a\nb\na\n\na".lines()), (0.5, 0.5));
        assert_eq!(repeated("".lines()), (0.0, 0.0));
        assert_eq!(repeated("long line\nx\nx".lines()).0, 1.0 / 3.0);
    }

    #[test]
    fn repeated_ngrams() {
        let text = ngrams("aa bb cc aa bb dd aa bb");
        assert_eq!(text.top(2), 3.0 * 4.0 / 16.0);
        assert_eq!(text.duplicate(2), 8.0 / 16.0);
        assert_eq!(text.duplicate(3), 0.0);
        assert_eq!(ngrams("one two three").top(2), 0.0);
        assert_eq!(ngrams("one").top(4), 0.0);
        // Overlapping repeats cover each character once.
        assert_eq!(ngrams("a a a a a a").duplicate(2), 4.0 / 6.0);
    }
}
