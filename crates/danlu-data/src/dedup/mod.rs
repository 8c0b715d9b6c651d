//! Exact and near-duplicates: locality-sensitive hashing of MinHash signatures (Broder 1997; Indyk and Motwani 1998), as used for
//! language model corpora by Lee et al. (arXiv 2107.06499). Signatures and candidates are on disk; memory holds four bytes a document.

mod buckets;
mod facts;
mod minhash;
mod shingles;

use std::path::Path;

use anyhow::Result;

use crate::hash;
use buckets::Buckets;
use minhash::{Signature, VALUES, similarity};

pub(crate) use facts::{FactFile, FactFinder};
pub(crate) use shingles::{Scratch, shingles};

/// Two texts whose shingle sets have at least this Jaccard similarity are near-duplicates.
pub const THRESHOLD: f64 = 0.8;
/// Signature values in a band. Documents that agree in all values of any band are compared: with 32 bands of 8 the chance of that is
/// 1 − (1 − J⁸)³²: 0.997 at a similarity of 0.8, 0.12 at 0.5, and what is compared for nothing is refused by its signature.
const ROWS: usize = 8;
const BANDS: usize = VALUES / ROWS;
/// Distinct documents of a bucket that another is compared with at most, so that a bucket of any size takes linear time.
const REPRESENTATIVES: usize = 64;

/// Which documents are copies of which.
pub(crate) struct Clusters {
    /// A document before this one in the same cluster, or itself.
    parent: Vec<u32>,
    /// One bit a document: its text is exactly that of an earlier document.
    exact: Vec<u64>,
}

impl Clusters {
    fn new(documents: u32) -> Self {
        Self { parent: (0..documents).collect(), exact: vec![0; (documents as usize).div_ceil(64)] }
    }

    /// The first document of a document's cluster.
    pub fn first(&mut self, mut document: u32) -> u32 {
        loop {
            let parent = self.parent[document as usize];
            if parent == document {
                return document;
            }
            let grandparent = self.parent[parent as usize];
            self.parent[document as usize] = grandparent;
            document = grandparent;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first(a), self.first(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// Whether a document repeats the exact text of an earlier one.
    pub fn is_exact_copy(&self, document: u32) -> bool {
        self.exact[document as usize / 64] >> (document % 64) & 1 == 1
    }
}

/// Finds the clusters of all documents. `folder` is for temporary files; `progress` hears the number of documents hashed so far, of
/// twice their number.
pub(crate) fn clusters(facts: &FactFile, folder: &Path, mut progress: impl FnMut(u64)) -> Result<Clusters> {
    let documents = facts.documents();
    let mut clusters = Clusters::new(documents);

    let mut buckets = Buckets::new(folder, u64::from(documents))?;
    for (document, known) in (0..).zip(facts.iter()) {
        let [a, b, c, d, e, f, g, h, ..] = known?.hash;
        buckets.push(u64::from_le_bytes([a, b, c, d, e, f, g, h]), document)?;
        progress(u64::from(document));
    }
    buckets.groups(|group| {
        let mut firsts: Vec<(u32, [u8; 16])> = Vec::new();
        for &(_, document) in group {
            let hash = facts.get(document)?.hash;
            match firsts.iter().find(|(_, first)| *first == hash) {
                Some((first, _)) => {
                    clusters.join(*first, document);
                    clusters.exact[document as usize / 64] |= 1 << (document % 64);
                }
                None => firsts.push((document, hash)),
            }
        }
        Ok(())
    })?;

    let mut buckets = Buckets::new(folder, u64::from(documents) * BANDS as u64)?;
    for (document, known) in (0..).zip(facts.iter()) {
        let known = known?;
        if known.shingles > 0 && !clusters.is_exact_copy(document) {
            for (band, rows) in (0..).zip(known.signature.as_chunks::<ROWS>().0) {
                let key = rows.iter().fold(band, |key, value| hash::fold(key, u64::from(*value)));
                buckets.push(key, document)?;
            }
        }
        progress(u64::from(documents) + u64::from(document));
    }
    let mut representatives: Vec<(u32, Signature)> = Vec::new();
    buckets.groups(|group| {
        representatives.clear();
        for &(_, document) in group {
            let first = clusters.first(document);
            if representatives.iter().any(|(other, _)| clusters.first(*other) == first) {
                continue;
            }
            let signature = facts.get(document)?.signature;
            match representatives.iter().find(|(_, other)| similarity(other, &signature) >= THRESHOLD) {
                Some((other, _)) => clusters.join(*other, document),
                None if representatives.len() < REPRESENTATIVES => representatives.push((document, signature)),
                None => {}
            }
        }
        Ok(())
    })?;
    Ok(clusters)
}
