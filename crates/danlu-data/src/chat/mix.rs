//! Rows of conversations from several sources in fixed shares: tasks side by side, and what a model knew before among what it learns.

use anyhow::Result;

use super::Packed;
use crate::sampler::{Shares, TokenBatch};

/// Packed sources, mixed by shares of rows. Cheap to clone beside its conversations.
#[derive(Clone, Debug)]
pub struct PackedMixture {
    sources: Vec<Packed>,
    /// None for one source, whose epochs then are exact.
    shares: Option<Shares>,
}

impl PackedMixture {
    /// Mixes sources, whose rows must have one length, by their weights.
    ///
    /// # Errors
    /// When there is no source, rows differ in length, or a weight is less than 1/1024 of their sum.
    pub fn new(sources: Vec<(Packed, f64)>, seed: u64) -> Result<Self> {
        let (sources, weights): (Vec<Packed>, Vec<f64>) = sources.into_iter().unzip();
        anyhow::ensure!(
            sources.windows(2).all(|pair| pair[0].row_len() == pair[1].row_len()),
            "sources of a mixture are packed in rows of different lengths"
        );
        let shares = if sources.len() == 1 { None } else { Some(Shares::new(&weights, seed)?) };
        Ok(Self { sources, shares })
    }

    pub fn sources(&self) -> &[Packed] {
        &self.sources
    }

    /// The rows `position..position + rows`, counted from the beginning of training: a pure function of (seed, position).
    pub fn batch(&self, position: u64, rows: usize) -> TokenBatch {
        let Some(shares) = &self.shares else { return self.sources[0].batch(position, rows) };
        let mut batch = TokenBatch { tokens: vec![], targets: vec![], rows, row_len: self.sources[0].row_len(), starts: vec![] };
        for row in 0..rows as u64 {
            let (source, position) = shares.source(position + row);
            let one = self.sources[source].batch(position, 1);
            let begin = batch.tokens.len() as u32;
            batch.starts.extend(one.starts.iter().map(|start| begin + start));
            batch.tokens.extend(one.tokens);
            batch.targets.extend(one.targets);
        }
        batch
    }
}

impl From<Packed> for PackedMixture {
    fn from(packed: Packed) -> Self {
        Self { sources: vec![packed], shares: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encoded;
    use super::*;

    fn packed(name: u32, count: usize) -> Packed {
        let one = |i: usize| Encoded { ids: vec![name; 5 + i % 3], loss: vec![true; 5 + i % 3], bytes: 5 };
        Packed::new((0..count).map(one).collect(), 8, 0, 3).unwrap()
    }

    #[test]
    fn rows_come_in_their_shares_and_from_any_position() {
        let mixture = PackedMixture::new(vec![(packed(1, 40), 0.75), (packed(2, 4), 0.25)], 5).unwrap();
        let all = mixture.batch(0, 1024);
        let rows: Vec<u32> = all.tokens.chunks(8).map(|row| row[0]).collect();
        assert_eq!(rows.iter().filter(|name| **name == 2).count(), 256);
        assert_ne!(rows[..512].iter().filter(|name| **name == 2).count(), 0, "mixed throughout");
        // Rows taken one at a time are those taken together.
        for at in [0u64, 7, 1000] {
            let one = mixture.batch(at, 1);
            let begin = at as usize * 8;
            assert_eq!(one.tokens, all.tokens[begin..begin + 8]);
            assert_eq!(one.targets, all.targets[begin..begin + 8]);
            let starts: Vec<u32> =
                all.starts.iter().filter(|s| (begin..begin + 8).contains(&(**s as usize))).map(|s| s - begin as u32).collect();
            assert_eq!(one.starts, starts);
        }
        let alone: PackedMixture = packed(1, 40).into();
        assert_eq!(alone.batch(3, 4), packed(1, 40).batch(3, 4));
        assert!(PackedMixture::new(vec![], 0).is_err());
        let long = Packed::new(vec![Encoded { ids: vec![1; 9], loss: vec![true; 9], bytes: 1 }], 16, 0, 0).unwrap();
        assert!(PackedMixture::new(vec![(packed(1, 4), 1.0), (long, 1.0)], 0).is_err());
    }
}
