//! Texts for tests: real prose is not shipped with the crate, so sentences are made from word lists by a seeded generator.

#![allow(dead_code, reason = "each test uses its part")]

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A word that looks like one: two or three syllables.
pub fn word(rng: &mut impl Rng) -> String {
    const ONSETS: [&str; 16] = ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "st", "tr", "pl", "v"];
    const ENDS: [&str; 12] = ["a", "e", "i", "o", "an", "er", "en", "on", "ing", "al", "ist", "or"];
    (0..rng.random_range(2..4)).map(|_| format!("{}{}", ONSETS[rng.random_range(0..16)], ENDS[rng.random_range(0..12)])).collect()
}

/// Prose of about `words` words that the quality rules accept.
pub fn prose(rng: &mut impl Rng, words: usize) -> String {
    const COMMON: [&str; 12] = ["the", "of", "and", "to", "that", "with", "have", "be", "in", "it", "was", "for"];
    let mut text = String::new();
    for i in 0..words {
        let word = if rng.random_bool(0.4) { COMMON[rng.random_range(0..12)].to_owned() } else { word(rng) };
        text.push_str(&word);
        text.push_str(match i % 97 {
            96 => ".\n\n",
            n if n % 14 == 13 => ". ",
            _ => " ",
        });
    }
    text
}

/// The text with each word changed, dropped, doubled or followed by a new one with probability `rate`.
pub fn edit(text: &str, rate: f64, rng: &mut impl Rng) -> String {
    let mut words: Vec<String> = Vec::new();
    for old in text.split_whitespace() {
        if !rng.random_bool(rate) {
            words.push(old.to_owned());
            continue;
        }
        match rng.random_range(0..3) {
            0 => words.push(word(rng)),
            1 => {}
            _ => words.extend([old.to_owned(), word(rng)]),
        }
    }
    words.join(" ")
}
