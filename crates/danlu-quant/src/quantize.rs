//! 32-bit floats to blocks, as ggml's reference rounds them.

use half::{bf16, f16};

use crate::Format;
use crate::quantize_k::{q4_k, q6_k};
use crate::threads::for_each_chunk;

/// Blocks of 256 in one piece of parallel work: each takes some tens of microseconds.
const PIECE: usize = 64;

/// Appends `values` in `format` to `out`; none when its blocks do not divide the number of values.
#[must_use]
pub fn quantize(format: Format, values: &[f32], out: &mut Vec<u8>) -> Option<()> {
    out.reserve(format.row_bytes(values.len())?);
    match format {
        Format::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Format::F16 => values.iter().for_each(|v| out.extend(f16::from_f32(*v).to_le_bytes())),
        Format::Bf16 => values.iter().for_each(|v| out.extend(bf16::from_f32(*v).to_le_bytes())),
        Format::Q4_0 => blocks(values).for_each(|block| q4_0(block, out)),
        Format::Q4_1 => blocks(values).for_each(|block| q4_1(block, out)),
        Format::Q8_0 => blocks(values).for_each(|block| q8_0(block, out)),
        Format::Q4K => searched(values, out, q4_k),
        Format::Q6K => searched(values, out, q6_k),
    }
    Some(())
}

/// Blocks whose scales are searched for, on all threads.
fn searched<const BYTES: usize>(values: &[f32], out: &mut Vec<u8>, block: fn(&[f32; 256], &mut [u8; BYTES])) {
    let start = out.len();
    let values = values.as_chunks::<256>().0;
    out.resize(start + values.len() * BYTES, 0);
    for_each_chunk(&mut out[start..], PIECE * BYTES, |piece, out| {
        out.as_chunks_mut().0.iter_mut().zip(&values[piece * PIECE..]).for_each(|(out, values)| block(values, out));
    });
}

fn blocks(values: &[f32]) -> impl Iterator<Item = &[f32; 32]> {
    values.as_chunks().0.iter()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Two values a byte: the first half of the block in the low bits.
fn pack(q: impl Fn(usize) -> u8, out: &mut Vec<u8>) {
    out.extend((0..16).map(|i| q(i) | q(i + 16) << 4));
}

fn q4_0(block: &[f32; 32], out: &mut Vec<u8>) {
    // The value farthest from zero becomes −8, the end of the range that has no counterpart.
    let farthest = block.iter().fold(0.0f32, |far, v| if v.abs() > far.abs() { *v } else { far });
    let scale = farthest / -8.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    pack(|i| (block[i] * inverse + 8.5).clamp(0.0, 15.0) as u8, out);
}

fn q4_1(block: &[f32; 32], out: &mut Vec<u8>) {
    let (least, most) = block.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let scale = (most - least) / 15.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(f16::from_f32(least).to_le_bytes());
    pack(|i| ((block[i] - least) * inverse + 0.5).clamp(0.0, 15.0) as u8, out);
}

fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let scale = block.iter().fold(0.0f32, |far, v| far.max(v.abs())) / 127.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
}
