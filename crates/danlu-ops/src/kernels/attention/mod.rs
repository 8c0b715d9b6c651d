//! Attention on packed queries, keys and values, block by block: no T×T matrix is kept, only the logarithm of each row's sum
//! (Dao et al., "FlashAttention", 2022; Rabe and Staats, 2021).
//!
//! One piece of work is one key head of one segment, with all the query heads that share it, so that the gradients of keys
//! and values are summed in a fixed order. Keys and values are packed once; queries then pass in panels of as many rows as a
//! register tile has, whose scores fit the first cache, and under a causal mask no tile above the diagonal is computed.

mod attend;
mod backward;
mod cached;
mod cross;
mod forward;
mod lanes;
mod paged;
mod pages;

use std::ops::Range;

use super::isa::Isa;
use super::simd::simd_fn;

pub use backward::attention_backward;
pub use cached::attention_cached;
pub use cross::{Across, Pair, Seen, cross_attention_backward, cross_attention_forward};
pub use forward::attention_forward;
pub(crate) use paged::{Rows, attention_paged};
pub use pages::{KvFormat, PAGE, live_page_bytes, live_pages};
pub(crate) use pages::{Page, store_paged};

/// What one attention call works on, beside the data: the heads, and the tables of rotary positions when there are any.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
    /// Whether a query sees only its own key and those before it; otherwise it sees all of its segment.
    pub causal: bool,
    /// Cosines and sines, each `[positions, head_dim / 2]`, applied to queries and keys in the half-split form of RoPE (Su et al., 2021).
    pub rope: Option<(&'a [f32], &'a [f32])>,
}

impl Attention<'_> {
    fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn row_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Keys that the query at `position` sees, of `keys`.
    fn visible(&self, position: usize, keys: usize) -> usize {
        if self.causal { position + 1 } else { keys }
    }

    /// Multiplies the scores.
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn check(&self, tokens: usize, segments: &[Range<usize>]) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.head_dim > 0, "impossible heads: {self:?}");
        let longest = segments.iter().map(|segment| segment.len()).max().unwrap_or(0);
        self.check_rope(longest);
        let mut end = 0;
        for segment in segments {
            assert!(
                segment.start >= end && segment.end <= tokens,
                "segment {segment:?} overlaps another or passes token {tokens}"
            );
            end = segment.end;
        }
    }

    fn check_rope(&self, positions: usize) {
        if let Some((cos, sin)) = self.rope {
            let need = positions * (self.head_dim / 2);
            assert!(self.head_dim.is_multiple_of(2), "rope turns pairs of channels, and there are {}", self.head_dim);
            assert!(cos.len() >= need && sin.len() >= need, "the rope tables are shorter than {positions} positions");
        }
    }

    /// Copies one row, turned to its position.
    fn turned(&self, isa: Isa, to: &mut [f32], from: &[f32], position: usize) {
        to.copy_from_slice(from);
        self.turn(isa, to, position, 1.0);
    }

    /// Turns one row in place, or back with a direction of -1.
    fn turn(&self, isa: Isa, row: &mut [f32], position: usize, direction: f32) {
        if let Some((cos, sin)) = self.rope {
            let half = self.head_dim / 2;
            let at = position * half..(position + 1) * half;
            turn_row(isa, row, &cos[at.clone()], &sin[at], direction);
        }
    }
}

/// Elements from one row of scores to the next: padded, so that rows fall into different sets of the first cache.
fn score_stride(keys: usize) -> usize {
    keys.next_multiple_of(64) + 16
}

/// Rows turned to their positions, in `scratch`; or the rows themselves when there is no rope. Returns where they are and their stride.
///
/// # Safety
/// `from` holds `rows` rows of `head_dim` elements.
unsafe fn turned_rows(
    shape: &Attention,
    isa: Isa,
    scratch: &mut [f32],
    from: *const f32,
    stride: usize,
    rows: usize,
    position: usize,
) -> (*const f32, usize) {
    if shape.rope.is_none() {
        return (from, stride);
    }
    let dim = shape.head_dim;
    for (r, to) in scratch.chunks_exact_mut(dim).take(rows).enumerate() {
        // SAFETY: row r, as the caller vouches.
        let from = unsafe { std::slice::from_raw_parts(from.add(r * stride), dim) };
        shape.turned(isa, to, from, position + r);
    }
    (scratch.as_ptr(), dim)
}

simd_fn! {
    /// Turns pairs (i, i + half) of a row by the angles given.
    fn turn_row(row: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        let (low, high) = row.split_at_mut(cos.len());
        for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let sin = sin * direction;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

/// Elements of scratch that parts of these sizes take, each rounded up to a cache line.
fn carved(sizes: &[usize]) -> usize {
    sizes.iter().map(|size| size.next_multiple_of(16)).sum()
}

/// Cuts scratch into parts of these sizes, each starting on a cache line.
fn carve<const N: usize>(mut scratch: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| {
        let (part, rest) = std::mem::take(&mut scratch).split_at_mut(size.next_multiple_of(16));
        scratch = rest;
        part
    })
}

#[cfg(test)]
mod tests;
