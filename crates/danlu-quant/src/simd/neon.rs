//! NEON, with and without products of four bytes.
//!
//! Eight rows are two registers. Without the dot product, signed bytes are multiplied to 16 bits, where two values of each row lie in
//! one register: eight products of weights up to 15 have room there, four of weights up to 63, two of signed ones.
//!
//! These functions are compiled into callers that have the set enabled, which is what makes them instructions.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::Simd;

pub(crate) struct Neon;
pub(crate) struct NeonDot;

/// Four bytes of the input from `k` × 4 on, for each of four rows.
///
/// # Safety
/// The processor has NEON, and `x` has 32 bytes.
#[inline(always)]
unsafe fn four(x: *const i8, k: usize) -> int8x16_t {
    // SAFETY: the caller's.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(x.add(4 * k).cast::<i32>().read_unaligned())) }
}

/// Eight signed bytes as 32-bit integers.
///
/// # Safety
/// The processor has NEON, and `a` has eight bytes.
#[inline(always)]
unsafe fn wide(a: *const i8) -> [int32x4_t; 2] {
    // SAFETY: the caller's.
    unsafe {
        let a = vmovl_s8(vld1_s8(a));
        [vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a)]
    }
}

/// Adds the products of weights and inputs of eight rows to sums in 16 bits: two of each row, two rows to a register.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn add_products(sums: [int16x8_t; 4], w: [uint8x16_t; 2], x: int8x16_t) -> [int16x8_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let w = [vreinterpretq_s8_u8(w[0]), vreinterpretq_s8_u8(w[1])];
        [
            vmlal_s8(sums[0], vget_low_s8(w[0]), vget_low_s8(x)),
            vmlal_high_s8(sums[1], w[0], x),
            vmlal_s8(sums[2], vget_low_s8(w[1]), vget_low_s8(x)),
            vmlal_high_s8(sums[3], w[1], x),
        ]
    }
}

/// The sums of eight rows.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn across(sums: [int16x8_t; 4]) -> [int32x4_t; 2] {
    // SAFETY: the caller's.
    unsafe { [vpaddq_s32(vpaddlq_s16(sums[0]), vpaddlq_s16(sums[1])), vpaddq_s32(vpaddlq_s16(sums[2]), vpaddlq_s16(sums[3]))] }
}

/// `sum + w · x` for four bytes of each of four rows. The intrinsic is not stable yet.
///
/// # Safety
/// The processor has the dot product.
#[inline(always)]
unsafe fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: one instruction on registers, which the processor has.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// What both sets share.
macro_rules! shared {
    () => {
        type Bytes = [uint8x16_t; 2];
        type Ints = [int32x4_t; 2];
        type Floats = [float32x4_t; 2];

        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self::Bytes {
            // SAFETY: the caller's, as in all functions here.
            unsafe { [vld1q_u8(from), vld1q_u8(from.add(16))] }
        }

        #[inline(always)]
        unsafe fn low(bytes: Self::Bytes) -> Self::Bytes {
            // SAFETY: the caller's.
            unsafe { [vandq_u8(bytes[0], vdupq_n_u8(15)), vandq_u8(bytes[1], vdupq_n_u8(15))] }
        }

        #[inline(always)]
        unsafe fn high(bytes: Self::Bytes) -> Self::Bytes {
            // SAFETY: the caller's.
            unsafe { [vshrq_n_u8::<4>(bytes[0]), vshrq_n_u8::<4>(bytes[1])] }
        }

        #[inline(always)]
        unsafe fn six<const FIELD: usize>(low: Self::Bytes, high: Self::Bytes) -> Self::Bytes {
            let mut six = low;
            for i in 0..2 {
                // SAFETY: the caller's.
                unsafe {
                    let moved = match FIELD {
                        0 => vshlq_n_u8::<4>(high[i]),
                        1 => vshlq_n_u8::<2>(high[i]),
                        2 => high[i],
                        _ => vshrq_n_u8::<2>(high[i]),
                    };
                    six[i] = vorrq_u8(low[i], vandq_u8(moved, vdupq_n_u8(0x30)));
                }
            }
            six
        }

        #[inline(always)]
        unsafe fn minus(ints: Self::Ints, by: i32) -> Self::Ints {
            // SAFETY: the caller's.
            unsafe { [vsubq_s32(ints[0], vdupq_n_s32(by)), vsubq_s32(ints[1], vdupq_n_s32(by))] }
        }

        #[inline(always)]
        unsafe fn floats(ints: Self::Ints) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe { [vcvtq_f32_s32(ints[0]), vcvtq_f32_s32(ints[1])] }
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> Self::Floats {
            // SAFETY: the caller's; the array has eight elements.
            unsafe {
                let halves = from.cast::<[[u8; 2]; 8]>().read_unaligned();
                let mut floats = [0f32; 8];
                for i in 0..8 {
                    floats[i] = f16::from_le_bytes(halves[i]).to_f32();
                }
                [vld1q_f32(floats.as_ptr()), vld1q_f32(floats.as_ptr().add(4))]
            }
        }

        #[inline(always)]
        unsafe fn small(from: *const u8) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe {
                let small = vmovl_u8(vld1_u8(from));
                [vcvtq_f32_u32(vmovl_u16(vget_low_u16(small))), vcvtq_f32_u32(vmovl_high_u16(small))]
            }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe { [vdupq_n_f32(value); 2] }
        }

        #[inline(always)]
        unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
        }

        #[inline(always)]
        unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
        }

        #[inline(always)]
        unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
            // SAFETY: the caller's.
            unsafe { [vfmsq_f32(c[0], a[0], b[0]), vfmsq_f32(c[1], a[1], b[1])] }
        }

        #[inline(always)]
        unsafe fn array(floats: Self::Floats) -> [f32; 8] {
            let mut array = [0.0; 8];
            // SAFETY: the caller's; the array has eight elements.
            unsafe {
                vst1q_f32(array.as_mut_ptr(), floats[0]);
                vst1q_f32(array.as_mut_ptr().add(4), floats[1]);
            }
            array
        }
    };
}

