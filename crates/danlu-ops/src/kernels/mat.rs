//! Views of matrices of `f32`: checked once when made, free to transpose and cut afterwards.

use std::marker::PhantomData;
use std::ops::Range;

/// A read-only matrix: element (i, j) is `data[i * row_stride + j * col_stride]`. A transpose is a swap of the strides.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    ptr: *const f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
    _data: PhantomData<&'a [f32]>,
}

// SAFETY: a `Mat` is a `&[f32]` with strides; shared slices of f32 may be sent and shared between threads.
unsafe impl Send for Mat<'_> {}
// SAFETY: as above.
unsafe impl Sync for Mat<'_> {}

/// How many elements a matrix of these strides reaches over; `None` on overflow.
fn reach(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(row_stride)?.checked_add((cols - 1).checked_mul(col_stride)?)?.checked_add(1)
}

impl<'a> Mat<'a> {
    /// A view with any strides. Panics when the matrix would reach past the end of `data`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        let need = reach(rows, cols, row_stride, col_stride);
        assert!(
            need.is_some_and(|need| need <= data.len()),
            "a {rows}×{cols} matrix with strides {row_stride}, {col_stride} does not fit in {} elements",
            data.len()
        );
        Self { ptr: data.as_ptr(), rows, cols, row_stride, col_stride, _data: PhantomData }
    }

    /// A dense row-major matrix.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols, 1)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(crate) fn col_stride(&self) -> usize {
        self.col_stride
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.ptr
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Rows `range` of the matrix.
    pub fn row_range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of a matrix of {} rows", self.rows);
        Self { ptr: self.ptr.wrapping_add(range.start * self.row_stride), rows: range.len(), ..self }
    }

    /// Columns `range` of the matrix.
    pub fn col_range(self, range: Range<usize>) -> Self {
        self.t().row_range(range).t()
    }
}

/// A matrix to write: row-major, with a row stride of its own, so that it can be a block of columns of a wider matrix.
#[derive(Debug)]
pub struct MatMut<'a> {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
    row_stride: usize,
    _data: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatMut` is the only reference to its elements, as a `&mut [f32]` is.
unsafe impl Send for MatMut<'_> {}

impl<'a> MatMut<'a> {
    /// A view with the given row stride. Panics when it would reach past the end of `data` or when rows would overlap.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows <= 1 || cols <= row_stride, "rows of {cols} elements overlap at a row stride of {row_stride}");
        assert!(
            reach(rows, cols, row_stride, 1).is_some_and(|need| need <= data.len()),
            "a {rows}×{cols} matrix with row stride {row_stride} does not fit in {} elements",
            data.len()
        );
        Self { ptr: data.as_mut_ptr(), rows, cols, row_stride, _data: PhantomData }
    }

    /// A dense row-major matrix.
    pub fn row_major(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols)
    }

    /// A view from a raw pointer, for blocks that several threads write side by side.
    ///
    /// # Safety
    /// Every element of the block must be writable for `'a` and touched by nobody else meanwhile.
    pub(crate) unsafe fn from_raw(ptr: *mut f32, rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { ptr, rows, cols, row_stride, _data: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.ptr
    }

    /// Cuts the matrix into its first `at` columns and the rest, so that several products can fill one wide matrix.
    pub fn split_cols(self, at: usize) -> (Self, Self) {
        assert!(at <= self.cols, "column {at} of a matrix of {} columns", self.cols);
        let right = Self { ptr: self.ptr.wrapping_add(at), cols: self.cols - at, ..self };
        (Self { cols: at, ..self }, right)
    }

    /// Cuts the matrix into its first `at` rows and the rest.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows, "row {at} of a matrix of {} rows", self.rows);
        let below = Self { ptr: self.ptr.wrapping_add(at * self.row_stride), rows: self.rows - at, ..self };
        (Self { rows: at, ..self }, below)
    }
}
