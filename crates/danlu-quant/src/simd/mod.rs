//! What a processor has to do for the products, written for each instruction set.

#![allow(
    clippy::needless_range_loop,
    reason = "closures, and so most iterators, are not compiled into callers with an instruction set for certain"
)]

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, NeonDot};
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512Vnni, AvxVnni};

/// Eight rows at once. Integer sums are exact, and floats are rounded as IEEE 754 has it, so all sets give the same bits.
///
/// # Safety
/// Of all functions: the processor has the instruction set. Pointers are readable for what each says; they need no alignment.
pub(crate) trait Simd {
    /// Four bytes of each row.
    type Bytes: Copy;
    /// A 32-bit integer of each row.
    type Ints: Copy;
    /// A 32-bit float of each row.
    type Floats: Copy;

    /// The 32 bytes at `from`.
    unsafe fn bytes(from: *const u8) -> Self::Bytes;
    /// The low four bits of each byte.
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes;
    /// The high four bits of each byte.
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes;
    /// Each byte of `low` and above its four bits the bits `2 × FIELD` and the next of `high`.
    unsafe fn six<const FIELD: usize>(low: Self::Bytes, high: Self::Bytes) -> Self::Bytes;

    /// Σ w x over 32 values, for weights from 0 to 15 and inputs from −127 to 127: `w[k]` has values `4k` to `4k + 3`. Each `x` has 32 bytes.
    unsafe fn dots4<const R: usize>(w: &[Self::Bytes; 8], x: &[*const i8; R]) -> [Self::Ints; R];
    /// Σ a (w − 32) x for weights from 0 to 63, where `a` are the eight signed bytes at `a` for the first 16 values and the next eight for
    /// the last; `halves` are the inputs' sums.
    unsafe fn dots6<const R: usize>(
        w: &[Self::Bytes; 8],
        x: &[*const i8; R],
        a: *const i8,
        halves: &[[i16; 2]; R],
    ) -> [Self::Ints; R];
    /// Σ w x for weights from −128 to 127, which are the 256 bytes at `w`; `sums` are the inputs' sums.
    unsafe fn dots8<const R: usize>(w: *const i8, x: &[*const i8; R], sums: &[i32; R]) -> [Self::Ints; R];

    /// Each integer less `by`.
    unsafe fn minus(ints: Self::Ints, by: i32) -> Self::Ints;
    /// The nearest floats.
    unsafe fn floats(ints: Self::Ints) -> Self::Floats;
    /// The eight 16-bit floats at `from`.
    unsafe fn halves(from: *const u8) -> Self::Floats;
    /// The eight bytes at `from`.
    unsafe fn small(from: *const u8) -> Self::Floats;
    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a b + c`, rounded once.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c − a b`, rounded once.
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    unsafe fn array(floats: Self::Floats) -> [f32; 8];
}
