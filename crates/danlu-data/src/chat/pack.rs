//! Conversations packed into rows of one length.

use anyhow::{Result, ensure};

use super::Encoded;
use crate::sampler::{IGNORE, TokenBatch, shuffled};

/// Encoded conversations in rows of `row_len` tokens: several short ones share a row, none is cut, and none sees another.
///
/// Which conversations share a row is decided once; each epoch visits the rows in an order of its own, a pure function of
/// (seed, position).
#[derive(Clone, Debug)]
pub struct Packed {
    encoded: Vec<Encoded>,
    rows: Vec<Vec<usize>>,
    row_len: usize,
    filler: u32,
    seed: u64,
    /// Conversations longer than a row, which were left out.
    pub too_long: usize,
}

impl Packed {
    /// Rows are filled by the longest conversation that still fits. `filler` stands where none does; it carries no loss.
    ///
    /// # Errors
    /// When no conversation fits in a row.
    pub fn new(encoded: Vec<Encoded>, row_len: usize, filler: u32, seed: u64) -> Result<Self> {
        let all = encoded.len();
        let encoded: Vec<Encoded> =
            encoded.into_iter().filter(|one| one.ids.len() <= row_len && one.loss.contains(&true)).collect();
        ensure!(
            !encoded.is_empty(),
            "none of {all} conversations has an answer and fits in a row of {row_len} tokens; raise `model.context`"
        );
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(encoded[i].ids.len()));
        // First fit over rows that are ordered by nothing but their making: deterministic, and within a few per cent of the best.
        let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
        // Rows that some conversation may still fit in; the shortest comes last and says which are full.
        let shortest = order.last().map_or(0, |&i| encoded[i].ids.len());
        let mut open: Vec<usize> = Vec::new();
        for i in order {
            let length = encoded[i].ids.len();
            let place = open.iter().position(|&row| rows[row].0 >= length);
            let row = place.map_or(rows.len(), |place| open[place]);
            if place.is_none() {
                rows.push((row_len, vec![]));
                open.push(row);
            }
            rows[row].0 -= length;
            rows[row].1.push(i);
            if rows[row].0 < shortest {
                open.retain(|&other| other != row);
            }
        }
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(Self { too_long: all - encoded.len(), encoded, rows, row_len, filler, seed })
    }

    /// Conversations that are trained on.
    pub fn conversations(&self) -> usize {
        self.encoded.len()
    }

    /// Tokens of a row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Tokens of the conversations that are trained on.
    pub fn tokens(&self) -> u64 {
        self.encoded.iter().map(|one| one.ids.len() as u64).sum()
    }

    /// Rows of an epoch.
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The rows `position..position + rows`, counted from the beginning of training.
    pub fn batch(&self, position: u64, rows: usize) -> TokenBatch {
        let (mut tokens, mut targets, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows as u64 {
            let begin = row as usize * self.row_len;
            let row = shuffled(position + row, self.rows(), self.seed);
            for one in self.rows[row as usize].iter().map(|&i| &self.encoded[i]) {
                starts.push(tokens.len() as u32);
                append(one, &mut tokens, &mut targets);
            }
            if tokens.len() < begin + self.row_len {
                starts.push(tokens.len() as u32);
                tokens.resize(begin + self.row_len, self.filler);
                targets.resize(begin + self.row_len, IGNORE);
            }
        }
        TokenBatch { tokens, targets, rows, row_len: self.row_len, starts }
    }
}

/// Appends a conversation's tokens, and for each the next one where that carries loss.
pub fn append(one: &Encoded, tokens: &mut Vec<u32>, targets: &mut Vec<u32>) {
    tokens.extend(&one.ids);
    let next = one.ids.iter().zip(&one.loss).skip(1);
    targets.extend(next.map(|(&id, &loss)| if loss { id } else { IGNORE }));
    targets.push(IGNORE);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn encoded(length: usize, name: u32) -> Encoded {
        Encoded { ids: vec![name; length], loss: (0..length).map(|i| i >= length / 2).collect(), bytes: length as u64 }
    }

    #[test]
    fn every_conversation_is_in_each_epoch_once_and_whole() {
        let lengths = [5, 3, 8, 2, 7, 9, 4, 4, 1, 6, 30];
        let all: Vec<Encoded> = lengths.iter().zip(1..).map(|(&length, name)| encoded(length, name)).collect();
        let packed = Packed::new(all, 9, 0, 7).unwrap();
        assert_eq!((packed.conversations(), packed.too_long), (10, 1));
        let filled = packed.tokens() as f64 / (packed.rows() * 9) as f64;
        assert!(filled > 0.85, "{filled}");
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let batch = packed.batch(epoch * packed.rows(), packed.rows() as usize);
            assert_eq!(batch.tokens.len(), packed.rows() as usize * 9);
            let mut counts = BTreeMap::<u32, usize>::new();
            batch.tokens.iter().filter(|&&token| token != 0).for_each(|&token| *counts.entry(token).or_default() += 1);
            assert_eq!(counts.into_values().collect::<Vec<_>>(), lengths[..10]);
            for (at, (&token, &target)) in batch.tokens.iter().zip(&batch.targets).enumerate() {
                let ends = batch.starts.contains(&(at as u32 + 1)) || (at + 1) % 9 == 0;
                assert!(target == IGNORE || (target == token && !ends), "a target of another conversation at {at}");
            }
            let carried = batch.targets.iter().filter(|&&target| target != IGNORE).count();
            // The first token of a conversation is never predicted.
            assert_eq!(carried, lengths[..10].iter().map(|&n| if n == 1 { 0 } else { n - n / 2 }).sum::<usize>());
            orders.push(batch.tokens);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    }

    #[test]
    fn nothing_that_fits_is_an_error() {
        let error = Packed::new(vec![encoded(10, 1)], 9, 0, 0).unwrap_err().to_string();
        assert!(error.contains("a row of 9 tokens"), "{error}");
    }
}
