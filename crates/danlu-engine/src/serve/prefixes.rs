use std::collections::VecDeque;

use danlu_models::Sequence;
use danlu_ops::kernels::PAGE;

/// Beginnings of prompts whose keys and values are kept, so that a prompt that begins alike need not be read again from its start. Only
/// what was read as a prompt is kept, in whole pages: tokens read one at a time have other sums, and answers would depend on them.
pub(super) struct Prefixes {
    /// Least recently used first.
    entries: VecDeque<Prefix>,
    /// The most tokens that all may have together; shared pages are counted for each.
    most: usize,
}

struct Prefix {
    ids: Vec<u32>,
    sequence: Sequence,
}

impl Prefixes {
    pub fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), most }
    }

    /// The longest beginning of `prompt` that is kept, of at most `most` tokens, as a sequence to go on with.
    pub fn longest(&mut self, prompt: &[u32], most: usize) -> Option<Sequence> {
        let alike = |prefix: &Prefix| prefix.ids.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(most) / PAGE * PAGE;
        let (best, len) = self.entries.iter().map(alike).enumerate().max_by_key(|(_, len)| *len).filter(|(_, len)| *len > 0)?;
        let prefix = self.entries.remove(best)?;
        let mut sequence = prefix.sequence.clone();
        sequence.truncate(len);
        self.entries.push_back(prefix);
        Some(sequence)
    }

    /// Keeps the whole pages of `ids`, of which `sequence` has read at least as many.
    pub fn keep(&mut self, ids: &[u32], sequence: &Sequence) {
        let len = ids.len() / PAGE * PAGE;
        let ids = &ids[..len];
        if len == 0 || len > self.most || self.entries.iter().any(|prefix| prefix.ids.starts_with(ids)) {
            return;
        }
        self.entries.retain(|prefix| !ids.starts_with(&prefix.ids));
        let mut sequence = sequence.clone();
        sequence.truncate(len);
        self.entries.push_back(Prefix { ids: ids.to_vec(), sequence });
        while self.tokens() > self.most {
            self.entries.pop_front();
        }
    }

    pub fn tokens(&self) -> usize {
        self.entries.iter().map(|prefix| prefix.ids.len()).sum()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
