//! The order in which a model sees a corpus: a pure function of (seed, position), computed and never stored.
//!
//! The tokens of a split are taken as a ring. An epoch cuts the ring into windows of `row_len` tokens, beginning at an offset drawn for
//! the epoch, so that documents are cut elsewhere each time, and visits the windows in an order drawn for the epoch. The order is a keyed
//! permutation computed window by window, so nothing grows with the corpus and resuming at a position costs nothing.
//!
//! A window's target is the ring shifted by one. Since the end-of-text token stands *before* each document, the last token of a document
//! predicts that it ends, the end-of-text token predicts the first token of the new document (generation starts the same way), and no
//! target depends on a token of another document. Every token is thus a target once an epoch, but for fewer than `row_len` tokens that
//! do not fill a window and are others each epoch.

use anyhow::{Result, bail};

use crate::shards::TokenSplit;

/// A target that carries no loss.
pub const IGNORE: u32 = u32::MAX;

/// Rows of tokens as a model takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// `rows × row_len` token ids, row after row.
    pub tokens: Vec<u32>,
    /// For each token the one to predict, or [`IGNORE`].
    pub targets: Vec<u32>,
    pub rows: usize,
    pub row_len: usize,
    /// Where in `tokens` documents begin, ascending. The beginning of a row that continues a document is not among them.
    pub starts: Vec<u32>,
}

impl TokenBatch {
    fn with_capacity(rows: usize, row_len: usize) -> Self {
        let count = rows * row_len;
        Self { tokens: Vec::with_capacity(count), targets: Vec::with_capacity(count), rows, row_len, starts: Vec::new() }
    }
}

/// Batches of one split.
#[derive(Clone)]
pub struct Sampler {
    split: TokenSplit,
    row_len: usize,
    rows: usize,
    seed: u64,
}

impl Sampler {
    /// Batches of `rows` rows of `row_len` tokens. A split shorter than a row is repeated to fill it.
    ///
    /// # Errors
    /// When the split is empty, or the batch is empty or has more tokens than 32 bits count.
    pub fn new(split: &TokenSplit, row_len: usize, rows: usize, seed: u64) -> Result<Self> {
        if split.is_empty() {
            bail!("there are no tokens to train on: the split has no document");
        }
        if row_len == 0 || rows == 0 || rows.checked_mul(row_len).is_none_or(|n| n >= u32::MAX as usize) {
            bail!("a batch of {rows} rows of {row_len} tokens cannot be made");
        }
        Ok(Self { split: split.clone(), row_len, rows, seed })
    }

    /// The rows of one epoch.
    pub fn rows_per_epoch(&self) -> u64 {
        (self.split.len() / self.row_len as u64).max(1)
    }

    /// The batch of the rows `position..position + rows`, counted from the beginning of training.
    ///
    /// # Errors
    /// When a token file was damaged after it was opened.
    pub fn batch(&self, position: u64) -> Result<TokenBatch> {
        let mut batch = TokenBatch::with_capacity(self.rows, self.row_len);
        for row in 0..self.rows as u64 {
            self.row(position.wrapping_add(row), &mut batch)?;
        }
        Ok(batch)
    }

    /// Where in the ring the row at `position` begins.
    fn window(&self, position: u64) -> u64 {
        let windows = self.rows_per_epoch();
        let (epoch, index) = (position / windows, position % windows);
        let offset = reduce(mix(self.seed, epoch, 0), self.split.len());
        let index = permute(index, windows, mix(self.seed, epoch, 1));
        // Both terms are below the number of tokens, which is far below 2^63 since they are in files.
        (offset + index * self.row_len as u64) % self.split.len()
    }

