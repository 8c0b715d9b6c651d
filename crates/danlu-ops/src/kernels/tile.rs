//! The innermost step of a matrix product: one small block of C that stays in registers, written for each instruction set.

use super::isa::Isa;
use super::simd::fma;

/// What a tile does with C, and how much of the tile is inside the matrix.
#[derive(Clone, Copy)]
pub struct Store {
    /// The product is multiplied by this before it is stored.
    pub alpha: f32,
    /// Add to what C holds, or replace it.
    pub accumulate: bool,
    /// Elements from one row of C to the next.
    pub row_stride: usize,
    /// Rows of the tile that exist, 1 to `MR`.
    pub rows: usize,
    /// Columns of the tile that exist, 1 to `NR`.
    pub cols: usize,
}

/// A register tile of `MR`×`NR` elements of C.
pub trait Tile {
    const MR: usize;
    const NR: usize;

    const ISA: Isa;

    /// C = alpha · A·B (+ C), where B is packed as `[k][NR]`. Element (i, p) of A is `a[i * a_stride + p]` with `ROWS`, as in a
    /// row-major matrix, and `a[p * a_stride + i]` without, as in a packed panel or a transposed matrix.
    ///
    /// # Safety
    /// The processor has the tile's instruction set. A is readable for `rows`×k elements with `ROWS` and for `MR`×k without. B is
    /// readable for `k * NR` elements and aligned to 64 bytes, or to 32 where `NR` is not a multiple of 16. The `rows`×`cols` block at `c` may
    /// be read and written.
    unsafe fn run<const ROWS: bool>(k: usize, a: *const f32, a_stride: usize, b: *const f32, c: *mut f32, store: Store);

    /// [`Tile::run`] with `ROWS`, which meanwhile asks memory for what the tile after it will read, the `MR`×k block of A at `next`: rows that
    /// are read once, each for a few hundred elements, come too late otherwise. Nothing needs to be there.
    ///
    /// # Safety
    /// As for [`Tile::run`].
    unsafe fn run_ahead(k: usize, a: *const f32, a_stride: usize, b: *const f32, c: *mut f32, store: Store, next: *const f32) {
        let _ = next;
        // SAFETY: the caller vouches for the same.
        unsafe { Self::run::<true>(k, a, a_stride, b, c, store) }
    }
}

/// Where each row of A starts. Rows that are not there repeat the last one, so that reading them is allowed; what they yield is not
/// stored.
#[inline(always)]
fn row_starts<const ROWS: bool, const M: usize>(a: *const f32, a_stride: usize, rows: usize) -> [*const f32; M] {
    std::array::from_fn(|i| a.wrapping_add(if ROWS { i.min(rows - 1) * a_stride } else { i }))
}

/// Stores a tile that was computed into a buffer, for tiles over the edge of C.
///
/// # Safety
/// As for [`Tile::run`]; `tile` holds `[rows][width]`.
unsafe fn store_edge(tile: &[f32], width: usize, c: *mut f32, store: Store) {
    for i in 0..store.rows {
        for j in 0..store.cols {
            // SAFETY: (i, j) is inside the block at `c`.
            unsafe {
                let to = c.add(i * store.row_stride + j);
                let old = if store.accumulate { *to } else { 0.0 };
                *to = old + store.alpha * tile[i * width + j];
            }
        }
    }
}

/// `M`×`N` in plain Rust, in a shape that compilers turn into vector instructions; with or without a fused multiply-add.
pub struct Plain<const FMA: bool, const M: usize, const N: usize>;

pub type Portable = Plain<false, 4, 8>;
/// Sixteen of the thirty-two registers. Not measured.
#[cfg(target_arch = "aarch64")]
pub type Neon = Plain<true, 8, 8>;

impl<const FMA: bool, const M: usize, const N: usize> Tile for Plain<FMA, M, N> {
    const MR: usize = M;
    const NR: usize = N;
    #[cfg(target_arch = "aarch64")]
    const ISA: Isa = if FMA { Isa::Neon } else { Isa::Portable };
    #[cfg(not(target_arch = "aarch64"))]
    const ISA: Isa = Isa::Portable;

