//! Plain Rust: what the other sets are held to.

use half::f16;

use super::Simd;

pub(crate) struct Portable;

type Bytes = [u8; 32];
type Ints = [i32; 8];
type Floats = [f32; 8];

/// The sums of `w x` over the values `4 first` and on, four for each vector.
#[inline(always)]
unsafe fn dot(w: &[[i32; 32]], x: *const i8, first: usize) -> Ints {
    let mut sums = [0; 8];
    for (k, w) in w.iter().enumerate() {
        // SAFETY: four of the input's 32 bytes.
        let x: [i8; 4] = unsafe { std::array::from_fn(|j| *x.add(4 * (first + k) + j)) };
        for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
            for (w, x) in w.iter().zip(x) {
                *sum += w * i32::from(x);
            }
        }
    }
    sums
}

impl Simd for Portable {
    type Bytes = Bytes;
    type Ints = Ints;
    type Floats = Floats;

    unsafe fn bytes(from: *const u8) -> Bytes {
        // SAFETY: the caller's.
        unsafe { from.cast::<Bytes>().read_unaligned() }
    }

    unsafe fn low(bytes: Bytes) -> Bytes {
        bytes.map(|byte| byte & 15)
    }

    unsafe fn high(bytes: Bytes) -> Bytes {
        bytes.map(|byte| byte >> 4)
    }

    unsafe fn six<const FIELD: usize>(low: Bytes, high: Bytes) -> Bytes {
        std::array::from_fn(|i| low[i] | (high[i] >> (2 * FIELD) & 3) << 4)
    }

    unsafe fn dots4<const R: usize>(w: &[Bytes; 8], x: &[*const i8; R]) -> [Ints; R] {
        let w = w.map(|bytes| bytes.map(i32::from));
        // SAFETY: the caller's.
        x.map(|x| unsafe { dot(&w, x, 0) })
    }

    unsafe fn dots6<const R: usize>(w: &[Bytes; 8], x: &[*const i8; R], a: *const i8, halves: &[[i16; 2]; R]) -> [Ints; R] {
        let w = w.map(|bytes| bytes.map(i32::from));
        // SAFETY: the caller's.
        let a = unsafe { a.cast::<[[i8; 8]; 2]>().read_unaligned() }.map(|a| a.map(i32::from));
        std::array::from_fn(|r| {
            // SAFETY: the caller's.
            let dots = unsafe { [dot(&w[..4], x[r], 0), dot(&w[4..], x[r], 4)] };
            let part = |half: usize, row: usize| a[half][row] * (dots[half][row] - 32 * i32::from(halves[r][half]));
            std::array::from_fn(|row| part(0, row) + part(1, row))
        })
    }

    unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], _sums: &[i32; R]) -> [Ints; R] {
        // SAFETY: the caller's.
        let w = unsafe { w.cast::<[[i8; 32]; 8]>().read_unaligned() }.map(|bytes| bytes.map(i32::from));
        // SAFETY: the caller's.
        x.map(|x| unsafe { dot(&w, x, 0) })
    }

    unsafe fn minus(ints: Ints, by: i32) -> Ints {
        ints.map(|i| i - by)
    }

    unsafe fn floats(ints: Ints) -> Floats {
        ints.map(|i| i as f32)
    }

    unsafe fn halves(from: *const u8) -> Floats {
        // SAFETY: the caller's.
        let bytes = unsafe { from.cast::<[[u8; 2]; 8]>().read_unaligned() };
        bytes.map(|bytes| f16::from_le_bytes(bytes).to_f32())
    }

    unsafe fn small(from: *const u8) -> Floats {
        // SAFETY: the caller's.
        unsafe { from.cast::<[u8; 8]>().read_unaligned() }.map(f32::from)
    }

    unsafe fn splat(value: f32) -> Floats {
        [value; 8]
    }

    unsafe fn mul(a: Floats, b: Floats) -> Floats {
        std::array::from_fn(|i| a[i] * b[i])
    }

    unsafe fn fma(a: Floats, b: Floats, c: Floats) -> Floats {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    unsafe fn fnma(a: Floats, b: Floats, c: Floats) -> Floats {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    unsafe fn array(floats: Floats) -> [f32; 8] {
        floats
    }
}
