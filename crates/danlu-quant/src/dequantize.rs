//! Blocks to 32-bit floats, every value with the roundings of ggml's reference: a product, then a sum, never fused.

use half::{bf16, f16};

use crate::Format;
use crate::layout::six_bits;

/// The values of `bytes`, which are whole blocks, into `out`.
///
/// # Panics
/// When `out` has not room for exactly the values that `bytes` holds.
pub fn dequantize(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len() % format.block_bytes(), 0, "{} bytes are no whole blocks of {}", bytes.len(), format.name());
    assert_eq!(bytes.len() / format.block_bytes() * format.block(), out.len(), "the blocks and the room for their values");
    match format {
        Format::F32 => each(bytes, out, |block: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*block)),
        Format::F16 => each(bytes, out, |block: &[u8; 2], out: &mut [f32; 1]| out[0] = f16::from_le_bytes(*block).to_f32()),
        Format::Bf16 => each(bytes, out, |block: &[u8; 2], out: &mut [f32; 1]| out[0] = bf16::from_le_bytes(*block).to_f32()),
        Format::Q4_0 => each(bytes, out, q4_0),
        Format::Q4_1 => each(bytes, out, q4_1),
        Format::Q8_0 => each(bytes, out, q8_0),
        Format::Q4K => each(bytes, out, q4_k),
        Format::Q6K => each(bytes, out, q6_k),
    }
}

fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

/// The 16-bit float at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (i, q) in block[2..].iter().enumerate() {
        out[i] = scale * ((q & 15) as i32 - 8) as f32;
        out[i + 16] = scale * ((q >> 4) as i32 - 8) as f32;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (i, q) in block[4..].iter().enumerate() {
        out[i] = scale * (q & 15) as f32 + least;
        out[i + 16] = scale * (q >> 4) as f32 + least;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = scale * (*q as i8) as f32;
    }
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (packed, values) = (&block[4..16], &block[16..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (a, b) = six_bits(packed, group);
        let (scale, least) = (scale * a as f32, least * b as f32);
        // Two groups share 32 bytes: the first has the low halves.
        let shift = 4 * (group % 2);
        for (out, q) in out.iter_mut().zip(&values[group / 2 * 32..]) {
            *out = scale * (q >> shift & 15) as f32 - least;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, out) in out.iter_mut().enumerate() {
        // Halves of 128 values; in each, four quarters of 32 share the bytes of the high bits, and two the bytes of the low.
        let (half, quarter, place) = (i / 128, i / 32 % 4, i % 32);
        let low = low[half * 64 + quarter % 2 * 32 + place] >> (4 * (quarter / 2)) & 15;
        let high = high[half * 32 + place] >> (2 * quarter) & 3;
        let scale = scale * (scales[i / 16] as i8) as f32;
        *out = scale * ((low | high << 4) as i32 - 32) as f32;
    }
}