    /// Appends the row at `position`.
    fn row(&self, position: u64, batch: &mut TokenBatch) -> Result<()> {
        let begin = batch.tokens.len();
        let mut ring = vec![0; self.row_len + 1];
        let (mut at, mut filled) = (self.window(position), 0);
        while filled < ring.len() {
            let left = usize::try_from(self.split.len() - at).unwrap_or(usize::MAX);
            let count = left.min(ring.len() - filled);
            self.split.read(at, &mut ring[filled..filled + count])?;
            // The last token of the ring is only a target; a document that begins with it is not in the row.
            let end = at + count.min(self.row_len - filled) as u64;
            batch.starts.extend(self.split.starts_in(at..end).map(|start| (begin + filled) as u32 + (start - at) as u32));
            filled += count;
            at = 0;
        }
        batch.tokens.extend_from_slice(&ring[..self.row_len]);
        batch.targets.extend_from_slice(&ring[1..]);
        Ok(())
    }
}

/// Rows in a block of a [`Mixture`]: shares are multiples of 1/1024.
pub const BLOCK: u64 = 1024;

/// Which source each row is from, in fixed shares.
///
/// Positions come in blocks of [`BLOCK`]; in each block every source has its share of rows, in an order drawn for the block. So shares
/// are exact in each block, and the source of a row and its position in that source need no history.
#[derive(Clone, Debug)]
pub struct Shares {
    /// For each source the rows of a block that belong to it or to a source before it.
    ends: Vec<u64>,
    seed: u64,
}

impl Shares {
    /// Shares by weights.
    ///
    /// # Errors
    /// When there is no source, or a weight is less than 1/1024 of their sum.
    pub fn new(weights: &[f64], seed: u64) -> Result<Self> {
        if weights.is_empty() {
            bail!("a mixture needs a source");
        }
        let sum: f64 = weights.iter().sum();
        let mut exact = Vec::new();
        for (i, weight) in weights.iter().enumerate() {
            let share = weight / sum * BLOCK as f64;
            if !weight.is_finite() || *weight <= 0.0 || share.is_nan() || share < 1.0 {
                bail!("source {i} of the mixture has the weight {weight} in a sum of {sum}; it must be at least 1/{BLOCK} of it");
            }
            exact.push(share);
        }
        let mut shares: Vec<u64> = exact.iter().map(|share| *share as u64).collect();
        // The rows left over go to the largest remainders.
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
        let left = BLOCK.saturating_sub(shares.iter().sum());
        order.iter().cycle().take(left as usize).for_each(|&i| shares[i] += 1);
        let ends = shares.iter().scan(0, |end, share| Some(std::mem::replace(end, *end + share) + share)).collect();
        Ok(Self { ends, seed })
    }

    /// The source of the row at `position`, and the row's position in that source.
    pub fn source(&self, position: u64) -> (usize, u64) {
        let (block, index) = (position / BLOCK, position % BLOCK);
        let index = permute(index, BLOCK, mix(self.seed, block, 2));
        let source = self.ends.partition_point(|&end| end <= index);
        let begin = if source == 0 { 0 } else { self.ends[source - 1] };
        (source, block * (self.ends[source] - begin) + index - begin)
    }
}

/// Rows of tokens from several sources.
#[derive(Clone)]
pub struct Mixture {
    sources: Vec<Sampler>,
    shares: Shares,
}

impl Mixture {
    /// Mixes samplers, which must make batches of the same shape, by their weights.
    ///
    /// # Errors
    /// When there is no source, shapes differ, or a weight is less than 1/1024 of their sum.
    pub fn new(sources: Vec<(Sampler, f64)>, seed: u64) -> Result<Self> {
        let (sources, weights): (Vec<Sampler>, Vec<f64>) = sources.into_iter().unzip();
        let shape = |sampler: &Sampler| (sampler.rows, sampler.row_len);
        if let Some(i) = sources.iter().position(|sampler| shape(sampler) != shape(&sources[0])) {
            bail!("source {i} of the mixture makes batches of another shape than the first");
        }
        Ok(Self { sources, shares: Shares::new(&weights, seed)? })
    }

    /// The source of the row at `position`, and the row's position in that source.
    pub fn source(&self, position: u64) -> (usize, u64) {
        self.shares.source(position)
    }

