//! Matrix–vector products, which decoding is made of: their time is that of reading the weights once.

use super::isa::Isa;
use super::simd::{fma, row_dot, simd_fn};
use super::threads::{self, SendPtr};

/// Rows of W read at once: eight streams keep enough loads in flight to fill the memory bus.
const STREAMS: usize = 8;

/// Y = X·Wᵀ for a few rows of X: `x` is `[rows, k]`, `w` is `[n, k]`, `y` is `[rows, n]`, all dense. On all threads.
///
/// Each weight is read from memory once for all rows of X. From about eight rows on [`gemm`](super::gemm()) is the faster one.
pub fn gemv(y: &mut [f32], w: &[f32], x: &[f32], rows: usize) {
    if rows == 0 || y.is_empty() {
        return;
    }
    let (n, k) = (y.len() / rows, x.len() / rows);
    assert!(
        y.len() == rows * n && x.len() == rows * k && w.len() == n * k,
        "{rows} rows: y has {} elements, x {}, w {}",
        y.len(),
        x.len(),
        w.len()
    );
    if k == 0 {
        y.fill(0.0);
        return;
    }
    let isa = Isa::current();
    let base = SendPtr(y.as_mut_ptr());
    // About 32 thousand weights a piece.
    let piece = (32768 / k).next_multiple_of(STREAMS).max(STREAMS);
    threads::for_each(n.div_ceil(piece), |index| {
        for first in (index * piece..n.min((index + 1) * piece)).step_by(STREAMS) {
            let count = STREAMS.min(n - first);
            let w = &w[first * k..(first + count) * k];
            for row in 0..rows {
                let mut out = [0f32; STREAMS];
                let x = &x[row * k..(row + 1) * k];
                if count == STREAMS {
                    eight_dots(isa, &mut out, w, x);
                } else {
                    for (out, w) in out.iter_mut().zip(w.chunks_exact(k)) {
                        *out = row_dot(isa, w, x);
                    }
                }
                for (i, &value) in out[..count].iter().enumerate() {
                    // SAFETY: element (row, first + i) of y, which only this piece writes.
                    unsafe { *base.get().add(row * n + first + i) = value };
                }
            }
        }
    });
}

simd_fn! {
    /// The dot products of eight rows `w` with `x`.
    fn eight_dots(out: &mut [f32; STREAMS], w: &[f32], x: &[f32]) {
        const LANES: usize = 16;
        let k = x.len();
        assert_eq!(w.len(), STREAMS * k);
        let rows: [&[f32]; STREAMS] = std::array::from_fn(|i| &w[i * k..(i + 1) * k]);
        let mut sums = [[0f32; LANES]; STREAMS];
        let whole = k / LANES * LANES;
        let mut p = 0;
        while p < whole {
            let x: &[f32; LANES] = x[p..p + LANES].try_into().unwrap();
            for (row, sum) in rows.iter().zip(&mut sums) {
                let w: &[f32; LANES] = row[p..p + LANES].try_into().unwrap();
                for lane in 0..LANES {
                    sum[lane] = fma::<FMA>(w[lane], x[lane], sum[lane]);
                }
            }
            p += LANES;
        }
        for ((out, sum), row) in out.iter_mut().zip(&sums).zip(&rows) {
            *out = sum.iter().sum();
            for p in whole..k {
                *out += row[p] * x[p];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: usize, n: usize, k: usize) {
        let x: Vec<f32> = (0..rows * k).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let w: Vec<f32> = (0..n * k).map(|i| ((i * 5) % 11) as f32 - 5.0).collect();
        let mut y = vec![f32::NAN; rows * n];
        gemv(&mut y, &w, &x, rows);
        for row in 0..rows {
            for j in 0..n {
                let want: f32 = (0..k).map(|p| x[row * k + p] * w[j * k + p]).sum();
                assert_eq!(y[row * n + j], want, "{rows} {n}×{k} at {row}, {j}");
            }
        }
    }

    #[test]
    fn small_integers_come_out_exactly() {
        for (rows, n, k) in [(1, 1, 1), (1, 8, 16), (1, 9, 17), (3, 100, 33), (2, 7, 5), (1, 1000, 384), (2, 3, 0)] {
            check(rows, n, k);
        }
    }
}
