//! Counting the words of a corpus, the only thing training needs to know of it.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow};
use rayon::prelude::*;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Library};

use super::fast::byte_letters;

/// Texts are pre-tokenized in parallel in batches of this many bytes.
const BATCH: usize = 4 << 20;

/// When more different words than this are known, those seen once are forgotten, which bounds memory at the price of rare words that
/// would hardly have earned a merge.
const MAX_WORDS: usize = 4_000_000;

/// How texts become words.
#[derive(Clone, Copy)]
pub(super) enum Split<'a> {
    /// By [`super::split`], spelt in the letters of bytes.
    Bytes,
    /// As this tokenizer splits and spells them.
    By(&'a Library),
}

/// Each word with how often it occurs, in the order of the words: the result depends on the texts alone, not on threads or hashes. Stops
/// after `max_bytes` of text.
pub(super) fn count(split: Split, texts: impl Iterator<Item = Result<String>>, max_bytes: u64) -> Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let (mut batch, mut batch_bytes, mut seen) = (Vec::new(), 0, 0);
    for text in texts {
        let text = text?;
        seen += text.len() as u64;
        batch_bytes += text.len();
        batch.push(text);
        if batch_bytes >= BATCH {
            add(split, &mut counts, &std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
        if seen >= max_bytes {
            break;
        }
    }
    add(split, &mut counts, &batch)?;
    let letters = byte_letters();
    let spell = |word: String| match split {
        Split::Bytes => word.bytes().map(|byte| letters[byte as usize]).collect(),
        Split::By(_) => word,
    };
    let mut counts: Vec<_> = counts.into_iter().map(|(word, count)| (spell(word), count)).collect();
    counts.sort_unstable();
    Ok(counts)
}

fn add(split: Split, counts: &mut HashMap<String, u64>, texts: &[String]) -> Result<()> {
    let count = |mut counts: HashMap<String, u64>, text: &String| -> Result<_> {
        let mut one = |word: &str| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        };
        match split {
            Split::Bytes => super::split::words(text).context("the splitting expression cannot be used")?.for_each(one),
            Split::By(library) => split_by(library, text)?.iter().for_each(|word| one(word)),
        }
        Ok(counts)
    };
    let parts: Vec<_> = texts.par_iter().try_fold(HashMap::new, count).collect::<Result<_>>()?;
    for part in parts {
        for (word, count) in part {
            *counts.entry(word).or_default() += count;
        }
    }
    if counts.len() > MAX_WORDS {
        counts.retain(|_, count| *count > 1);
    }
    Ok(())
}

fn split_by(library: &Library, text: &str) -> Result<Vec<String>> {
    let mut pieces: PreTokenizedString = library.get_added_vocabulary().extract_and_normalize(library.get_normalizer(), text);
    if let Some(pre_tokenizer) = library.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces).map_err(|e| anyhow!("cannot split a text into words: {e}"))?;
    }
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}
