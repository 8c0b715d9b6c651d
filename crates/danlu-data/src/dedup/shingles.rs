//! A text as a set of shingles: hashes of runs of tokens. Case, punctuation and white space do not count, so that a copy with other
//! line breaks or quotes is still a copy.

use crate::clean::unspaced_character;
use crate::hash;

/// Tokens in a shingle. Three words make sentences with one word changed still share most of their shingles; five characters of a
/// script without spaces say about as much as three words.
const WORDS: usize = 3;
const CHARACTERS: usize = 5;

/// Buffers kept between texts.
#[derive(Default)]
pub(crate) struct Scratch {
    tokens: Vec<u64>,
    word: String,
}

/// Calls `each` with every shingle of `text`, repeats included, and returns their number.
pub(crate) fn shingles(text: &str, scratch: &mut Scratch, mut each: impl FnMut(u64)) -> usize {
    let unspaced = tokens(text, scratch);
    let tokens = &scratch.tokens;
    // A text shorter than a shingle is one shingle.
    let n = if 2 * unspaced > tokens.len() { CHARACTERS } else { WORDS }.min(tokens.len());
    if n == 0 {
        return 0;
    }
    hash::windows(tokens, n).for_each(&mut each);
    tokens.len() + 1 - n
}

/// Fills `scratch.tokens` with hashes of the words, in lower case, and of single characters in scripts without spaces. Returns how many
/// are such characters.
fn tokens(text: &str, scratch: &mut Scratch) -> usize {
    let Scratch { tokens, word } = scratch;
    tokens.clear();
    word.clear();
    if text.is_ascii() {
        let words = text.as_bytes().split(|b| !b.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        tokens.extend(words.map(hash_ascii_lowercase));
        return 0;
    }
    let mut unspaced = 0;
    for c in text.chars() {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                word.push(c.to_ascii_lowercase());
                continue;
            }
        } else if unspaced_character(c) {
            if c.is_alphanumeric() {
                end_word(word, tokens);
                tokens.push(hash::fold(u64::from(u32::from(c)), 1));
                unspaced += 1;
            }
            continue;
        } else if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
            continue;
        }
        end_word(word, tokens);
    }
    end_word(word, tokens);
    unspaced
}

fn end_word(word: &mut String, tokens: &mut Vec<u64>) {
    if !word.is_empty() {
        tokens.push(hash::bytes(word.as_bytes()));
        word.clear();
    }
}

/// The hash of the word in lower case, without a copy when it is short.
fn hash_ascii_lowercase(word: &[u8]) -> u64 {
    let mut lower = [0; 32];
    match lower.get_mut(..word.len()) {
        Some(lower) => {
            lower.copy_from_slice(word);
            lower.make_ascii_lowercase();
            hash::bytes(lower)
        }
        None => hash::bytes(&word.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Vec<u64> {
        let mut found = Vec::new();
        let count = shingles(text, &mut Scratch::default(), |shingle| found.push(shingle));
        assert_eq!(count, found.len());
        found
    }

    #[test]
    fn form_does_not_count_and_words_do() {
        assert_eq!(set("The cat, the DOG & the mouse."), set("the cat\nthe dog — “the mouse”"));
        assert_ne!(set("the cat the dog"), set("the dog the cat"));
        assert_eq!(set("one two three four").len(), 2);
        assert_eq!(set("one two").len(), 1);
        assert!(set("?! …").is_empty());
        assert_eq!(set("床前明月光，疑是地上霜。"), set("床前明月光疑是地上霜"));
        assert_eq!(set("床前明月光疑是地上霜").len(), 6);
    }
}
