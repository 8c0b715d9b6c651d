use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use danlu_data::shards::TokenSplit;
use danlu_models::{Batch, Decoder};

use crate::scores::Scores;
use crate::unit::{BITS_PER_BYTE, Limits, Measure};
use crate::windows::Packer;

/// A held-out document: its tokens, the first of which (the end-of-text token) is given and not predicted, and the length of its text.
pub struct Document<'a> {
    pub tokens: Cow<'a, [u32]>,
    pub bytes: u64,
}

/// Tokens that go through the model at once: enough to keep the products busy, few enough to need little memory.
const BATCH_TOKENS: usize = 2048;

/// Bits per byte of `decoder` on held-out documents, each read in windows of the model's context. With limits, the documents are taken
/// evenly from the whole split, so that a short measurement sees every source. Give it a decoder without autodiff (`Module::valid`).
///
/// # Errors
/// When there is nothing to measure on, the split cannot be read, or the model gives a number that is not finite.
pub fn bits_per_byte(decoder: &Decoder, held_out: &TokenSplit, limits: Limits) -> Result<Measure> {
    let mut failed = None;
    let documents = spread(held_out, limits).map_while(|document| document.map_err(|e| failed = Some(e)).ok());
    let measured = measure(|batch| decoder.token_nll(batch), decoder.context(), documents, limits);
    failed.map_or(measured, Err)
}

/// [`bits_per_byte`] of anything that gives the negative log-likelihood, in nats, of each target of a batch.
///
/// # Errors
/// As for [`bits_per_byte`].
pub fn measure<'a>(
    token_nll: impl FnMut(&Batch) -> Vec<f32>,
    context: usize,
    documents: impl Iterator<Item = Document<'a>>,
    limits: Limits,
) -> Result<Measure> {
    let scores = document_bits(token_nll, context, limited(documents, limits), limits.time)?;
    let total: f64 = scores.items.iter().map(|d| d.0).sum();
    let mut measure = scores.measure();
    // The training loss's unit.
    measure.others = vec![("nats_per_token", total * std::f64::consts::LN_2 / scores.tokens as f64)];
    Ok(measure)
}

/// The bits of each document, and its bytes. After `time` no further document is begun.
///
/// # Errors
/// When there is nothing to measure on, or a likelihood is not a number.
pub fn document_bits<'a>(
    mut token_nll: impl FnMut(&Batch) -> Vec<f32>,
    context: usize,
    documents: impl Iterator<Item = Document<'a>>,
    time: Option<Duration>,
) -> Result<Scores> {
    let start = Instant::now();
    let mut packer = Packer::new(documents, context, BATCH_TOKENS);
    let mut bits: Vec<f64> = Vec::new();
    let mut tokens = 0u64;
    while let Some(packed) = packer.next() {
        let nll = token_nll(&packed.batch);
        bits.resize(packer.bytes.len(), 0.0);
        for (document, span) in packed.spans {
            tokens += span.len() as u64;
            bits[document] += nll[span].iter().map(|&nats| f64::from(nats)).sum::<f64>() / std::f64::consts::LN_2;
        }
        if time.is_some_and(|limit| start.elapsed() >= limit) {
            packer.begin_no_more();
        }
    }
    let pairs = bits.iter().zip(&packer.bytes).map(|(&bits, &bytes)| (bits, bytes as f64));
    let items: Vec<(f64, f64)> = pairs.filter(|&(_, bytes)| bytes > 0.0).collect();
    let bytes: f64 = items.iter().map(|d| d.1).sum();
    if items.is_empty() || tokens == 0 {
        bail!("there is no held-out text to measure on; add more documents, or hold out a larger share of them");
    }
    if !items.iter().all(|(bits, _)| bits.is_finite()) {
        bail!("the model's likelihood of the held-out text is not a number; its weights are damaged or training diverged");
    }
    Ok(Scores { unit: BITS_PER_BYTE, items, tokens, bytes: bytes as u64, seconds: start.elapsed().as_secs_f64() })
}

/// Every document, or every n-th when the limits leave room for one in n.
fn spread(split: &TokenSplit, limits: Limits) -> impl Iterator<Item = Result<Document<'static>>> {
    let share = |have: u64, limit: Option<u64>| limit.map_or(1, |limit| have / limit.max(1));
    let every = share(split.len(), limits.tokens).max(share(split.bytes(), limits.bytes)).max(1);
    (0..split.documents())
        .step_by(every as usize)
        .map(move |i| Ok(Document { tokens: split.document(i)?.into(), bytes: split.document_bytes(i) }))
}

/// Whole documents until the limits of tokens and bytes are reached.
fn limited<'a>(documents: impl Iterator<Item = Document<'a>>, limits: Limits) -> impl Iterator<Item = Document<'a>> {
    documents.scan((0u64, 0u64), move |(tokens, bytes), document| {
        if limits.tokens.is_some_and(|limit| *tokens >= limit) || limits.bytes.is_some_and(|limit| *bytes >= limit) {
            return None;
        }
        *tokens += document.tokens.len() as u64;
        *bytes += document.bytes;
        Some(document)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(lengths: &[usize]) -> Vec<Document<'static>> {
        lengths.iter().map(|&n| Document { tokens: (0..n as u32).collect::<Vec<_>>().into(), bytes: 3 * n as u64 }).collect()
    }

    #[test]
    fn a_uniform_model_needs_log2_of_the_vocabulary_for_each_token() {
        let vocabulary = 4096f64;
        let lengths = [10, 700, 3, 2500];
        let uniform = |batch: &Batch| vec![vocabulary.ln() as f32; batch.ids.len()];
        for context in [16, 256, 10_000] {
            let measured = measure(uniform, context, documents(&lengths).into_iter(), Limits::default()).unwrap();
            let predicted: usize = lengths.iter().map(|n| n - 1).sum();
            let bytes: usize = lengths.iter().map(|n| 3 * n).sum();
            let want = vocabulary.log2() * predicted as f64 / bytes as f64;
            assert!((measured.value - want).abs() < 1e-5, "context {context}: {} for {want}", measured.value);
            assert_eq!((measured.tokens, measured.bytes, measured.items), (predicted as u64, bytes as u64, 4));
            assert!(measured.low <= measured.value && measured.value <= measured.high);
            assert!((measured.others[0].1 - vocabulary.ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn limits_stop_at_whole_documents() {
        let uniform = |batch: &Batch| vec![1.0; batch.ids.len()];
        let check = |limits, count| {
            assert_eq!(measure(uniform, 64, documents(&[100; 10]).into_iter(), limits).unwrap().items, count);
        };
        check(Limits::default(), 10);
        check(Limits { tokens: Some(250), ..Limits::default() }, 3);
        check(Limits { bytes: Some(600), ..Limits::default() }, 2);
        let long =
            measure(uniform, 64, documents(&[3000; 10]).into_iter(), Limits { time: Some(Duration::ZERO), ..Limits::default() });
        assert_eq!(long.unwrap().items, 1, "the clock leaves at least one");
    }

    #[test]
    fn nothing_to_measure_and_nan_are_errors() {
        let check = |lengths: &[usize], nll: f32, part: &str| {
            let error =
                measure(|b: &Batch| vec![nll; b.ids.len()], 8, documents(lengths).into_iter(), Limits::default()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        check(&[], 1.0, "no held-out text");
        check(&[1, 1], 1.0, "no held-out text");
        check(&[10, 10], f32::NAN, "not a number");
    }
}
