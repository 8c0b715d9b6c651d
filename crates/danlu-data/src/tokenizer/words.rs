//! Counting the words of a corpus, the only thing training needs to know of it.

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use rayon::prelude::*;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Library};

/// Texts are pre-tokenized in parallel in batches of this many bytes.
const BATCH: usize = 4 << 20;

/// When more different words than this are known, those seen once are forgotten, which bounds memory at the price of rare words that
/// would hardly have earned a merge.
const MAX_WORDS: usize = 4_000_000;

/// Each word (as the pre-tokenizer of `library` splits and spells it) with how often it occurs, in the order of the words: the result
/// depends on the texts alone, not on threads or hashes. Stops after `max_bytes` of text.
pub(super) fn count(library: &Library, texts: impl Iterator<Item = Result<String>>, max_bytes: u64) -> Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let (mut batch, mut batch_bytes, mut seen) = (Vec::new(), 0, 0);
    for text in texts {
        let text = text?;
        seen += text.len() as u64;
        batch_bytes += text.len();
        batch.push(text);
        if batch_bytes >= BATCH {
            add(library, &mut counts, &std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
        if seen >= max_bytes {
            break;
        }
    }
    add(library, &mut counts, &batch)?;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    Ok(counts)
}

fn add(library: &Library, counts: &mut HashMap<String, u64>, texts: &[String]) -> Result<()> {
    let count = |mut counts: HashMap<String, u64>, text: &String| -> Result<_> {
        for word in split(library, text)? {
            *counts.entry(word).or_default() += 1;
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

fn split(library: &Library, text: &str) -> Result<Vec<String>> {
    let normalized = library.get_added_vocabulary().extract_and_normalize(library.get_normalizer(), text);
    let mut pieces: PreTokenizedString = normalized;
    if let Some(pre_tokenizer) = library.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut pieces).map_err(|e| anyhow!("cannot split a text into words: {e}"))?;
    }
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(splits.into_iter().map(|(word, ..)| word.to_owned()).collect())
}
