//! 32-bit floats to blocks of 256, by the search of ggml's reference: of some twenty scales near the obvious one that with the least error,
//! in which large values count more.

use half::f16;

use crate::layout::put_six_bits;

/// Values that are all below this are as good as zero.
const NOTHING: f32 = 1e-15;

/// The nearest integer, of two as near the even one.
fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}

/// What is farthest from zero.
fn farthest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |far: f32, x| if x.abs() > far.abs() { *x } else { far })
}

pub(crate) fn q4_k(values: &[f32; 256], block: &mut [u8; 144]) {
    let parts = values.as_chunks::<32>().0;
    let mut found = [(0.0f32, 0.0f32); 8];
    found.iter_mut().zip(parts).for_each(|(found, part)| *found = scale_and_offset(part));
    let (scale, offset) = found.iter().fold((0.0f32, 0.0f32), |(a, b), (scale, offset)| (a.max(*scale), b.max(*offset)));
    let six = |x: f32, most: f32| if most > 0.0 { nearest(63.0 / most * x).clamp(0, 63) as u8 } else { 0 };
    let (d, least) = (f16::from_f32(scale / 63.0), f16::from_f32(offset / 63.0));
    block.fill(0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..4].copy_from_slice(&least.to_le_bytes());
    for (number, (part, found)) in parts.iter().zip(found).enumerate() {
        let (a, b) = (six(found.0, scale), six(found.1, offset));
        put_six_bits(&mut block[4..16], number, a, b);
        let (scale, offset) = (d.to_f32() * f32::from(a), least.to_f32() * f32::from(b));
        if scale == 0.0 {
            continue;
        }
        // Two parts share 32 bytes: the first has the low halves.
        for (byte, x) in block[16 + number / 2 * 32..].iter_mut().zip(part) {
            *byte |= (nearest((x + offset) / scale).clamp(0, 15) as u8) << (4 * (number % 2));
        }
    }
}

/// The scale, and what is taken away after it, with which four bits stand for values best.
fn scale_and_offset(x: &[f32; 32]) -> (f32, f32) {
    let average = (x.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
    let weights: [f32; 32] = std::array::from_fn(|i| average + x[i].abs());
    let sum_w: f32 = weights.iter().sum();
    let sum_x: f32 = weights.iter().zip(x).map(|(w, x)| w * x).sum();
    // There is no offset that would be added.
    let mut least = x.iter().fold(0.0f32, |least, x| least.min(*x));
    let most = x.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
    if most == least {
        return (0.0, -least);
    }
    let codes = |inverse: f32, least: f32| x.map(|x| nearest(inverse * (x - least)).clamp(0, 15) as f32);
    let error = |scale: f32, least: f32, codes: &[f32; 32]| -> f32 {
        let one = |((code, x), w): ((&f32, &f32), &f32)| w * (scale * code + least - x).powi(2);
        codes.iter().zip(x).zip(&weights).map(one).sum()
    };
    let mut scale = (most - least) / 15.0;
    let mut best = error(scale, least, &codes(1.0 / scale, least));
    for step in 0..=20 {
        let codes = codes((14.0 + 0.1 * step as f32) / (most - least), least);
        let (mut l, mut ll, mut xl) = (0.0, 0.0, 0.0);
        for ((code, x), w) in codes.iter().zip(x).zip(&weights) {
            (l, ll, xl) = (l + w * code, ll + w * code * code, xl + w * code * x);
        }
        // The scale and offset with the least squared error for these codes.
        let determinant = sum_w * ll - l * l;
        if determinant <= 0.0 {
            continue;
        }
        let mut fit = ((sum_w * xl - sum_x * l) / determinant, (ll * sum_x - l * xl) / determinant);
        if fit.1 > 0.0 {
            fit = (xl / ll, 0.0);
        }
        let found = error(fit.0, fit.1, &codes);
        if found < best {
            (best, (scale, least)) = (found, fit);
        }
    }
    (scale, -least)
}

pub(crate) fn q6_k(values: &[f32; 256], block: &mut [u8; 210]) {
    let parts = values.as_chunks::<16>().0;
    let mut scales = [0.0f32; 16];
    scales.iter_mut().zip(parts).for_each(|(scale, part)| *scale = symmetric_scale(part));
    block.fill(0);
    let largest = farthest(&scales);
    if largest.abs() < NOTHING {
        return;
    }
    let inverse = -128.0 / largest;
    let d = f16::from_f32(1.0 / inverse);
    block[208..].copy_from_slice(&d.to_le_bytes());
    for (number, (part, scale)) in parts.iter().zip(scales).enumerate() {
        let a = nearest(inverse * scale).clamp(-128, 127) as i8;
        block[192 + number] = a as u8;
        let scale = d.to_f32() * f32::from(a);
        for (i, x) in part.iter().enumerate() {
            let code = if scale == 0.0 { 32 } else { (nearest(x / scale).clamp(-32, 31) + 32) as u8 };
            // Halves of 128 values; in each, four quarters of 32 share the bytes of the high bits, and two the bytes of the low.
            let (half, quarter, place) = (number / 8, number / 2 % 4, number % 2 * 16 + i);
            block[half * 64 + quarter % 2 * 32 + place] |= (code & 15) << (4 * (quarter / 2));
            block[128 + half * 32 + place] |= (code >> 4) << (2 * quarter);
        }
    }
}

/// The scale with which codes from −32 to 31 stand for values best.
fn symmetric_scale(x: &[f32; 16]) -> f32 {
    let farthest = farthest(x);
    if farthest.abs() < NOTHING {
        return 0.0;
    }
    let sums = |inverse: f32| {
        x.iter().fold((0.0f32, 0.0f32), |(xl, ll), x| {
            let code = nearest(inverse * x).clamp(-32, 31) as f32;
            (xl + x * x * x * code, ll + x * x * code * code)
        })
    };
    let (mut scale, mut best) = (0.0, 0.0);
    // The obvious scale first: of equally good ones the first is kept.
    for step in [0].into_iter().chain(-9..0).chain(1..=9) {
        let (xl, ll) = sums(-(32.0 + 0.1 * step as f32) / farthest);
        if ll > 0.0 && xl * xl > best * ll {
            scale = xl / ll;
            best = scale * xl;
        }
    }
    scale
}
