use std::ops::Range;

use danlu_models::Batch;

use crate::measure::Document;

/// Pieces of documents that go through the model together, and which document each belongs to.
pub(crate) struct Packed {
    pub batch: Batch,
    /// The tokens of the batch that belong to a document, by the document's place in the order.
    pub spans: Vec<(usize, Range<usize>)>,
}

/// Cuts documents into windows of at most `context` tokens and packs windows, each a segment of its own, into batches of about
/// `batch_tokens`. Windows overlap by the one token that predicts the first of the next, so that each token but a document's first is
/// predicted exactly once.
pub(crate) struct Packer<'a, I: Iterator<Item = Document<'a>>> {
    documents: I,
    context: usize,
    batch_tokens: usize,
    current: Option<Document<'a>>,
    /// Documents begun so far.
    begun: usize,
    at: usize,
    stopped: bool,
    /// Of each document begun.
    pub bytes: Vec<u64>,
}

impl<'a, I: Iterator<Item = Document<'a>>> Packer<'a, I> {
    pub fn new(documents: I, context: usize, batch_tokens: usize) -> Self {
        Self {
            documents,
            context: context.max(1),
            batch_tokens,
            current: None,
            begun: 0,
            at: 0,
            stopped: false,
            bytes: Vec::new(),
        }
    }

    /// Only the document in progress is still finished.
    pub fn begin_no_more(&mut self) {
        self.stopped = true;
    }

    pub fn next(&mut self) -> Option<Packed> {
        let (mut ids, mut targets, mut starts, mut spans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while ids.len() < self.batch_tokens {
            let document = match self.current.take() {
                Some(document) => document,
                None if self.stopped => break,
                None => match self.documents.next() {
                    Some(document) => {
                        self.begun += 1;
                        self.at = 0;
                        self.bytes.push(document.bytes);
                        document
                    }
                    None => break,
                },
            };
            let tokens = &document.tokens;
            let end = (self.at + self.context).min(tokens.len().saturating_sub(1));
            if end > self.at {
                let begin = ids.len();
                starts.push(begin as u32);
                ids.extend_from_slice(&tokens[self.at..end]);
                targets.extend_from_slice(&tokens[self.at + 1..=end]);
                spans.push((self.begun - 1, begin..ids.len()));
                self.at = end;
                self.current = Some(document);
            }
        }
        let tokens = ids.len();
        (tokens > 0).then(|| Packed { batch: Batch::new(ids, targets, 1, tokens, starts), spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_predicted_once_from_its_predecessor() {
        let texts: Vec<Vec<u32>> = [0, 1, 2, 5, 9, 3, 30].iter().map(|&n| (0..n).map(|i| 100 * n + i).collect()).collect();
        for context in [1, 4, 8, 100] {
            for batch in [1, 6, 1000] {
                let documents = texts.iter().map(|t| Document { tokens: t.as_slice().into(), bytes: t.len() as u64 });
                let mut packer = Packer::new(documents, context, batch);
                let mut seen: Vec<(usize, u32, u32)> = Vec::new();
                while let Some(packed) = packer.next() {
                    assert!(packed.batch.segments.longest() <= context);
                    assert_eq!(packed.spans.len(), packed.batch.segments.iter().len());
                    for (document, span) in packed.spans {
                        seen.extend(span.map(|i| (document, packed.batch.ids[i], packed.batch.targets[i])));
                    }
                }
                let want: Vec<_> =
                    texts.iter().enumerate().flat_map(|(d, t)| t.windows(2).map(move |pair| (d, pair[0], pair[1]))).collect();
                assert_eq!(seen, want, "context {context}, batch {batch}");
                assert_eq!(packer.bytes, [0, 1, 2, 5, 9, 3, 30]);
            }
        }
    }
}
