//! Eight rows side by side: how blocks are laid out for products.
//!
//! A panel is eight rows of a weight, block after block. In a block, scales of one kind lie beside each other, one for each row, and
//! values in vectors of 32 bytes: of each row four values that follow each other. So one vector times four bytes of the input, repeated, is
//! a step of eight rows at once, and the sums of eight rows end up beside each other without being added across.
//!
//! | format | block of a panel |
//! |---|---|
//! | Q4_0 | 8 scales, 128 bytes of values |
//! | Q4_1 | 8 scales, 8 offsets, 128 bytes of values |
//! | Q8_0 | 8 scales, 256 bytes of values |
//! | Q4_K | 8 scales, 8 scales of offsets; then for each 32 values 8 bytes `a`, 8 bytes `b`, 128 bytes of values |
//! | Q6_K | 8 scales; then for each 32 values 8 bytes `a` of the first 16, 8 of the last, 128 bytes of low and 64 of high bits |
//!
//! Values of four bits share a byte with the value four places further on: vector `g` holds values `8g` to `8g + 3` in its low halves and the
//! next four in its high halves. High bits of values `16h + 4i + j` are bits `2i` and `2i + 1` of byte `j` of a row in vector `h`. Nothing is
//! rounded: [`unpack_block`] gives back what [`pack_block`] took.

use crate::Format;

/// Rows in a panel.
pub(crate) const ROWS: usize = 8;
/// Bytes of a block's scales of one kind in 16 bits.
pub(crate) const HALVES: usize = 2 * ROWS;
/// Bytes of 32 values of four bits.
pub(crate) const NIBBLES: usize = 16 * ROWS;
/// Bytes of 32 values of eight bits.
const BYTES: usize = 32 * ROWS;
/// Bytes for each 32 values of Q4_K …
pub(crate) const Q4K_PART: usize = 2 * ROWS + NIBBLES;
/// … and of Q6_K.
pub(crate) const Q6K_PART: usize = 2 * ROWS + NIBBLES + 8 * ROWS;

/// Bytes of a block of a panel; none for formats without products.
pub(crate) const fn block_bytes(format: Format) -> Option<usize> {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => None,
        Format::Q4_0 => Some(HALVES + NIBBLES),
        Format::Q4_1 => Some(2 * HALVES + NIBBLES),
        Format::Q8_0 => Some(HALVES + BYTES),
        Format::Q4K => Some(2 * HALVES + 8 * Q4K_PART),
        Format::Q6K => Some(HALVES + 8 * Q6K_PART),
    }
}

/// Puts row `row`'s block into a block of its panel, which is zero there.
pub(crate) fn pack_block(format: Format, block: &[u8], row: usize, panel: &mut [u8]) {
    let scale = |from: usize, kind: usize, panel: &mut [u8]| {
        panel[kind * HALVES + 2 * row..][..2].copy_from_slice(&block[from..from + 2]);
    };
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("a panel was refused before"),
        Format::Q4_0 => {
            scale(0, 0, panel);
            put_nibbles(|i| half_byte(&block[2..], i), row, &mut panel[HALVES..]);
        }
        Format::Q4_1 => {
            scale(0, 0, panel);
            scale(2, 1, panel);
            put_nibbles(|i| half_byte(&block[4..], i), row, &mut panel[2 * HALVES..]);
        }
        Format::Q8_0 => {
            scale(0, 0, panel);
            for i in 0..32 {
                panel[HALVES + i / 4 * 32 + row * 4 + i % 4] = block[2 + i];
            }
        }
        Format::Q4K => {
            scale(0, 0, panel);
            scale(2, 1, panel);
            for (part, panel) in panel[2 * HALVES..].as_chunks_mut::<Q4K_PART>().0.iter_mut().enumerate() {
                (panel[row], panel[ROWS + row]) = six_bits(&block[4..16], part);
                // Two parts share 32 bytes: the first has the low halves.
                let values = &block[16 + part / 2 * 32..];
                put_nibbles(|i| values[i] >> (4 * (part % 2)) & 15, row, &mut panel[2 * ROWS..]);
            }
        }
        Format::Q6K => {
            scale(208, 0, panel);
            for (part, panel) in panel[HALVES..].as_chunks_mut::<Q6K_PART>().0.iter_mut().enumerate() {
                (panel[row], panel[ROWS + row]) = (block[192 + 2 * part], block[193 + 2 * part]);
                let (low, shift, high) = q6k_places(part);
                put_nibbles(|i| block[low + i] >> shift & 15, row, &mut panel[2 * ROWS..]);
                for i in 0..32 {
                    let bits = block[128 + high.0 + i] >> high.1 & 3;
                    panel[2 * ROWS + NIBBLES + i / 16 * 32 + row * 4 + i % 4] |= bits << (2 * (i / 4 % 4));
                }
            }
        }
    }
}

