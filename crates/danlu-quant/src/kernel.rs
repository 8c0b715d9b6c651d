//! A piece of a product: some panels of a weight times some rows of the input, on one thread.

#![allow(
    clippy::needless_range_loop,
    reason = "closures, and so most iterators, are not compiled into callers with an instruction set for certain"
)]

use crate::activations::{Activations, BLOCK, Scale};
use crate::layout::{HALVES, Q4K_PART, Q6K_PART, ROWS};
use crate::simd::{Portable, Simd};
use crate::{Format, Isa};

/// Which part of a product is to be computed, and where it goes.
pub(crate) struct Piece<'a> {
    pub format: Format,
    /// Whole panels.
    pub panels: &'a [u8],
    /// Bytes of a panel.
    pub panel: usize,
    pub x: &'a Activations,
    /// Rows of `x`.
    pub first: usize,
    pub rows: usize,
    /// Rows of the weight that the panels hold; the last panel may hold less than eight.
    pub out: usize,
    /// Where the first row's results go, and how far the next row's are.
    pub y: *mut f32,
    pub stride: usize,
}

/// Rows of the input in a tile.
const TALL: usize = 4;

impl Piece<'_> {
    /// # Safety
    /// The processor has `isa`. The panels are of `format` and as wide as `x`. At `y` there is room for `rows` rows of `out` results at
    /// `stride`, which nobody else touches.
    pub(crate) unsafe fn run(&self, isa: Isa) {
        // SAFETY: the caller's, in all of them.
        unsafe {
            match isa {
                Isa::Portable => portable(self),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 | Isa::Avx512 => avx2(self),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => avx_vnni(self),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => avx512_vnni(self),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon(self),
                #[cfg(target_arch = "aarch64")]
                Isa::NeonDot => neon_dot(self),
            }
        }
    }

    #[inline(always)]
    unsafe fn with<S: Simd>(&self) {
        // SAFETY: the caller's; a panel of the format is read as such.
        unsafe {
            match self.format {
                Format::Q4_0 => self.tiles::<S, Q4_0>(),
                Format::Q4_1 => self.tiles::<S, Q4_1>(),
                Format::Q8_0 => self.tiles::<S, Q8_0>(),
                Format::Q4K => self.tiles::<S, Q4K>(),
                Format::Q6K => self.tiles::<S, Q6K>(),
                Format::F32 | Format::F16 | Format::Bf16 => unreachable!("a weight of this format was refused"),
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles<S: Simd, K: Kind>(&self) {
        let panels = self.out.div_ceil(ROWS);
        // SAFETY: rows and panels that exist.
        unsafe {
            for panel in 0..panels {
                let mut row = 0;
                while row + TALL <= self.rows {
                    self.tile::<S, K, TALL>(row, panel);
                    row += TALL;
                }
                while row + 2 <= self.rows {
                    self.tile::<S, K, 2>(row, panel);
                    row += 2;
                }
                if row < self.rows {
                    self.tile::<S, K, 1>(row, panel);
                }
            }
        }
    }

    /// `R` rows of the input from `row` on with one panel. What is added to what does not depend on `R`. Several panels at once made a single
    /// row slower (`bench/results/2026-11-26-quantized-products.md`).
    #[inline(always)]
    unsafe fn tile<S: Simd, K: Kind, const R: usize>(&self, row: usize, panel: usize) {
        let mut x = [std::ptr::null(); R];
        let mut scales = [std::ptr::null(); R];
        for r in 0..R {
            let (bytes, of_blocks) = self.x.row(self.first + row + r);
            (x[r], scales[r]) = (bytes.as_ptr(), of_blocks.as_ptr());
        }
        // SAFETY: the panel, its blocks and the rows exist, as the caller says.
        unsafe {
            let mut from = self.panels.as_ptr().add(panel * self.panel);
            let mut sums = [S::splat(0.0); R];
            for _ in 0..self.panel / K::BYTES {
                K::block::<S, R>(from, &x, &scales, &mut sums);
                from = from.add(K::BYTES);
                for r in 0..R {
                    x[r] = x[r].add(K::PARTS * BLOCK);
                    scales[r] = scales[r].add(K::PARTS);
                }
            }
            let column = panel * ROWS;
            let count = ROWS.min(self.out - column);
            for r in 0..R {
                let results = S::array(sums[r]);
                let to = self.y.add((row + r) * self.stride + column);
                std::ptr::copy_nonoverlapping(results.as_ptr(), to, count);
            }
        }
    }
}

/// A format's block in a panel, see [`crate::layout`].
trait Kind {
    /// Of the block of eight rows.
    const BYTES: usize;
    /// How many 32 values it has of each row.
    const PARTS: usize;

    /// Adds the products of the block with `R` rows of the input.
    ///
    /// # Safety
    /// The block, and the bytes and scales of the input for its values, can be read; the processor has the instruction set.
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    );
}

struct Q4_0;
struct Q4_1;
struct Q8_0;
struct Q4K;
struct Q6K;

/// 32 values of four bits of each row.
#[inline(always)]
unsafe fn nibbles<S: Simd>(from: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the caller's: 128 bytes.
    unsafe {
        let mut w = [S::bytes(from); 8];
        for g in 0..4 {
            let bytes = S::bytes(from.add(32 * g));
            w[2 * g] = S::low(bytes);
            w[2 * g + 1] = S::high(bytes);
        }
        w
    }
}

/// Adds each row's integer sums, times the scales of the weights and of the input.
#[inline(always)]
unsafe fn add_scaled<S: Simd, const R: usize>(
    sums: &mut [S::Floats; R],
    dots: [S::Ints; R],
    scale: S::Floats,
    scales: &[*const Scale; R],
) {
    // SAFETY: the caller's: the scales can be read, and the processor has the instruction set.
    unsafe {
        for r in 0..R {
            sums[r] = S::fma(S::floats(dots[r]), S::mul(scale, S::splat((*scales[r]).scale)), sums[r]);
        }
    }
}

impl Kind for Q4_0 {
    const BYTES: usize = HALVES + 16 * ROWS;
    const PARTS: usize = 1;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let scale = S::halves(block);
            let mut dots = S::dots4(&nibbles::<S>(block.add(HALVES)), x);
            for r in 0..R {
                dots[r] = S::minus(dots[r], 8 * (*scales[r]).sum);
            }
            add_scaled::<S, R>(sums, dots, scale, scales);
        }
    }
}

