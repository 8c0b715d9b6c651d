//! What a decoder reads in one step.

use burn::tensor::Tensor;
use danlu_ops::{Heads, Ids, Rope, Segments};

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
    pub(crate) shared: Option<Shared>,
}

/// Which tokens are computed for all of a batch: documents that begin alike have the same states there, since a token sees only those
/// before it, so one of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Where the tokens that are computed stand in the batch.
    first: Ids,
    /// For each token of the batch, which of those is the one for it.
    of: Ids,
}

impl Batch {
    /// `starts` are the offsets in `tokens` at which a document begins, sorted; the start of each row is one without being named.
    ///
    /// # Panics
    /// When `tokens` and `targets` are not `rows × row_len` long: what makes batches decides both.
    pub fn new(tokens: Vec<u32>, targets: Vec<u32>, rows: usize, row_len: usize, starts: Vec<u32>) -> Self {
        assert_eq!(tokens.len(), rows * row_len, "a batch of {rows} rows of {row_len} tokens");
        assert_eq!(targets.len(), tokens.len(), "one target for each token");
        Self { ids: tokens.into(), targets: targets.into(), segments: Segments::new(rows, row_len, starts), shared: None }
    }

    /// The same batch, in which what a document has in common with the beginning of the one before is computed once: answers to one question
    /// take the work and memory of their own tokens. Results are the same up to rounding. Nothing changes where less than a tenth would
    /// be saved.
    #[must_use]
    pub fn sharing(mut self) -> Self {
        let (mut first, mut of) = (vec![], Vec::with_capacity(self.ids.len()));
        let mut before = 0..0;
        for document in self.segments.iter() {
            let alike = self.ids[before.clone()].iter().zip(&self.ids[document.clone()]).take_while(|(a, b)| a == b).count();
            of.extend_from_within(before.start..before.start + alike);
            for token in document.start + alike..document.end {
                of.push(first.len() as u32);
                first.push(token as u32);
            }
            before = document;
        }
        let saved = of.len() - first.len();
        self.shared = (10 * saved >= of.len() && saved > 0).then(|| Shared { first: first.into(), of: of.into() });
        self
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

impl Shared {
    /// The rows of `x` `[tokens, channels]` that are computed.
    pub fn computed(shared: Option<&Self>, x: Tensor<2>) -> Tensor<2> {
        match shared {
            Some(shared) => danlu_ops::embedding(x, &shared.first),
            None => x,
        }
    }

    /// Attention of the rows that are computed: `qkv` `[rows, heads.qkv()]` → `[rows, heads.q()]`.
    pub fn attention(shared: Option<&Self>, qkv: Tensor<2>, heads: Heads, rope: Option<&Rope>, segments: &Segments) -> Tensor<2> {
        match shared {
            Some(Self { first, of }) => danlu_ops::attention_shared(qkv, heads, rope, segments, [first, of]),
            None => danlu_ops::attention(qkv, heads, rope, segments),
        }
    }

    /// A row for each token of the batch.
    pub fn all(shared: Option<&Self>, x: Tensor<2>) -> Tensor<2> {
        match shared {
            Some(shared) => danlu_ops::embedding(x, &shared.of),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_documents_begin_with_alike_is_computed_once() {
        let batch = |tokens: &[u32], starts: &[u32]| {
            let count = tokens.len();
            Batch::new(tokens.to_vec(), vec![danlu_ops::IGNORE; count], 1, count, starts.to_vec()).sharing().shared
        };
        let shared = batch(&[1, 2, 3, 1, 2, 4, 5, 1, 2, 4, 6, 7], &[0, 3, 7]).unwrap();
        assert_eq!(shared.first[..], [0, 1, 2, 5, 6, 10, 11]);
        assert_eq!(shared.of[..], [0, 1, 2, 0, 1, 3, 4, 0, 1, 3, 5, 6]);
        assert_eq!(batch(&[1, 2, 3, 4], &[0, 2]), None);
        assert_eq!(batch(&[1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &[0, 1]), None, "too little to be worth it");
        assert_eq!(batch(&[1, 2, 1, 2], &[0, 2]).unwrap().of[..], [0, 1, 0, 1]);
    }
}
