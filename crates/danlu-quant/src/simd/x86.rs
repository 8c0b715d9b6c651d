//! AVX2, and what VNNI adds to it.
//!
//! AVX2 multiplies unsigned by signed bytes and adds pairs of products in 16 bits, where they must have room: two products of weights up to
//! 15 are at most 3,810, so that eight pairs fit; of weights up to 63 two pairs fit; of signed weights one, with the weight's sign moved to
//! the input. VNNI adds four products in 32 bits.
//!
//! These functions are compiled into callers that have the set enabled, which is what makes them instructions. Closures would not be
//! compiled into them for certain, so there are none.

use std::arch::x86_64::*;

use super::Simd;

pub(crate) struct Avx2;
pub(crate) struct AvxVnni;
pub(crate) struct Avx512Vnni;

/// Four bytes of the input from `k` × 4 on, for each row.
///
/// # Safety
/// The processor has AVX2, and `x` has 32 bytes.
#[inline(always)]
unsafe fn four(x: *const i8, k: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_set1_epi32(x.add(4 * k).cast::<i32>().read_unaligned()) }
}

/// The bytes of `a` as 16-bit integers: two of the same for each row.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn twice(a: __m128i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, a)) }
}

/// What all sets of this processor share.
macro_rules! shared {
    () => {
        type Bytes = __m256i;
        type Ints = __m256i;
        type Floats = __m256;

        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> __m256i {
            // SAFETY: the caller's, as in all functions here.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn low(bytes: __m256i) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(15)) }
        }

        #[inline(always)]
        unsafe fn high(bytes: __m256i) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15)) }
        }

        #[inline(always)]
        unsafe fn six<const FIELD: usize>(low: __m256i, high: __m256i) -> __m256i {
            // SAFETY: the caller's.
            unsafe {
                let moved = match FIELD {
                    0 => _mm256_slli_epi16::<4>(high),
                    1 => _mm256_slli_epi16::<2>(high),
                    2 => high,
                    _ => _mm256_srli_epi16::<2>(high),
                };
                _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)))
            }
        }

        #[inline(always)]
        unsafe fn minus(ints: __m256i, by: i32) -> __m256i {
            // SAFETY: the caller's.
            unsafe { _mm256_sub_epi32(ints, _mm256_set1_epi32(by)) }
        }

        #[inline(always)]
        unsafe fn floats(ints: __m256i) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtepi32_ps(ints) }
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn small(from: *const u8) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fnmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn array(floats: __m256) -> [f32; 8] {
            let mut array = [0.0; 8];
            // SAFETY: the caller's; the array has eight elements.
            unsafe { _mm256_storeu_ps(array.as_mut_ptr(), floats) };
            array
        }
    };
}

impl Simd for Avx2 {
    shared!();

    #[inline(always)]
    unsafe fn dots4<const R: usize>(w: &[__m256i; 8], x: &[*const i8; R]) -> [__m256i; R] {
        // SAFETY: the caller's; sums in 16 bits have room, see above.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); R];
            for r in 0..R {
                let mut sum = _mm256_maddubs_epi16(w[0], four(x[r], 0));
                for k in 1..8 {
                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[k], four(x[r], k)));
                }
                dots[r] = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots6<const R: usize>(w: &[__m256i; 8], x: &[*const i8; R], a: *const i8, halves: &[[i16; 2]; R]) -> [__m256i; R] {
        // SAFETY: the caller's; sums in 16 bits have room, see above.
        unsafe {
            let (first, last) = (_mm_loadl_epi64(a.cast()), _mm_loadl_epi64(a.add(8).cast()));
            // 32 a x is subtracted as two products of 16-bit numbers: of each row's two scales with the two sums of the input.
            let both = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, last));
            let a = [twice(first), twice(last)];
            let mut dots = [_mm256_setzero_si256(); R];
            for r in 0..R {
                let halves = i32::from(halves[r][0]) & 0xffff | i32::from(halves[r][1]) << 16;
                let offset = _mm256_madd_epi16(both, _mm256_set1_epi32(halves));
                let mut sum = _mm256_setzero_si256();
                for k in (0..8).step_by(2) {
                    let two = _mm256_add_epi16(
                        _mm256_maddubs_epi16(w[k], four(x[r], k)),
                        _mm256_maddubs_epi16(w[k + 1], four(x[r], k + 1)),
                    );
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(two, a[k / 4]));
                }
                dots[r] = _mm256_sub_epi32(sum, _mm256_slli_epi32::<5>(offset));
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], _sums: &[i32; R]) -> [__m256i; R] {
        // SAFETY: the caller's; 128 × 127 × 2 has room in 16 bits.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); R];
            for k in 0..8 {
                let w = _mm256_loadu_si256(w.add(32 * k).cast());
                let size = _mm256_abs_epi8(w);
                for r in 0..R {
                    let two = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four(x[r], k), w));
                    dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
                }
            }
            dots
        }
    }
}

/// The three products by an instruction that adds four products of bytes to 32 bits.
macro_rules! by_fours {
    ($set:ident, $dot:ident) => {
        impl Simd for $set {
            shared!();

            #[inline(always)]
            unsafe fn dots4<const R: usize>(w: &[__m256i; 8], x: &[*const i8; R]) -> [__m256i; R] {
                // SAFETY: the caller's.
                unsafe {
                    let mut dots = [_mm256_setzero_si256(); R];
                    for r in 0..R {
                        for k in 0..8 {
                            dots[r] = $dot(dots[r], w[k], four(x[r], k));
                        }
                    }
                    dots
                }
            }

            #[inline(always)]
            unsafe fn dots6<const R: usize>(
                w: &[__m256i; 8],
                x: &[*const i8; R],
                a: *const i8,
                halves: &[[i16; 2]; R],
            ) -> [__m256i; R] {
                // SAFETY: the caller's.
                unsafe {
                    let (first, last) = (_mm_loadl_epi64(a.cast()), _mm_loadl_epi64(a.add(8).cast()));
                    let a = [_mm256_cvtepi8_epi32(first), _mm256_cvtepi8_epi32(last)];
                    let mut dots = [_mm256_setzero_si256(); R];
                    for r in 0..R {
                        for half in 0..2 {
                            let mut sum = _mm256_set1_epi32(-32 * i32::from(halves[r][half]));
                            for k in half * 4..half * 4 + 4 {
                                sum = $dot(sum, w[k], four(x[r], k));
                            }
                            dots[r] = _mm256_add_epi32(dots[r], _mm256_mullo_epi32(sum, a[half]));
                        }
                    }
                    dots
                }
            }

            #[inline(always)]
            unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], sums: &[i32; R]) -> [__m256i; R] {
                // SAFETY: the caller's.
                unsafe {
                    // The weights are made unsigned by adding 128, which is taken from the sum again.
                    let mut dots = [_mm256_setzero_si256(); R];
                    for r in 0..R {
                        dots[r] = _mm256_set1_epi32(-128 * sums[r]);
                    }
                    for k in 0..8 {
                        let w = _mm256_loadu_si256(w.add(32 * k).cast());
                        let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
                        for r in 0..R {
                            dots[r] = $dot(dots[r], w, four(x[r], k));
                        }
                    }
                    dots
                }
            }
        }
    };
}

by_fours!(AvxVnni, _mm256_dpbusd_avx_epi32);
by_fours!(Avx512Vnni, _mm256_dpbusd_epi32);