    /// As [`Sampler::batch`].
    pub fn batch(&self, position: u64) -> Result<TokenBatch> {
        let (rows, row_len) = (self.sources[0].rows, self.sources[0].row_len);
        let mut batch = TokenBatch::with_capacity(rows, row_len);
        for row in 0..rows as u64 {
            let (source, position) = self.source(position.wrapping_add(row));
            self.sources[source].row(position, &mut batch)?;
        }
        Ok(batch)
    }
}

/// Where row `position`, counted from the beginning of training, is among `count` rows that each epoch visits in an order of its own.
pub fn shuffled(position: u64, count: u64, seed: u64) -> u64 {
    permute(position % count, count, mix(seed, position / count, 1))
}

/// A well-mixed number of three: the finalizer of SplitMix64 (Steele et al., 2014) over each in turn.
pub(crate) fn mix(seed: u64, counter: u64, stream: u64) -> u64 {
    [seed, counter, stream].into_iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A number below `limit` from a well-mixed one.
fn reduce(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

/// The image of `index` under a permutation of `0..count` drawn by `key`: a Feistel network (Luby and Rackoff, 1988) over the next even
/// number of bits, walked along its cycle until it is inside (Black and Rogaway, 2002), which takes fewer than four steps on average.
fn permute(index: u64, count: u64, key: u64) -> u64 {
    let bits = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << bits) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> bits, value & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(key, right, round) & mask));
        }
        value = left << bits | right;
        if value < count {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::shards::build_from;
    use crate::tokenizer::tests::{texts, tiny};

    fn split(texts: Vec<String>) -> (tempfile::TempDir, TokenSplit) {
        let dir = tempfile::tempdir().unwrap();
        let texts = texts.into_iter().map(Ok);
        let set = build_from(&dir.path().join("tokens"), "source", tiny(), texts, std::iter::empty(), &mut ()).unwrap();
        (dir, set.train)
    }

    #[test]
    fn an_epoch_shows_each_example_once() {
        for count in [1u64, 2, 7, 300] {
            let epoch = |n: u64| (0..count).map(|i| shuffled(n * count + i, count, 3)).collect::<Vec<_>>();
            for n in 0..3 {
                assert_eq!(epoch(n).into_iter().collect::<BTreeSet<_>>(), (0..count).collect());
            }
            assert!(count < 100 || epoch(0) != epoch(1));
        }
    }

    #[test]
    fn an_epoch_shows_each_token_once() {
        let (_dir, split) = split(texts());
        for row_len in [1, 7, 64, 1000] {
            let sampler = Sampler::new(&split, row_len, 1, 5).unwrap();
            let rows = sampler.rows_per_epoch();
            let mut orders = BTreeSet::new();
            for epoch in [0, 1, 1_000_000] {
                let windows: Vec<u64> = (0..rows).map(|row| sampler.window(epoch * rows + row)).collect();
                let mut seen = vec![0; split.len() as usize];
                for &window in &windows {
                    (0..row_len as u64).for_each(|i| seen[((window + i) % split.len()) as usize] += 1);
                }
                assert!(seen.iter().all(|&n| n <= 1), "a token twice in rows of {row_len}");
                assert!(seen.iter().filter(|&&n| n == 0).count() < row_len, "tokens left out in rows of {row_len}");
                orders.insert(windows);
            }
            assert_eq!(orders.len(), 3, "epochs in the same order in rows of {row_len}");
        }
    }

    #[test]
    fn targets_are_the_next_tokens_and_starts_the_documents() {
        let (_dir, split) = split(texts());
        let sampler = Sampler::new(&split, 50, 4, 1).unwrap();
        for position in [0, 4, 1001] {
            let batch = sampler.batch(position).unwrap();
            assert_eq!((batch.rows, batch.row_len, batch.tokens.len(), batch.targets.len()), (4, 50, 200, 200));
            for row in 0..4 {
                let at = row * 50;
                assert_eq!(batch.tokens[at + 1..at + 50], batch.targets[at..at + 49]);
                let begin = sampler.window(position + row as u64);
                let next = (begin + 50) % split.len();
                let mut token = [0];
                split.read(next, &mut token).unwrap();
                assert_eq!(batch.targets[at + 49], token[0]);
            }
            let ends: Vec<u32> = (0..200).filter(|&i| batch.tokens[i as usize] == split.end_of_text()).collect();
            assert_eq!(batch.starts, ends);
        }
    }

    #[test]
    fn a_batch_is_a_function_of_seed_and_position() {
        let (_dir, split) = split(texts());
        let batch = |seed, position| Sampler::new(&split, 30, 3, seed).unwrap().batch(position).unwrap();
        assert_eq!(batch(1, 12), batch(1, 12));
        assert_ne!(batch(1, 12), batch(2, 12));
        // A batch is its rows: how many are taken at once changes nothing.
        let one = Sampler::new(&split, 30, 1, 1).unwrap();
        let rows: Vec<u32> = (12..15).flat_map(|position| one.batch(position).unwrap().tokens).collect();
        assert_eq!(batch(1, 12).tokens, rows);
    }

    #[test]
    fn a_text_shorter_than_a_row_is_repeated() {
        let (_dir, split) = split(vec!["a short text".to_owned()]);
        let batch = Sampler::new(&split, 100, 2, 1).unwrap().batch(7).unwrap();
        assert!(batch.starts.len() as u64 >= 2 * (100 / split.len()));
        assert!(batch.targets.iter().all(|&id| id < split.vocab_size() as u32));
    }

    #[test]
    fn what_cannot_be_sampled_is_said() {
        let (_dir, empty) = split(vec![]);
        assert!(Sampler::new(&empty, 10, 1, 0).is_err());
        let (_dir, split) = split(texts());
        for (row_len, rows) in [(0, 1), (1, 0), (usize::MAX, 2), (1 << 16, 1 << 16)] {
            assert!(Sampler::new(&split, row_len, rows, 0).is_err());
        }
        let sampler = |rows| Sampler::new(&split, 10, rows, 0).unwrap();
        for sources in [
            vec![],
            vec![(sampler(1), 1.0), (sampler(2), 1.0)],
            vec![(sampler(1), 1.0), (sampler(1), 0.0)],
            vec![(sampler(1), 1.0), (sampler(1), -1.0)],
            vec![(sampler(1), f64::NAN)],
            vec![(sampler(1), f64::INFINITY)],
            vec![(sampler(1), 1.0), (sampler(1), 1e-6)],
        ] {
            assert!(Mixture::new(sources, 0).is_err());
        }
    }

    #[test]
    fn a_mixture_keeps_its_shares_and_skips_no_row() {
        let (_dir, split) = split(texts());
        let sampler = Sampler::new(&split, 10, 2, 3).unwrap();
        let weights = [0.5, 0.3, 0.2];
        let mixture = Mixture::new(weights.iter().map(|&weight| (sampler.clone(), weight)).collect(), 9).unwrap();
        let mut positions = vec![Vec::new(); 3];
        for position in 0..3 * BLOCK {
            let (source, position) = mixture.source(position);
            positions[source].push(position);
        }
        for (mut positions, weight) in positions.into_iter().zip(weights) {
            assert!((positions.len() as f64 - weight * 3.0 * BLOCK as f64).abs() <= 3.0);
            positions.sort_unstable();
            assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>());
        }
        let batch = mixture.batch(5).unwrap();
        let (_, first) = mixture.source(5);
        assert_eq!(batch.tokens[..10], sampler.batch(first).unwrap().tokens[..10]);
    }

    proptest! {
        #[test]
        fn a_permutation_is_one(count in 1u64..2000, key in any::<u64>()) {
            let images: BTreeSet<u64> = (0..count).map(|index| permute(index, count, key)).collect();
            prop_assert_eq!(images.len() as u64, count);
            prop_assert_eq!(images.last().copied(), Some(count - 1));
        }

        #[test]
        fn a_permutation_of_many_stays_inside(index in any::<u64>(), count in 1u64.., key in any::<u64>()) {
            prop_assert!(permute(index % count, count, key) < count);
        }
    }
}
