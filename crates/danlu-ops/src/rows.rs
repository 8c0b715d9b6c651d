//! How row-wise loops are shared out: in pieces of rows whose number depends on shapes only.

use std::marker::PhantomData;

use crate::kernels::simd::scale as scale_slice;
use crate::kernels::threads::{SendPtr, for_each};
use crate::kernels::{Isa, simd_fn};

/// Elements in a piece: enough to hide the cost of taking one, little enough that all threads end together.
const ELEMENTS: usize = 1 << 15;

/// Rows in a piece, for rows of `width` elements. At most 64 pieces, since each may keep partial sums.
pub(crate) fn rows_per_piece(rows: usize, width: usize) -> usize {
    (ELEMENTS / width.max(1)).max(rows.div_ceil(64)).max(1)
}

/// Cuts slices into pieces of the given lengths, one from each slice for each index, and runs `body(index, pieces)` on all
/// threads. All slices must give the same number of pieces.
pub(crate) fn for_each_piece<const N: usize>(
    slices: [&mut [f32]; N],
    piece: [usize; N],
    body: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    let cuts = Cuts::new(slices, piece);
    // SAFETY: each index below the count runs once.
    for_each(cuts.count, |index| body(index, unsafe { cuts.pieces(index) }));
}

/// [`for_each_piece`] of floats beside which there are bytes, cut the same way.
pub(crate) fn for_each_piece_and_bytes<const N: usize, const M: usize>(
    floats: ([&mut [f32]; N], [usize; N]),
    bytes: ([&mut [u8]; M], [usize; M]),
    body: impl Fn(usize, [&mut [f32]; N], [&mut [u8]; M]) + Sync,
) {
    let (floats, bytes) = (Cuts::new(floats.0, floats.1), Cuts::new(bytes.0, bytes.1));
    assert_eq!(floats.count, bytes.count, "floats and bytes give different numbers of pieces");
    // SAFETY: each index below the count runs once.
    for_each(floats.count, |index| body(index, unsafe { floats.pieces(index) }, unsafe { bytes.pieces(index) }));
}

/// Slices that are cut into equally many pieces.
struct Cuts<'a, T, const N: usize> {
    bases: [SendPtr<T>; N],
    lengths: [usize; N],
    piece: [usize; N],
    count: usize,
    slices: PhantomData<[&'a mut [T]; N]>,
}

impl<'a, T, const N: usize> Cuts<'a, T, N> {
    fn new(slices: [&'a mut [T]; N], piece: [usize; N]) -> Self {
        let lengths = slices.each_ref().map(|slice| slice.len());
        let counts: [usize; N] = std::array::from_fn(|i| lengths[i].div_ceil(piece[i].max(1)));
        assert!(counts.iter().all(|&count| count == counts[0]), "slices of {lengths:?} cut by {piece:?} give {counts:?} pieces");
        let bases = slices.map(|slice| SendPtr(slice.as_mut_ptr()));
        Self { bases, lengths, piece, count: counts[0], slices: PhantomData }
    }

    /// The pieces of an index.
    ///
    /// # Safety
    /// The index is below the count, and no pieces of the same index are alive.
    unsafe fn pieces(&self, index: usize) -> [&'a mut [T]; N] {
        std::array::from_fn(|i| {
            let start = index * self.piece[i];
            // SAFETY: pieces of different indices do not overlap, all lie inside their slice, and the caller takes each once.
            unsafe { std::slice::from_raw_parts_mut(self.bases[i].get().add(start), self.piece[i].min(self.lengths[i] - start)) }
        })
    }
}

/// Sums of columns: `partial` holds rows as long as `total`, which become its sum from the first to the last.
pub(crate) fn sum_rows(total: &mut [f32], partial: &[f32]) {
    total.fill(0.0);
    if !total.is_empty() {
        partial.chunks_exact(total.len()).for_each(|row| add(Isa::current(), total, row));
    }
}

/// Sums of the columns of `x`, whose rows are as long as `total`.
pub(crate) fn column_sums(total: &mut [f32], x: &[f32]) {
    let width = total.len();
    if width == 0 {
        return;
    }
    let rows = rows_per_piece(x.len() / width, width);
    let mut partial = vec![0.0; x.len().div_ceil(rows * width) * width];
    for_each_piece([&mut partial], [width], |i, [partial]| {
        x[i * rows * width..].chunks_exact(width).take(rows).for_each(|row| add(Isa::current(), partial, row));
    });
    sum_rows(total, &partial);
}

/// Sums of the columns of `x · y`, whose rows are as long as `total`.
pub(crate) fn column_dots(total: &mut [f32], x: &[f32], y: &[f32]) {
    let width = total.len();
    if width == 0 {
        return;
    }
    let rows = rows_per_piece(x.len() / width, width);
    let mut partial = vec![0.0; x.len().div_ceil(rows * width) * width];
    for_each_piece([&mut partial], [width], |i, [partial]| {
        let at = i * rows * width;
        let pairs = x[at..].chunks_exact(width).zip(y[at..].chunks_exact(width));
        pairs.take(rows).for_each(|(x, y)| add_product(Isa::current(), partial, x, y));
    });
    sum_rows(total, &partial);
}

/// Copies on all threads.
pub(crate) fn copy(to: &mut [f32], from: &[f32]) {
    for_each_piece([to], [ELEMENTS], |i, [to]| to.copy_from_slice(&from[i * ELEMENTS..][..to.len()]));
}

/// `x · factor` in place.
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    if factor != 1.0 {
        for_each_piece([x], [ELEMENTS], |_, [x]| scale_slice(Isa::current(), x, factor));
    }
}

/// `total += x · factor` on all threads.
pub(crate) fn add_scaled(total: &mut [f32], x: &[f32], factor: f32) {
    for_each_piece([total], [ELEMENTS], |i, [total]| add_multiple(Isa::current(), total, &x[i * ELEMENTS..], factor));
}

simd_fn! {
    fn add_multiple(total: &mut [f32], x: &[f32], factor: f32) {
        for (total, x) in total.iter_mut().zip(x) {
            *total += x * factor;
        }
    }

    /// `total += x`.
    pub(crate) fn add(total: &mut [f32], x: &[f32]) {
        for (total, x) in total.iter_mut().zip(x) {
            *total += x;
        }
    }

    /// `total += x · y`.
    pub(crate) fn add_product(total: &mut [f32], x: &[f32], y: &[f32]) {
        for ((total, x), y) in total.iter_mut().zip(x).zip(y) {
            *total += x * y;
        }
    }
}
