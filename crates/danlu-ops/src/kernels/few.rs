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

/// The products X·Wᵀ with several W side by side, on all threads: X is rows×k and each W n×k, all row-major with contiguous rows, Y is
/// rows×Σn.
pub fn gemm_few(y: MatMut, x: Mat, weights: &[Mat]) {
    few_with(Isa::current(), y, x, weights);
}

fn few_with(isa: Isa, y: MatMut, x: Mat, weights: &[Mat]) {
    let (rows, k) = (x.rows(), x.cols());
    let n: usize = weights.iter().map(Mat::rows).sum();
    assert!(
        weights.iter().all(|w| w.cols() == k) && y.rows() == rows && y.cols() == n,
        "a product of {rows}×{k} and {:?} (transposed) does not fit in {}×{}",
        weights.iter().map(|w| [w.rows(), w.cols()]).collect::<Vec<_>>(),
        y.rows(),
        y.cols()
    );
    assert!(x.col_stride() == 1 && weights.iter().all(|w| w.col_stride() == 1), "all factors have contiguous rows");
    if rows == 0 || n == 0 {
        return;
    }
    // Half a tile's columns are enough for half the rows, with twice as many weights beside them.
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && rows <= 16 {
        return run::<super::tile::Avx512<24, 1>, 24, 16>(y, x, weights);
    }
    for_tile!(isa, run(y, x, weights))
}

/// Some rows of one of the weights, and the column of Y that the first of them gives.
struct Piece<'a> {
    w: Mat<'a>,
    column: usize,
}

/// All weights cut into pieces of at most so many rows.
fn pieces<'a>(weights: &[Mat<'a>], most: usize) -> Vec<Piece<'a>> {
    let (mut pieces, mut column) = (vec![], 0);
    for w in weights {
        for first in (0..w.rows()).step_by(most) {
            pieces.push(Piece { w: w.row_range(first..w.rows().min(first + most)), column: column + first });
        }
        column += w.rows();
    }
    pieces
}

fn run<T: Tile, const MR: usize, const NR: usize>(mut y: MatMut, x: Mat, weights: &[Mat]) {
    const { assert!(T::MR == MR && T::NR == NR) };
    let (rows, k) = (x.rows(), x.cols());
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
        let most = (PIECE / k.max(1)).next_multiple_of(MR).clamp(MR, 16 * MR);
        let pieces = pieces(weights, most);
        threads::for_each(pieces.len(), |index| {
            let &Piece { w, column } = &pieces[index];
            scratch::with(Use::GemmA, most * width, |turned| {
                if k == 0 {
                    turned.fill(0.0);
                }
                for p0 in (0..k).step_by(kc) {
                    let depth = kc.min(k - p0);
                    for i in (0..w.rows()).step_by(MR) {
                        for j in 0..panels {
                            let store =
                                Store { alpha: 1.0, accumulate: p0 > 0, row_stride: width, rows: MR.min(w.rows() - i), cols: NR };
                            // SAFETY: rows of W that exist; a panel packed above, at a multiple of NR elements; a block of this
                            // thread's scratch; the instruction set was detected when it was chosen.
                            unsafe {
                                let from = w.as_ptr().add(i * w.row_stride() + p0);
                                let x = packed[width * p0 + j * NR * depth..].as_ptr();
                                let to = turned[i * width + j * NR..].as_mut_ptr();
                                if j == 0 {
                                    let next = from.wrapping_add(MR * w.row_stride());
                                    T::run_ahead(depth, from, w.row_stride(), x, to, store, next);
                                } else {
                                    T::run::<true>(depth, from, w.row_stride(), x, to, store);
                                }
                            }
                        }
                    }
                }
                // SAFETY: columns of Y that only this piece writes, from as many rows of its scratch, each of `width` elements.
                unsafe { transpose(y.get().add(column), y_stride, turned.as_ptr(), width, rows, w.rows()) };
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::gemm_with;

    /// Equal to the bit to the general product, whatever the shape; and so is one with weights in several parts.
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
                let (above, below) = (w.row_range(0..n / 3), w.row_range(n / 3..n));
                few_with(isa, MatMut::new(&mut got, rows, n, n + 3), x, &[w]);
                let mut parts = vec![f32::NAN; rows * (n + 3)];
                few_with(isa, MatMut::new(&mut parts, rows, n, n + 3), x, &[above, below]);
                gemm_with(isa, MatMut::new(&mut want, rows, n, n + 3), x, w.t(), 1.0, false, false);
                let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                let want = bits(want);
                assert_eq!(bits(got), want, "{isa:?} {rows}×{n}×{k}");
                assert_eq!(bits(parts), want, "{isa:?} {rows}×{n}×{k} in two parts");
            }
        }
    }
}
