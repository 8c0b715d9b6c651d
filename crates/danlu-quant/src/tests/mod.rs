mod activations;
mod formats;
mod products;
mod weights;

use crate::{Format, quantize};

/// The formats with products.
const FORMATS: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q6K];

/// Numbers from −1.5 to 1.5.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next() * 3.0).collect()
}

/// A weight's bytes in ggml's layout. Those of the K formats are any bytes, so that every bit is seen, with scales that are near 1/1000.
fn weight(format: Format, out: usize, inp: usize, seed: u32) -> Vec<u8> {
    let mut bytes = vec![];
    if !matches!(format, Format::Q4K | Format::Q6K) {
        quantize(format, &values(out * inp, seed), &mut bytes).unwrap();
        return bytes;
    }
    let size = out * inp / format.block() * format.block_bytes();
    bytes = values(size, seed).into_iter().map(|value| (value.to_bits() >> 7) as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let scales: &[usize] = if format == Format::Q6K { &[208] } else { &[0, 2] };
        scales.iter().for_each(|at| block[at + 1] = 0x14);
    }
    bytes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
