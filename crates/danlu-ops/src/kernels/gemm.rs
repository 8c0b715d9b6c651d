//! Matrix product C = A·B (+ C) in `f32`, in the blocked form of Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (2008): both factors are packed into panels, a block of B's panels stays in the second cache while A's panels pass.
//!
//! The sum over k is taken in the same order for every element whatever the number of threads, so results do not depend on it.

use super::isa::Isa;
use super::mat::{Mat, MatMut};
use super::pack::pack_panels;
use super::scratch::{self, Use};
use super::threads::{self, SendPtr};
use super::tile::{Store, Tile, for_tile};

/// Depth of a block. Deep blocks pass over C less often, and the sums over the widths of small models take a single pass.
const KC: usize = 768;
/// Rows and columns packed at a time: with `KC` this bounds the scratch memory to 6 MB for each factor.
const MC: usize = 2048;
const NC: usize = 2048;
/// Columns of B that stay in the second cache while A passes.
const COLS: usize = 256;
/// Rows of A in one piece of parallel work, or half as many when there are few pieces: at the end of a product threads wait for the
/// last piece.
const ROWS: usize = 96;
const FEW_PIECES: usize = 24;
/// Elements in one piece of packing: enough to hide the cost of taking the next one.
const PIECE: usize = 32768;

/// C = A·B, or C += A·B with `accumulate`, on all threads. A is m×k, B is k×n, C is m×n; panics when they do not agree.
pub fn gemm(c: MatMut, a: Mat, b: Mat, accumulate: bool) {
    gemm_with(Isa::current(), c, a, b, 1.0, accumulate, true);
}

/// C = alpha · A·B (+ C) on the calling thread alone, for products inside a parallel loop.
pub fn gemm_here(c: MatMut, a: Mat, b: Mat, alpha: f32, accumulate: bool) {
    gemm_with(Isa::current(), c, a, b, alpha, accumulate, false);
}

pub(super) fn gemm_with(isa: Isa, c: MatMut, a: Mat, b: Mat, alpha: f32, accumulate: bool, parallel: bool) {
    assert!(
        a.cols() == b.rows() && c.rows() == a.rows() && c.cols() == b.cols(),
        "a product of {}×{} and {}×{} does not fit in {}×{}",
        a.rows(),
        a.cols(),
        b.rows(),
        b.cols(),
        c.rows(),
        c.cols()
    );
    let call = Call { alpha, accumulate, parallel };
    for_tile!(isa, run(&call, c, a, b));
}

/// Depth of the blocks that a sum over `k` is taken in: equal ones, so that none is left short.
pub(super) fn depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(KC).max(1)).next_multiple_of(4).max(4)
}

struct Call {
    alpha: f32,
    accumulate: bool,
    parallel: bool,
}

fn run<T: Tile, const MR: usize, const NR: usize>(call: &Call, mut c: MatMut, a: Mat, b: Mat) {
    const { assert!(T::MR == MR && T::NR == NR) };
    let (m, n, k) = (c.rows(), c.cols(), a.cols());
    if k == 0 && !call.accumulate {
        for i in 0..m {
            // SAFETY: row i of C.
            unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().add(i * c.row_stride()), n).fill(0.0) };
        }
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let kc = depth(k);
    let packed_a = if reads_rows(&a) { 0 } else { m.min(MC).next_multiple_of(MR) * kc };
    scratch::with(Use::GemmA, packed_a, |pa| {
        scratch::with(Use::GemmB, n.min(NC).next_multiple_of(NR) * kc, |pb| {
            for j0 in (0..n).step_by(NC) {
                for i0 in (0..m).step_by(MC) {
                    for p0 in (0..k).step_by(kc) {
                        let depth = kc.min(k - p0);
                        let (i1, j1) = (m.min(i0 + MC), n.min(j0 + NC));
                        let a = a.row_range(i0..i1).col_range(p0..p0 + depth);
                        let b = b.col_range(j0..j1).row_range(p0..p0 + depth);
                        // SAFETY: a block of C, which this call alone may write.
                        let block = unsafe {
                            let at = c.as_mut_ptr().add(i0 * c.row_stride() + j0);
                            MatMut::from_raw(at, i1 - i0, j1 - j0, c.row_stride())
                        };
                        call.block::<T, MR, NR>(block, a, b, pa, pb, call.accumulate || p0 > 0);
                    }
                }
            }
        })
    })
}

