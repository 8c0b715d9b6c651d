//! The inputs of products, in eight bits.

use crate::threads::{self, SendPtr};
use crate::{Error, Isa};

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Values in one piece of parallel work.
const PIECE: usize = 16384;

/// What a block's 32 bytes stand for, and their sums, which weights with an offset need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Scale {
    /// A value is this times its byte.
    pub scale: f32,
    /// The scale times the sum of all bytes.
    pub scaled_sum: f32,
    /// The sum of all bytes.
    pub sum: i32,
    /// The sums of the first and the last 16.
    pub halves: [i16; 2],
}

/// Rows of inputs `[rows, columns]` as bytes from −127 to 127, with a scale for each 32 of a row. The memory is kept from one use to
/// the next.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    rows: usize,
    columns: usize,
    bytes: Vec<i8>,
    scales: Vec<Scale>,
}

impl Activations {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the values of `x`, `[rows, columns]`, in place of what was held. The error of a value is at most half a step, the
    /// largest value of its block over 254. A block with an infinite value or one that is not a number makes its row's results not numbers.
    ///
    /// # Errors
    /// When `x` has another length, or `columns` is no multiple of 32. What was held is gone then.
    pub fn set(&mut self, x: &[f32], rows: usize, columns: usize) -> Result<(), Error> {
        self.set_with(Isa::current(), x, rows, columns)
    }

    pub(crate) fn set_with(&mut self, isa: Isa, x: &[f32], rows: usize, columns: usize) -> Result<(), Error> {
        (self.rows, self.columns) = (0, columns);
        let expected = rows.checked_mul(columns);
        if expected != Some(x.len()) {
            return Err(Error::Length { what: "an input", shape: [rows, columns], expected, found: x.len() });
        }
        if !columns.is_multiple_of(BLOCK) {
            return Err(Error::Columns { format: crate::Format::Q8_0, columns });
        }
        self.rows = rows;
        // Only what grows is filled.
        self.bytes.resize(x.len(), 0);
        self.scales.resize(x.len() / BLOCK, Scale::default());
        let (bytes, scales) = (SendPtr(self.bytes.as_mut_ptr()), SendPtr(self.scales.as_mut_ptr()));
        threads::for_each(x.len().div_ceil(PIECE), |piece| {
            let first = piece * PIECE;
            let x = &x[first..x.len().min(first + PIECE)];
            // SAFETY: pieces are whole blocks, do not overlap, and lie in the vectors, which have a byte for each value and a scale for
            // each block of them.
            let (bytes, scales) = unsafe {
                (
                    std::slice::from_raw_parts_mut(bytes.get().add(first), x.len()),
                    std::slice::from_raw_parts_mut(scales.get().add(first / BLOCK), x.len() / BLOCK),
                )
            };
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: each of these sets has AVX2.
                Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => unsafe { blocks_avx2(x, bytes, scales) },
                _ => blocks(x, bytes, scales),
            }
        });
        Ok(())
    }

    /// Rows that are held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The values that the bytes stand for, `[rows, columns]`.
    pub fn values(&self) -> Vec<f32> {
        self.bytes.iter().enumerate().map(|(i, byte)| self.scales[i / BLOCK].scale * f32::from(*byte)).collect()
    }

    pub(crate) fn row(&self, row: usize) -> (&[i8], &[Scale]) {
        let blocks = self.columns / BLOCK;
        (&self.bytes[row * self.columns..][..self.columns], &self.scales[row * blocks..][..blocks])
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blocks_avx2(x: &[f32], bytes: &mut [i8], scales: &mut [Scale]) {
    blocks(x, bytes, scales);
}

/// Plain Rust that compilers turn into vector instructions; no operation in it depends on which.
#[inline(always)]
fn blocks(x: &[f32], bytes: &mut [i8], scales: &mut [Scale]) {
    for ((x, bytes), scale) in x.as_chunks::<BLOCK>().0.iter().zip(bytes.as_chunks_mut::<BLOCK>().0).zip(scales) {
        *scale = block(x, bytes);
    }
}

#[inline(always)]
fn block(x: &[f32; BLOCK], bytes: &mut [i8; BLOCK]) -> Scale {
    // Without their signs, floats are in the order of their bits, and infinity and what is not a number are above all numbers.
    let mut largest = 0u32;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let scale = largest / 127.0;
    // Below the normal numbers the inverse would be infinite; such a block is as good as zero.
    let inverse = if scale.is_normal() { 127.0 / largest } else { 0.0 };
    if !largest.is_finite() {
        bytes.fill(0);
        return Scale { scale: f32::NAN, scaled_sum: f32::NAN, ..Scale::default() };
    }
    // Added to a small number, this leaves its nearest integer in the low bits, even when two are as near.
    const SHIFT: f32 = 12_582_912.0;
    let mut halves = [0i32; 2];
    for (half, sum) in halves.iter_mut().enumerate() {
        for i in half * 16..half * 16 + 16 {
            let nearest = (x[i] * inverse + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32;
            bytes[i] = nearest as i8;
            *sum += nearest;
        }
    }
    let sum = halves[0] + halves[1];
    Scale { scale, scaled_sum: scale * sum as f32, sum, halves: halves.map(|half| half as i16) }
}