/// `a₀ (dot₀ − 32 x₀) + a₁ (dot₁ − 32 x₁)` of eight rows.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn weighted(dots: [[int32x4_t; 2]; 2], a: [[int32x4_t; 2]; 2], halves: [i16; 2]) -> [int32x4_t; 2] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 2];
        for half in 0..2 {
            let offset = vdupq_n_s32(32 * i32::from(halves[half]));
            for i in 0..2 {
                sums[i] = vmlaq_s32(sums[i], vsubq_s32(dots[half][i], offset), a[half][i]);
            }
        }
        sums
    }
}

impl Simd for Neon {
    shared!();

    #[inline(always)]
    unsafe fn dots4<const R: usize>(w: &[Self::Bytes; 8], x: &[*const i8; R]) -> [Self::Ints; R] {
        // SAFETY: the caller's; sums in 16 bits have room, see above.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for r in 0..R {
                let mut sums = [vdupq_n_s16(0); 4];
                for k in 0..8 {
                    sums = add_products(sums, w[k], four(x[r], k));
                }
                dots[r] = across(sums);
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots6<const R: usize>(
        w: &[Self::Bytes; 8],
        x: &[*const i8; R],
        a: *const i8,
        halves: &[[i16; 2]; R],
    ) -> [Self::Ints; R] {
        // SAFETY: the caller's; sums in 16 bits have room, see above.
        unsafe {
            let a = [wide(a), wide(a.add(8))];
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for r in 0..R {
                let mut of_halves = [[vdupq_n_s32(0); 2]; 2];
                for half in 0..2 {
                    let mut sums = [vdupq_n_s16(0); 4];
                    for k in half * 4..half * 4 + 4 {
                        sums = add_products(sums, w[k], four(x[r], k));
                    }
                    of_halves[half] = across(sums);
                }
                dots[r] = weighted(of_halves, a, halves[r]);
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], _sums: &[i32; R]) -> [Self::Ints; R] {
        // SAFETY: the caller's; 128 × 127 × 2 has room in 16 bits.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for k in (0..8).step_by(2) {
                let w = [Self::bytes(w.add(32 * k).cast()), Self::bytes(w.add(32 * k + 32).cast())];
                for r in 0..R {
                    let one = add_products([vdupq_n_s16(0); 4], w[0], four(x[r], k));
                    let two = across(add_products(one, w[1], four(x[r], k + 1)));
                    dots[r] = [vaddq_s32(dots[r][0], two[0]), vaddq_s32(dots[r][1], two[1])];
                }
            }
            dots
        }
    }
}

/// Adds four products of each of eight rows.
///
/// # Safety
/// The processor has the dot product.
#[inline(always)]
unsafe fn add_dots(sums: [int32x4_t; 2], w: [uint8x16_t; 2], x: int8x16_t) -> [int32x4_t; 2] {
    // SAFETY: the caller's.
    unsafe { [dot(sums[0], vreinterpretq_s8_u8(w[0]), x), dot(sums[1], vreinterpretq_s8_u8(w[1]), x)] }
}

impl Simd for NeonDot {
    shared!();

    #[inline(always)]
    unsafe fn dots4<const R: usize>(w: &[Self::Bytes; 8], x: &[*const i8; R]) -> [Self::Ints; R] {
        // SAFETY: the caller's.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for r in 0..R {
                for k in 0..8 {
                    dots[r] = add_dots(dots[r], w[k], four(x[r], k));
                }
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots6<const R: usize>(
        w: &[Self::Bytes; 8],
        x: &[*const i8; R],
        a: *const i8,
        halves: &[[i16; 2]; R],
    ) -> [Self::Ints; R] {
        // SAFETY: the caller's.
        unsafe {
            let a = [wide(a), wide(a.add(8))];
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for r in 0..R {
                let mut of_halves = [[vdupq_n_s32(0); 2]; 2];
                for k in 0..8 {
                    of_halves[k / 4] = add_dots(of_halves[k / 4], w[k], four(x[r], k));
                }
                dots[r] = weighted(of_halves, a, halves[r]);
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], _sums: &[i32; R]) -> [Self::Ints; R] {
        // SAFETY: the caller's.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); 2]; R];
            for k in 0..8 {
                let w = Self::bytes(w.add(32 * k).cast());
                for r in 0..R {
                    dots[r] = add_dots(dots[r], w, four(x[r], k));
                }
            }
            dots
        }
    }
}
