//! Products of some rows with a large matrix of weights: decoding of many sequences at once.
//!
//! [`gemm`](super::gemm()) packs the weights, which for a few dozen rows takes longer than the product itself. Here the weights are what
//! the tiles read row by row where they are, and the rows of X, turned, are what is packed: each weight comes from memory once, and the
//! product runs at the rate of a large one. Every sum is taken in the order of [`gemm`](super::gemm()), so the results are equal to the bit.

use super::gemm::depth;
use super::isa::Isa;
use super::mat::{Mat, MatMut};
use super::pack::{pack_panels, transpose};
use super::scratch::{self, Use};
use super::threads::{self, SendPtr};
use super::tile::{Store, Tile, for_tile};

/// Weights in one piece of parallel work.
const PIECE: usize = 32768;

/// Y = X·Wᵀ on all threads: X is rows×k and W n×k, both row-major with contiguous rows, Y is rows×n.
pub fn gemm_few(y: MatMut, x: Mat, w: Mat) {
    few_with(Isa::current(), y, x, w);
}

fn few_with(isa: Isa, y: MatMut, x: Mat, w: Mat) {
    let (rows, n, k) = (x.rows(), w.rows(), x.cols());
    assert!(
        w.cols() == k && y.rows() == rows && y.cols() == n,
        "a product of {rows}×{k} and {n}×{} (transposed) does not fit in {}×{}",
        w.cols(),
        y.rows(),
        y.cols()
    );
    assert!(x.col_stride() == 1 && w.col_stride() == 1, "both factors have contiguous rows");
    if rows == 0 || n == 0 {
        return;
    }
    // Half a tile's columns are enough for half the rows, with twice as many weights beside them.
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && rows <= 16 {
        return run::<super::tile::Avx512<24, 1>, 24, 16>(y, x, w);
    }
    for_tile!(isa, run(y, x, w))
}

fn run<T: Tile, const MR: usize, const NR: usize>(mut y: MatMut, x: Mat, w: Mat) {
    const { assert!(T::MR == MR && T::NR == NR) };
    let (rows, n, k) = (x.rows(), w.rows(), x.cols());
    let panels = rows.div_ceil(NR);
    let width = panels * NR;
    let (kc, y_stride) = (depth(k), y.row_stride());
    let y = SendPtr(y.as_mut_ptr());
    scratch::with(Use::GemmB, width * k, |packed| {
        for p0 in (0..k).step_by(kc) {
            let depth = kc.min(k - p0);
            // SAFETY: `width × depth` elements from `width × p0` on, of `width × k`; X has the rows and columns that are read.
            unsafe {
                let (to, from) = (packed[width * p0..].as_mut_ptr(), x.as_ptr().add(p0));
                pack_panels::<NR>(to, from, 0..panels, rows, x.row_stride(), depth, 1);
            }
        }
        let packed = &*packed;
        let piece = (PIECE / k.max(1)).next_multiple_of(MR).clamp(MR, 16 * MR);
        threads::for_each(n.div_ceil(piece), |index| {
            let (first, last) = (index * piece, n.min((index + 1) * piece));
            scratch::with(Use::GemmA, piece * width, |turned| {
                if k == 0 {
                    turned.fill(0.0);
                }
                for p0 in (0..k).step_by(kc) {
                    let depth = kc.min(k - p0);
                    for i in (first..last).step_by(MR) {
                        for j in 0..panels {
                            let store =
                                Store { alpha: 1.0, accumulate: p0 > 0, row_stride: width, rows: MR.min(last - i), cols: NR };
                            // SAFETY: rows of W that exist; a panel packed above, at a multiple of NR elements; a block of this
                            // thread's scratch; the instruction set was detected when it was chosen.
                            unsafe {
                                let weights = w.as_ptr().add(i * w.row_stride() + p0);
                                let x = packed[width * p0 + j * NR * depth..].as_ptr();
                                let to = turned[(i - first) * width + j * NR..].as_mut_ptr();
                                T::run::<true>(depth, weights, w.row_stride(), x, to, store);
                            }
                        }
                    }
                }
                // SAFETY: columns `first` to `last` of Y, which only this piece writes, from as many rows of its scratch, each of `width`
                // elements.
                unsafe { transpose(y.get().add(first), y_stride, turned.as_ptr(), width, rows, last - first) };
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::gemm_with;

    /// Equal to the bit to the general product, whatever the shape.
    #[test]
    fn it_is_the_general_product() {
        for (rows, n, k) in
            [(1, 1, 1), (8, 40, 17), (16, 25, 64), (17, 100, 33), (32, 500, 130), (33, 61, 800), (100, 30, 1700), (9, 5, 0)]
        {
            let x: Vec<f32> = (0..rows * k).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| ((i * 6151) % 2003) as f32 / 1001.0 - 1.0).collect();
            let (x, w) = (Mat::row_major(&x, rows, k), Mat::row_major(&w, n, k));
            for isa in Isa::available() {
                let (mut got, mut want) = (vec![f32::NAN; rows * (n + 3)], vec![f32::NAN; rows * (n + 3)]);
                few_with(isa, MatMut::new(&mut got, rows, n, n + 3), x, w);
                gemm_with(isa, MatMut::new(&mut want, rows, n, n + 3), x, w.t(), 1.0, false, false);
                let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(got), bits(want), "{isa:?} {rows}×{n}×{k}");
            }
        }
    }
}
