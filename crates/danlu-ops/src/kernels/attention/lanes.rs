//! Eight floats side by side, as far as attention to pages needs them: the innermost loops have so many sums at once that they must be known
//! to lie in registers.

use super::super::simd::fma;

/// What eight floats are, and what is done with them. Functions that use it are compiled for its instruction set, which makes these
/// instructions; closures would not be compiled into them for certain.
///
/// # Safety
/// Of all functions: the processor has the instruction set, and pointers point to eight numbers, which need not be aligned.
pub(super) trait Lanes {
    type Floats: Copy;

    unsafe fn splat(value: f32) -> Self::Floats;

    unsafe fn read(from: *const f32) -> Self::Floats;

    /// Of IEEE halves, exactly.
    unsafe fn read_halves(from: *const u16) -> Self::Floats;

    unsafe fn write(to: *mut f32, floats: Self::Floats);

    /// `a b + c`.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// Has the cache line fetched that holds this address, which need not exist.
    fn prefetch(address: *const u8);
}

/// Plain Rust, in a shape that compilers turn into vector instructions; with or without a fused multiply-add.
pub(super) struct Plain<const FMA: bool>;

impl<const FMA: bool> Lanes for Plain<FMA> {
    type Floats = [f32; 8];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn read(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn read_halves(from: *const u16) -> [f32; 8] {
        // SAFETY: the caller's.
        let halves = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        let mut floats = [0.0; 8];
        for (float, half) in floats.iter_mut().zip(halves) {
            *float = of_half(half);
        }
        floats
    }

    #[inline(always)]
    unsafe fn write(to: *mut f32, floats: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(floats) }
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        let mut sums = c;
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = fma::<FMA>(a[lane], b[lane], *sum);
        }
        sums
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}
}

/// The value of a half, exactly: a few operations on integers and one multiplication, which a loop may do for many at once.
#[inline(always)]
pub(super) fn of_half(bits: u16) -> f32 {
    /// 2^112: how far the exponents of the two kinds of number are from each other. Multiplying also makes halves below the normal ones right.
    const SHIFT: f32 = f32::from_bits((127 + 112) << 23);
    /// The bits of infinity; above them is what is no number.
    const INFINITE: u32 = 0x7c00 << 13;
    let moved = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(moved) * SHIFT).to_bits();
    let value = if moved >= INFINITE { moved | f32::INFINITY.to_bits() } else { finite };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Avx2, Lanes};

    impl Lanes for Avx2 {
        type Floats = __m256;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: the caller's, as in all functions here.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn read(from: *const f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn read_halves(from: *const u16) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn write(to: *mut f32, floats: __m256) {
            // SAFETY: the caller's.
            unsafe { _mm256_storeu_ps(to, floats) }
        }

        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            // SAFETY: a hint, which may name any address and is part of what every processor of this kind has.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[target_feature(enable = "avx2,fma,f16c")]
    #[cfg(target_arch = "x86_64")]
    fn by_instruction(halves: &[u16; 8], floats: &mut [f32; 8]) {
        // SAFETY: eight of each, and the caller has the instructions.
        unsafe { Avx2::write(floats.as_mut_ptr(), Avx2::read_halves(halves.as_ptr())) }
    }

    /// All 65,536, bit for bit where they are numbers.
    #[test]
    fn halves_have_the_same_value_everywhere() {
        let same = |bits: u16, found: f32| {
            let want = f16::from_bits(bits).to_f32();
            assert!(found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan()), "{bits:#x}: {found} for {want}");
        };
        for first in (0..=u16::MAX).step_by(8) {
            let halves: [u16; 8] = std::array::from_fn(|i| first + i as u16);
            halves.iter().for_each(|&bits| same(bits, of_half(bits)));
            let mut floats = [0.0; 8];
            // SAFETY: eight of each.
            unsafe { Plain::<false>::write(floats.as_mut_ptr(), Plain::<false>::read_halves(halves.as_ptr())) };
            halves.iter().zip(floats).for_each(|(&bits, found)| same(bits, found));
            #[cfg(target_arch = "x86_64")]
            if super::super::Isa::available().contains(&super::super::Isa::Avx2) {
                // SAFETY: the set was found.
                unsafe { by_instruction(&halves, &mut floats) };
                halves.iter().zip(floats).for_each(|(&bits, found)| same(bits, found));
            }
        }
    }
}
