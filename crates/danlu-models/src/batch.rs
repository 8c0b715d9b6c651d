//! What a decoder reads in one step.

use danlu_ops::{Ids, Segments};

/// A batch of token rows, flattened: `rows × row_len` tokens, each with the token that should follow it.
///
/// Documents packed into one row do not see each other: `segments` says where each begins.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[tokens]`.
    pub ids: Ids,
    /// `[tokens]`; [`danlu_ops::IGNORE`] where no loss is wanted.
    pub targets: Ids,
    pub segments: Segments,
}

impl Batch {
    /// `starts` are the offsets in `tokens` at which a document begins, sorted; the start of each row is one without being named.
    ///
    /// # Panics
    /// When `tokens` and `targets` are not `rows × row_len` long: what makes batches decides both.
    pub fn new(tokens: Vec<u32>, targets: Vec<u32>, rows: usize, row_len: usize, starts: Vec<u32>) -> Self {
        assert_eq!(tokens.len(), rows * row_len, "a batch of {rows} rows of {row_len} tokens");
        assert_eq!(targets.len(), tokens.len(), "one target for each token");
        Self { ids: tokens.into(), targets: targets.into(), segments: Segments::new(rows, row_len, starts) }
    }

    /// One document without targets, for [`crate::Decoder::logits`].
    pub fn document(tokens: &[u32]) -> Self {
        Self::new(tokens.to_vec(), vec![danlu_ops::IGNORE; tokens.len()], 1, tokens.len(), vec![])
    }
}