    unsafe fn run<const ROWS: bool>(k: usize, a: *const f32, a_stride: usize, b: *const f32, c: *mut f32, store: Store) {
        let mut sum = [[0f32; N]; M];
        let rows = row_starts::<ROWS, M>(a, a_stride, store.rows);
        let step = if ROWS { 1 } else { a_stride };
        for p in 0..k {
            // SAFETY: `p < k`, and B holds k groups of N.
            let b = unsafe { &*b.add(p * N).cast::<[f32; N]>() };
            for (row, sum) in rows.iter().zip(&mut sum) {
                // SAFETY: element (i, p) of A.
                let a = unsafe { *row.add(p * step) };
                for (sum, &b) in sum.iter_mut().zip(b) {
                    *sum = fma::<FMA>(a, b, *sum);
                }
            }
        }
        // SAFETY: the caller vouches for C.
        unsafe { store_edge(sum.as_flattened(), N, c, store) };
    }
}

/// Calls `function::<T, MR, NR>(…)` with the tile of an instruction set. The numbers repeat the tile's constants, since a generic
/// constant cannot be the length of an array yet.
macro_rules! for_tile {
    ($isa:expr, $function:ident($($arg:expr),*)) => {
        match $isa {
            $crate::kernels::isa::Isa::Portable => $function::<$crate::kernels::tile::Portable, 4, 8>($($arg),*),
            #[cfg(target_arch = "aarch64")]
            $crate::kernels::isa::Isa::Neon => $function::<$crate::kernels::tile::Neon, 8, 8>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Isa::Avx2 => $function::<$crate::kernels::tile::Avx2<6, 2>, 6, 16>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Isa::Avx512 => $function::<$crate::kernels::tile::Avx512<12, 2>, 12, 32>($($arg),*),
        }
    };
}
pub(crate) use for_tile;

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Isa, Store, Tile, row_starts, store_edge};
    use std::arch::x86_64::*;

    /// Elements of a cache line.
    const LINE: usize = 16;

    /// `M` rows of `N` 256-bit registers.
    pub struct Avx2<const M: usize, const N: usize>;

    impl<const M: usize, const N: usize> Tile for Avx2<M, N> {
        const MR: usize = M;
        const NR: usize = 8 * N;
        const ISA: Isa = Isa::Avx2;

        unsafe fn run<const ROWS: bool>(k: usize, a: *const f32, a_stride: usize, b: *const f32, c: *mut f32, store: Store) {
            // SAFETY: the caller has checked for AVX2 and FMA and vouches for the pointers.
            unsafe { avx2::<ROWS, false, M, N>(k, a, a_stride, b, c, store, a) }
        }

        unsafe fn run_ahead(
            k: usize,
            a: *const f32,
            a_stride: usize,
            b: *const f32,
            c: *mut f32,
            store: Store,
            next: *const f32,
        ) {
            // SAFETY: as above.
            unsafe { avx2::<true, true, M, N>(k, a, a_stride, b, c, store, next) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const ROWS: bool, const AHEAD: bool, const M: usize, const N: usize>(
        k: usize,
        a: *const f32,
        a_stride: usize,
        mut b: *const f32,
        c: *mut f32,
        store: Store,
        next: *const f32,
    ) {
        let mut sum = [[_mm256_setzero_ps(); N]; M];
        let rows = row_starts::<ROWS, M>(a, a_stride, store.rows);
        let step = if ROWS { 1 } else { a_stride };
        // SAFETY: A and B hold k groups of M and 8·N; the block of C is the caller's.
        unsafe {
            for i in 0..store.rows {
                _mm_prefetch(c.add(i * store.row_stride).cast::<i8>(), _MM_HINT_T0);
            }
            for begin in (0..k).step_by(if AHEAD { LINE } else { k.max(1) }) {
                let end = if AHEAD { k.min(begin + LINE) } else { k };
                if AHEAD {
                    for i in 0..M {
                        _mm_prefetch(next.wrapping_add(i * a_stride + begin).cast::<i8>(), _MM_HINT_T0);
                    }
                }
                for p in begin..end {
                    let mut row = [_mm256_setzero_ps(); N];
                    for (j, row) in row.iter_mut().enumerate() {
                        *row = _mm256_load_ps(b.add(8 * j));
                    }
                    _mm_prefetch(b.wrapping_add(8 * N * 16).cast::<i8>(), _MM_HINT_T0);
                    for (start, sum) in rows.iter().zip(&mut sum) {
                        let a = _mm256_broadcast_ss(&*start.add(p * step));
                        for (sum, &row) in sum.iter_mut().zip(&row) {
                            *sum = _mm256_fmadd_ps(a, row, *sum);
                        }
                    }
                    b = b.add(8 * N);
                }
            }
            if store.rows == M && store.cols == 8 * N {
                let alpha = _mm256_set1_ps(store.alpha);
                for (i, sum) in sum.iter().enumerate() {
                    for (j, &sum) in sum.iter().enumerate() {
                        let to = c.add(i * store.row_stride + 8 * j);
                        let old = if store.accumulate { _mm256_loadu_ps(to) } else { _mm256_setzero_ps() };
                        _mm256_storeu_ps(to, _mm256_fmadd_ps(alpha, sum, old));
                    }
                }
            } else {
                let mut tile = [[[0f32; 8]; N]; M];
                for (to, sum) in tile.as_flattened_mut().iter_mut().zip(sum.as_flattened()) {
                    _mm256_storeu_ps(to.as_mut_ptr(), *sum);
                }
                store_edge(tile.as_flattened().as_flattened(), 8 * N, c, store);
            }
        }
    }

    /// `M` rows of `N` 512-bit registers; tails are masked.
    pub struct Avx512<const M: usize, const N: usize>;

    impl<const M: usize, const N: usize> Tile for Avx512<M, N> {
        const MR: usize = M;
        const NR: usize = 16 * N;
        const ISA: Isa = Isa::Avx512;

        unsafe fn run<const ROWS: bool>(k: usize, a: *const f32, a_stride: usize, b: *const f32, c: *mut f32, store: Store) {
            // SAFETY: the caller has checked for AVX-512 and vouches for the pointers.
            unsafe { avx512::<ROWS, M, N>(k, a, a_stride, b, c, store) }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<const ROWS: bool, const M: usize, const N: usize>(
        k: usize,
        a: *const f32,
        a_stride: usize,
        mut b: *const f32,
        c: *mut f32,
        store: Store,
    ) {
        let mut sum = [[_mm512_setzero_ps(); N]; M];
        let rows = row_starts::<ROWS, M>(a, a_stride, store.rows);
        let step = if ROWS { 1 } else { a_stride };
        // SAFETY: A and B hold k groups of M and 16·N; the block of C is the caller's, and masked lanes are not touched.
        unsafe {
            for i in 0..store.rows {
                for j in 0..N {
                    _mm_prefetch(c.wrapping_add(i * store.row_stride + 16 * j).cast::<i8>(), _MM_HINT_T0);
                }
            }
            for p in 0..k {
                let mut row = [_mm512_setzero_ps(); N];
                for (j, row) in row.iter_mut().enumerate() {
                    *row = _mm512_load_ps(b.add(16 * j));
                    _mm_prefetch(b.wrapping_add(16 * N * 8 + 16 * j).cast::<i8>(), _MM_HINT_T0);
                }
                for (start, sum) in rows.iter().zip(&mut sum) {
                    let a = _mm512_set1_ps(*start.add(p * step));
                    for (sum, &row) in sum.iter_mut().zip(&row) {
                        *sum = _mm512_fmadd_ps(a, row, *sum);
                    }
                }
                b = b.add(16 * N);
            }
            let alpha = _mm512_set1_ps(store.alpha);
            for (i, sum) in sum.iter().enumerate() {
                if i >= store.rows {
                    break;
                }
                for (j, &sum) in sum.iter().enumerate() {
                    let left = store.cols.saturating_sub(16 * j).min(16);
                    let mask = ((1u32 << left) - 1) as __mmask16;
                    let to = c.wrapping_add(i * store.row_stride + 16 * j);
                    let old = if store.accumulate { _mm512_maskz_loadu_ps(mask, to) } else { _mm512_setzero_ps() };
                    _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(alpha, sum, old));
                }
            }
        }
    }
}