impl Kind for Q4_1 {
    const BYTES: usize = 2 * HALVES + 16 * ROWS;
    const PARTS: usize = 1;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let (scale, least) = (S::halves(block), S::halves(block.add(HALVES)));
            let dots = S::dots4(&nibbles::<S>(block.add(2 * HALVES)), x);
            for r in 0..R {
                sums[r] = S::fma(least, S::splat((*scales[r]).scaled_sum), sums[r]);
            }
            add_scaled::<S, R>(sums, dots, scale, scales);
        }
    }
}

impl Kind for Q8_0 {
    const BYTES: usize = HALVES + 32 * ROWS;
    const PARTS: usize = 1;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let scale = S::halves(block);
            let mut of_bytes = [0; R];
            for r in 0..R {
                of_bytes[r] = (*scales[r]).sum;
            }
            let dots = S::dots8(block.add(HALVES).cast(), x, &of_bytes);
            add_scaled::<S, R>(sums, dots, scale, scales);
        }
    }
}

impl Kind for Q4K {
    const BYTES: usize = 2 * HALVES + 8 * Q4K_PART;
    const PARTS: usize = 8;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let (scale, least) = (S::halves(block), S::halves(block.add(HALVES)));
            let mut x = *x;
            for part in 0..Self::PARTS {
                let from = block.add(2 * HALVES + part * Q4K_PART);
                let (scale, least) = (S::mul(scale, S::small(from)), S::mul(least, S::small(from.add(ROWS))));
                let dots = S::dots4(&nibbles::<S>(from.add(2 * ROWS)), &x);
                for r in 0..R {
                    let of_x = &*scales[r].add(part);
                    let sum = S::fnma(least, S::splat(of_x.scaled_sum), sums[r]);
                    sums[r] = S::fma(S::floats(dots[r]), S::mul(scale, S::splat(of_x.scale)), sum);
                    x[r] = x[r].add(BLOCK);
                }
            }
        }
    }
}

impl Kind for Q6K {
    const BYTES: usize = HALVES + 8 * Q6K_PART;
    const PARTS: usize = 8;

    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(
        block: *const u8,
        x: &[*const i8; R],
        scales: &[*const Scale; R],
        sums: &mut [S::Floats; R],
    ) {
        // SAFETY: the caller's.
        unsafe {
            let scale = S::halves(block);
            let mut x = *x;
            for part in 0..Self::PARTS {
                let from = block.add(HALVES + part * Q6K_PART);
                let mut w = nibbles::<S>(from.add(2 * ROWS));
                for half in 0..2 {
                    let high = S::bytes(from.add(18 * ROWS + 32 * half));
                    w[4 * half] = S::six::<0>(w[4 * half], high);
                    w[4 * half + 1] = S::six::<1>(w[4 * half + 1], high);
                    w[4 * half + 2] = S::six::<2>(w[4 * half + 2], high);
                    w[4 * half + 3] = S::six::<3>(w[4 * half + 3], high);
                }
                let mut halves = [[0; 2]; R];
                for r in 0..R {
                    halves[r] = (*scales[r].add(part)).halves;
                }
                let dots = S::dots6(&w, &x, from.cast(), &halves);
                for r in 0..R {
                    let of_x = (*scales[r].add(part)).scale;
                    sums[r] = S::fma(S::floats(dots[r]), S::mul(scale, S::splat(of_x)), sums[r]);
                    x[r] = x[r].add(BLOCK);
                }
            }
        }
    }
}

unsafe fn portable(piece: &Piece) {
    // SAFETY: the caller's.
    unsafe { piece.with::<Portable>() }
}

/// A piece in one instruction set, so that what is compiled into it may use the set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! enabled {
    ($name:ident, $set:ident, $features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(piece: &Piece) {
            // SAFETY: the caller's.
            unsafe { piece.with::<crate::simd::$set>() }
        }
    };
}

#[cfg(target_arch = "x86_64")]
enabled!(avx2, Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
enabled!(avx_vnni, AvxVnni, "avx2,fma,f16c,avxvnni");
#[cfg(target_arch = "x86_64")]
enabled!(avx512_vnni, Avx512Vnni, "avx2,fma,f16c,avx512vnni,avx512vl");
#[cfg(target_arch = "aarch64")]
enabled!(neon, Neon, "neon");
#[cfg(target_arch = "aarch64")]
enabled!(neon_dot, NeonDot, "neon,dotprod");
