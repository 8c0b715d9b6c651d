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
        Self::documents(&[tokens])
    }

    /// Documents without targets in one row, none seeing another.
    ///
    /// # Panics
    /// When one is empty.
    pub fn documents(documents: &[&[u32]]) -> Self {
        let (mut tokens, mut starts) = (vec![], vec![]);
        for document in documents {
            assert!(!document.is_empty(), "a document has at least one token");
            starts.push(tokens.len() as u32);
            tokens.extend_from_slice(document);
        }
        let count = tokens.len();
        Self::new(tokens, vec![danlu_ops::IGNORE; count], 1, count, starts)
    }
}