/// Gives row `row`'s block back; `block` is zero.
pub(crate) fn unpack_block(format: Format, panel: &[u8], row: usize, block: &mut [u8]) {
    let scale = |to: usize, kind: usize, block: &mut [u8]| {
        block[to..to + 2].copy_from_slice(&panel[kind * HALVES + 2 * row..][..2]);
    };
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("a panel was refused before"),
        Format::Q4_0 => {
            scale(0, 0, block);
            (0..32).for_each(|i| block[2 + i % 16] |= nibble(&panel[HALVES..], row, i) << (i / 16 * 4));
        }
        Format::Q4_1 => {
            scale(0, 0, block);
            scale(2, 1, block);
            (0..32).for_each(|i| block[4 + i % 16] |= nibble(&panel[2 * HALVES..], row, i) << (i / 16 * 4));
        }
        Format::Q8_0 => {
            scale(0, 0, block);
            (0..32).for_each(|i| block[2 + i] = panel[HALVES + i / 4 * 32 + row * 4 + i % 4]);
        }
        Format::Q4K => {
            scale(0, 0, block);
            scale(2, 1, block);
            for (part, panel) in panel[2 * HALVES..].as_chunks::<Q4K_PART>().0.iter().enumerate() {
                put_six_bits(&mut block[4..16], part, panel[row], panel[ROWS + row]);
                let values = &mut block[16 + part / 2 * 32..];
                (0..32).for_each(|i| values[i] |= nibble(&panel[2 * ROWS..], row, i) << (4 * (part % 2)));
            }
        }
        Format::Q6K => {
            scale(208, 0, block);
            for (part, panel) in panel[HALVES..].as_chunks::<Q6K_PART>().0.iter().enumerate() {
                (block[192 + 2 * part], block[193 + 2 * part]) = (panel[row], panel[ROWS + row]);
                let (low, shift, high) = q6k_places(part);
                for i in 0..32 {
                    block[low + i] |= nibble(&panel[2 * ROWS..], row, i) << shift;
                    let bits = panel[2 * ROWS + NIBBLES + i / 16 * 32 + row * 4 + i % 4] >> (2 * (i / 4 % 4)) & 3;
                    block[128 + high.0 + i] |= bits << high.1;
                }
            }
        }
    }
}

/// Value `i` of 32 in ggml's order: the first 16 are the low halves.
fn half_byte(values: &[u8], i: usize) -> u8 {
    values[i % 16] >> (i / 16 * 4) & 15
}

fn put_nibbles(value: impl Fn(usize) -> u8, row: usize, panel: &mut [u8]) {
    for g in 0..4 {
        for j in 0..4 {
            panel[g * 32 + row * 4 + j] = value(8 * g + j) | value(8 * g + 4 + j) << 4;
        }
    }
}

fn nibble(panel: &[u8], row: usize, i: usize) -> u8 {
    panel[i / 8 * 32 + row * 4 + i % 4] >> (i / 4 % 2 * 4) & 15
}

/// Where part `part` of Q6_K has its low bits (the first byte, and their shift) and its high bits (the same, after the low ones).
fn q6k_places(part: usize) -> (usize, usize, (usize, usize)) {
    let (half, quarter) = (part / 4, part % 4);
    (half * 64 + quarter % 2 * 32, 4 * (quarter / 2), (half * 32, 2 * quarter))
}

/// The two numbers of six bits of part `part` in Q4_K's twelve bytes: whole in the low bits for the first four parts, in two pieces for
/// the others.
pub(crate) fn six_bits(packed: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let low = packed[part + 4];
        (low & 15 | packed[part - 4] >> 2 & 48, low >> 4 | packed[part] >> 2 & 48)
    }
}

pub(crate) fn put_six_bits(packed: &mut [u8], part: usize, a: u8, b: u8) {
    if part < 4 {
        packed[part] |= a;
        packed[part + 4] |= b;
    } else {
        packed[part + 4] |= a & 15 | b << 4;
        packed[part - 4] |= (a & 48) << 2;
        packed[part] |= (b & 48) << 2;
    }
}
