//! The held-out split: whole clusters of near-duplicates go to one side, by a hash of the seed and the cluster's first text, so that
//! the side of a document does not depend on what else is in the corpus (but for the least sizes below).

use std::collections::BinaryHeap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::dedup::{Clusters, FactFile};
use crate::hash;

/// How much is held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeldOut {
    /// The share of clusters.
    pub fraction: f64,
    /// A small corpus holds out more than its fraction, for a measure that means something: about this many bytes and at least this
    /// many documents, but never more than a tenth.
    pub least_bytes: u64,
    pub least_documents: u32,
}

impl Default for HeldOut {
    fn default() -> Self {
        Self { fraction: 0.02, least_bytes: 128 << 10, least_documents: 16 }
    }
}

/// The most of a small corpus that its least sizes may take.
const MOST: f64 = 0.1;

/// One bit a document: whether it is held out.
pub(crate) fn held_out(facts: &FactFile, clusters: &mut Clusters, options: &HeldOut, seed: u64) -> Result<Vec<u64>> {
    let (mut bytes, mut count) = (0u64, 0u64);
    for (document, known) in (0..).zip(facts.iter()) {
        if clusters.first(document) == document {
            bytes += u64::from(known?.bytes);
            count += 1;
        }
    }
    let least = (options.least_bytes as f64 / bytes.max(1) as f64).min(MOST);
    // A held-out side that is wanted has one document at least, as long as the other has one too.
    let few = u64::from(options.fraction > 0.0 && count > 1);
    let least_documents = u64::from(options.least_documents).min((count as f64 * MOST) as u64).max(few) as usize;
    let fraction = if options.fraction > 0.0 { options.fraction.max(least).min(1.0) } else { 0.0 };
    let threshold = (fraction * u64::MAX as f64) as u64;

    // The lowest hashes are held out even when they are over the threshold.
    let mut lowest: BinaryHeap<u64> = BinaryHeap::new();
    for (document, known) in (0..).zip(facts.iter()) {
        if clusters.first(document) == document {
            lowest.push(lot(&known?.hash, seed));
            if lowest.len() > least_documents.max(1) {
                lowest.pop();
            }
        }
    }
    let least_lot = if options.fraction > 0.0 && count > 1 { lowest.peek().copied().unwrap_or(0) } else { 0 };

    let mut held = vec![0u64; (facts.documents() as usize).div_ceil(64)];
    for (document, known) in (0..).zip(facts.iter()) {
        let first = clusters.first(document);
        let is_held = if first == document {
            let lot = lot(&known?.hash, seed);
            lot < threshold || (least_lot > 0 && lot <= least_lot)
        } else {
            is_set(&held, first)
        };
        if is_held {
            held[document as usize / 64] |= 1 << (document % 64);
        }
    }
    Ok(held)
}

pub(crate) fn is_set(bits: &[u64], index: u32) -> bool {
    bits[index as usize / 64] >> (index % 64) & 1 == 1
}

/// A number drawn for a text, the same in every corpus with this seed.
fn lot(content: &[u8; 16], seed: u64) -> u64 {
    let [low, high] = *content.as_chunks::<8>().0 else { return 0 };
    hash::fold(hash::fold(seed, u64::from_le_bytes(low)), u64::from_le_bytes(high))
}
