use std::{ops::Range, sync::Arc};

use crate::Ids;

/// Where the documents of a packed batch lie.
///
/// A batch is `rows × row_len` tokens, flattened. Every row starts a segment, and so does every document inside a row.
/// Attention never crosses a segment and positions restart with it. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Rows of the batch.
    pub rows: usize,
    /// Tokens in each row.
    pub row_len: usize,
    /// First token of every segment, row starts included, sorted and without repeats.
    pub starts: Arc<[u32]>,
}

impl Segments {
    /// Segments of a packed batch: `document_starts` are token offsets in the flattened batch. Row starts are implied, and
    /// may be given too.
    ///
    /// # Panics
    /// When a start lies outside the batch, or the starts are not sorted.
    pub fn new(rows: usize, row_len: usize, document_starts: Vec<u32>) -> Self {
        let tokens = rows * row_len;
        assert!(u32::try_from(tokens).is_ok(), "a batch of {rows} rows of {row_len} tokens is too large for 32-bit offsets");
        assert!(document_starts.is_sorted(), "document starts must be sorted");
        if let Some(&last) = document_starts.last() {
            assert!((last as usize) < tokens, "a document starts at token {last}, but the batch has {tokens}");
        }
        let mut starts = document_starts;
        starts.extend((0..rows).map(|row| (row * row_len) as u32));
        starts.sort_unstable();
        starts.dedup();
        Self { rows, row_len, starts: starts.into() }
    }

    /// One segment for each row.
    pub fn rows(rows: usize, row_len: usize) -> Self {
        Self::new(rows, row_len, Vec::new())
    }

    /// Number of tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.rows * self.row_len
    }

    /// The token range of every segment, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.starts.len()).map(|i| {
            let end = self.starts.get(i + 1).map_or(self.tokens(), |&end| end as usize);
            self.starts[i] as usize..end
        })
    }

    /// Length of the longest segment.
    pub fn longest(&self) -> usize {
        self.iter().map(|segment| segment.len()).max().unwrap_or(0)
    }

    /// The position of every token within its own segment.
    pub fn positions(&self) -> Ids {
        self.iter().flat_map(|segment| 0..segment.len() as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: usize, row_len: usize, starts: &[u32], expect: &[Range<usize>]) {
        let segments = Segments::new(rows, row_len, starts.to_vec());
        assert_eq!(segments.iter().collect::<Vec<_>>(), expect);
        let positions: Vec<u32> = expect.iter().flat_map(|r| 0..r.len() as u32).collect();
        assert_eq!(segments.positions()[..], positions);
    }

    #[test]
    fn rows_and_documents_both_start_segments() {
        check(1, 4, &[], std::slice::from_ref(&(0..4)));
        check(2, 3, &[], &[0..3, 3..6]);
        check(2, 3, &[0, 2, 3, 5], &[0..2, 2..3, 3..5, 5..6]);
        check(2, 3, &[1, 1, 4], &[0..1, 1..3, 3..4, 4..6]);
    }

    #[test]
    #[should_panic(expected = "document starts at token 6")]
    fn a_start_outside_the_batch_is_refused() {
        Segments::new(2, 3, vec![6]);
    }
}