impl Call {
    /// One block that fits the scratch memory: packs both factors, then runs the tiles.
    fn block<T: Tile, const MR: usize, const NR: usize>(
        &self,
        mut c: MatMut,
        a: Mat,
        b: Mat,
        pa: &mut [f32],
        pb: &mut [f32],
        accumulate: bool,
    ) {
        let (m, n, k) = (c.rows(), c.cols(), a.cols());
        let (a_panels, b_panels) = (m.div_ceil(MR), n.div_ceil(NR));
        let direct = reads_rows(&a);
        assert!((direct || pa.len() >= a_panels * MR * k) && pb.len() >= b_panels * NR * k);
        let (pa, pb) = (SendPtr(pa.as_mut_ptr()), SendPtr(pb.as_mut_ptr()));
        let (a_step, b_step) = ((PIECE / (MR * k)).max(1), (PIECE / (NR * k)).max(1));
        let a_pieces = if direct { 0 } else { a_panels.div_ceil(a_step) };
        self.for_each(a_pieces + b_panels.div_ceil(b_step), |piece| {
            // SAFETY: the panels lie inside the matrices, and their places in the scratch are this piece's alone.
            unsafe {
                if piece < a_pieces {
                    let panels = piece * a_step..a_panels.min((piece + 1) * a_step);
                    pack_panels::<MR>(pa.get(), a.as_ptr(), panels, m, a.row_stride(), k, a.col_stride());
                } else {
                    let first = (piece - a_pieces) * b_step;
                    let panels = first..b_panels.min(first + b_step);
                    pack_panels::<NR>(pb.get(), b.as_ptr(), panels, n, b.col_stride(), k, b.row_stride());
                }
            }
        });
        let col_blocks = n.div_ceil(COLS);
        let row_blocks = match m.div_ceil(ROWS) {
            blocks if blocks * col_blocks < FEW_PIECES => m.div_ceil(ROWS / 2),
            blocks => blocks,
        };
        let c_stride = c.row_stride();
        let c = SendPtr(c.as_mut_ptr());
        self.for_each(row_blocks * col_blocks, |piece| {
            let (jb, ib) = (piece / row_blocks, piece % row_blocks);
            for i in share(a_panels, row_blocks, ib) {
                for j in share(b_panels, col_blocks, jb) {
                    let store = Store {
                        alpha: self.alpha,
                        accumulate,
                        row_stride: c_stride,
                        rows: MR.min(m - i * MR),
                        cols: NR.min(n - j * NR),
                    };
                    // SAFETY: both panels were packed above; tile (i, j) of C belongs to this piece alone; the instruction set was
                    // detected when it was chosen; panels of B start at multiples of 64 bytes where NR is a multiple of 16.
                    unsafe {
                        let to = c.get().add(i * MR * c_stride + j * NR);
                        let b = pb.get().add(j * NR * k);
                        if direct {
                            T::run::<true>(k, a.as_ptr().add(i * MR * a.row_stride()), a.row_stride(), b, to, store);
                        } else {
                            T::run::<false>(k, pa.get().add(i * MR * k), MR, b, to, store);
                        }
                    }
                }
            }
        });
    }

    fn for_each(&self, count: usize, body: impl Fn(usize) + Sync) {
        if self.parallel {
            threads::for_each(count, body);
        } else {
            (0..count).for_each(body);
        }
    }
}

/// Whether the tiles may read A where it is: its rows are contiguous, and not so far apart that they fall into the same few sets of
/// the first cache.
fn reads_rows(a: &Mat) -> bool {
    a.col_stride() == 1 && !a.row_stride().is_multiple_of(256)
}

/// The `index`-th of `parts` nearly equal shares of `0..total`.
fn share(total: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Holds one product to the naive sum on every instruction set, sequential and parallel, and checks that what lies
    /// between the rows of C is left alone.
    fn check(m: usize, n: usize, k: usize, transpose: (bool, bool), pad: usize, alpha: f32, accumulate: bool) {
        let (ad, bd) = (values(m * (k + pad) + k * (m + pad), 1), values(k * (n + pad) + n * (k + pad), 2));
        let a = if transpose.0 { Mat::new(&ad, k, m, m + pad, 1).t() } else { Mat::new(&ad, m, k, k + pad, 1) };
        let b = if transpose.1 { Mat::new(&bd, n, k, k + pad, 1).t() } else { Mat::new(&bd, k, n, n + pad, 1) };
        let start = values(m * (n + pad), 3);
        let mut want = start.clone();
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k)
                    .map(|p| {
                        let (ai, bi) = (i * a.row_stride() + p * a.col_stride(), p * b.row_stride() + j * b.col_stride());
                        f64::from(ad[ai]) * f64::from(bd[bi])
                    })
                    .sum();
                let old = if accumulate { f64::from(start[i * (n + pad) + j]) } else { 0.0 };
                want[i * (n + pad) + j] = (old + f64::from(alpha) * sum) as f32;
            }
        }
        for isa in Isa::available() {
            let mut results = [start.clone(), start.clone()];
            for (parallel, c) in results.iter_mut().enumerate() {
                gemm_with(isa, MatMut::new(c, m, n, n + pad), a, b, alpha, accumulate, parallel == 1);
                for (at, (got, want)) in c.iter().zip(&want).enumerate() {
                    let bound = 1e-6 * (k as f32).sqrt().max(1.0) * 4.0;
                    assert!((got - want).abs() <= bound, "{isa:?} {m}×{n}×{k} {transpose:?} at {at}: {got} instead of {want}");
                }
            }
            assert_eq!(results[0], results[1], "the number of threads changed the result");
        }
    }

    #[test]
    fn products_of_chosen_shapes() {
        for (m, n, k) in
            [(1, 1, 1), (1, 50, 7), (50, 1, 7), (12, 32, 16), (13, 33, 17), (6, 16, 513), (97, 300, 1030), (200, 260, 40)]
        {
            for transpose in [(false, false), (true, false), (false, true), (true, true)] {
                check(m, n, k, transpose, 0, 1.0, false);
            }
            check(m, n, k, (false, true), 3, 0.125, true);
        }
    }

    #[test]
    fn empty_products_write_zeros_or_nothing() {
        check(3, 4, 0, (false, false), 0, 1.0, false);
        check(3, 4, 0, (false, false), 2, 1.0, true);
        check(0, 4, 2, (false, false), 0, 1.0, false);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_of_any_shape(
            m in 1usize..70, n in 1usize..70, k in 0usize..70, ta: bool, tb: bool, pad in 0usize..5, accumulate: bool,
        ) {
            check(m, n, k, (ta, tb), pad, 1.0, accumulate);
        }
    }
}
