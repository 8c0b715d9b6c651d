//! Copies a block of a matrix into the order in which the register tiles read it.

use std::ops::Range;

/// Elements of a cache line: so many of each row are turned at a time, so that what is written is written whole.
const LINE: usize = 16;
/// Elements of a row, and rows, that are asked for before they are needed: what is packed comes from memory, in more streams than the
/// processor follows by itself.
const AHEAD: usize = 64;
const ROWS_AHEAD: usize = 16;

/// Packs panels `panels` of a matrix of `total` rows (or columns), each `stride` after the one before, into their places in `to`.
///
/// # Safety
/// As for [`pack_panel`], for each of the panels.
pub unsafe fn pack_panels<const WIDTH: usize>(
    to: *mut f32,
    from: *const f32,
    panels: Range<usize>,
    total: usize,
    stride: usize,
    k: usize,
    k_stride: usize,
) {
    for panel in panels {
        let first = panel * WIDTH;
        // SAFETY: one of the panels that the caller vouches for.
        unsafe {
            pack_panel::<WIDTH>(to.add(first * k), from.add(first * stride), k, k_stride, WIDTH.min(total - first), stride);
        }
    }
}

/// Packs `k`×`width` elements into `to` as `[k][WIDTH]`, element (p, i) taken from `from + p * k_stride + i * stride`; the places past
/// `width` become 0, so that a tile over the edge computes on zeros.
///
/// # Safety
/// `to` is writable for `k * WIDTH` elements, and every element named is readable.
pub unsafe fn pack_panel<const WIDTH: usize>(
    to: *mut f32,
    from: *const f32,
    k: usize,
    k_stride: usize,
    width: usize,
    stride: usize,
) {
    // SAFETY: all four ways touch the same elements, those that the caller vouches for.
    unsafe {
        if width == WIDTH && stride == 1 {
            for p in 0..k {
                prefetch(from.wrapping_add((p + ROWS_AHEAD) * k_stride));
                let row = from.add(p * k_stride).cast::<[f32; WIDTH]>();
                to.add(p * WIDTH).cast::<[f32; WIDTH]>().write_unaligned(row.read_unaligned());
            }
            return;
        }
        if width < WIDTH {
            std::slice::from_raw_parts_mut(to, k * WIDTH).fill(0.0);
        }
        if k_stride == 1 {
            for p in (0..k).step_by(LINE) {
                (0..width).for_each(|i| prefetch(from.wrapping_add(i * stride + p + AHEAD)));
                transpose(to.add(p * WIDTH), WIDTH, from.add(p), stride, LINE.min(k - p), width);
            }
            return;
        }
        for i in 0..width {
            for p in 0..k {
                *to.add(p * WIDTH + i) = *from.add(p * k_stride + i * stride);
            }
        }
    }
}

/// Asks for what is there, if anything is.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every such processor has the instruction, which reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `count` rows of `k` contiguous elements, `stride` apart, become columns: element p of row i is written to `to + p * width + i`.
///
/// # Safety
/// `from + i * stride + p` is readable and `to + p * width + i` writable for every `i` below `count` and `p` below `k`.
pub unsafe fn transpose(to: *mut f32, width: usize, from: *const f32, stride: usize, k: usize, count: usize) {
    // SAFETY: both loops touch only the elements that the caller vouches for, each once.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        let four = count / 4 * 4;
        #[cfg(not(target_arch = "x86_64"))]
        let four = 0;
        #[cfg(target_arch = "x86_64")]
        for i in (0..four).step_by(4) {
            transpose_four(to.add(i), width, from.add(i * stride), stride, k);
        }
        for i in four..count {
            for p in 0..k {
                *to.add(p * width + i) = *from.add(i * stride + p);
            }
        }
    }
}

/// Four rows of `k` contiguous elements become four columns of `to`.
///
/// # Safety
/// As for [`transpose`].
#[cfg(target_arch = "x86_64")]
unsafe fn transpose_four(to: *mut f32, width: usize, from: *const f32, stride: usize, k: usize) {
    use std::arch::x86_64::*;
    // SAFETY: reads rows 0 to 3 at columns below k and writes 4 elements of each of k groups, as the caller vouches.
    unsafe {
        let mut p = 0;
        while p + 4 <= k {
            let mut r0 = _mm_loadu_ps(from.add(p));
            let mut r1 = _mm_loadu_ps(from.add(stride + p));
            let mut r2 = _mm_loadu_ps(from.add(2 * stride + p));
            let mut r3 = _mm_loadu_ps(from.add(3 * stride + p));
            _MM_TRANSPOSE4_PS(&mut r0, &mut r1, &mut r2, &mut r3);
            let to = to.add(p * width);
            _mm_storeu_ps(to, r0);
            _mm_storeu_ps(to.add(width), r1);
            _mm_storeu_ps(to.add(2 * width), r2);
            _mm_storeu_ps(to.add(3 * width), r3);
            p += 4;
        }
        for p in p..k {
            for i in 0..4 {
                *to.add(p * width + i) = *from.add(i * stride + p);
            }
        }
    }
}
