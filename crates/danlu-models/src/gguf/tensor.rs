//! Weights as they lie in a file, for those who compute with them and for those who want floats.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use danlu_ops::quantized::{Format, dequantize};
use memmap2::Mmap;

/// A weight in blocks: rows of `columns` values, each row a whole number of blocks. Cloning shares the bytes, which lie in the mapped file
/// until something changes them.
#[derive(Clone, Debug)]
pub struct QuantizedTensor {
    format: Format,
    shape: Vec<usize>,
    bytes: Bytes,
}

#[derive(Clone, Debug)]
enum Bytes {
    File(Arc<Mmap>, Range<usize>),
    Memory(Arc<[u8]>),
}

impl QuantizedTensor {
    /// A tensor of bytes in memory. `shape` has the outermost dimension first; its last are the columns.
    ///
    /// # Errors
    /// When the shape and the number of bytes do not agree.
    pub fn new(format: Format, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let tensor = Self { format, shape, bytes: Bytes::Memory(bytes.into()) };
        let row = format.row_bytes(tensor.columns()).and_then(|row| row.checked_mul(tensor.rows()));
        ensure!(
            row == Some(tensor.bytes().len()),
            "{} bytes are not a tensor of {} of the shape {:?}",
            tensor.bytes().len(),
            format.name(),
            tensor.shape
        );
        Ok(tensor)
    }

    /// `place` has been found to lie in the file and to have as many bytes as the shape asks for.
    pub(super) fn mapped(format: Format, shape: Vec<usize>, file: Arc<Mmap>, place: Range<usize>) -> Self {
        Self { format, shape, bytes: Bytes::File(file, place) }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Outermost first: `[out, in]` for a projection.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// All blocks, row after row.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::File(file, place) => &file[place.clone()],
            Bytes::Memory(bytes) => bytes,
        }
    }

    /// The same rows in another order: row `i` of the result is row `order(i)` of this. Blocks lie within rows, so nothing is rounded.
    #[must_use]
    pub fn reordered(&self, order: impl Fn(usize) -> usize) -> Self {
        let row = self.bytes().len() / self.rows().max(1);
        // Row by row, since byte by byte takes longer than all else that is done to load a model.
        let mut bytes = Vec::with_capacity(self.bytes().len());
        (0..self.rows()).for_each(|i| bytes.extend_from_slice(&self.bytes()[order(i) * row..][..row]));
        Self { bytes: Bytes::Memory(bytes.into()), ..self.clone() }
    }

    /// All values as 32-bit floats, row after row.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        dequantize(self.format, self.bytes(), &mut values);
        values
    }
}
