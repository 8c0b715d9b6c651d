//! A weight, ready for products.

use std::fmt;

use crate::layout::{ROWS, block_bytes, pack_block, unpack_block};
use crate::memory::Memory;
use crate::{Error, Format, dequantize};

/// A weight `[out, in]` in blocks, with eight rows side by side.
pub struct Weights {
    format: Format,
    shape: [usize; 2],
    memory: Memory,
}

impl Weights {
    /// Lays out the rows of a weight `[out, in]`, which are `bytes` in ggml's layout. The memory is that of `bytes`, rounded up to eight rows;
    /// for Q4_K a 36th more.
    ///
    /// # Errors
    /// When the format has no products, its blocks do not divide the rows, or `bytes` has another length than the shape asks for.
    pub fn new(format: Format, shape: [usize; 2], bytes: &[u8]) -> Result<Self, Error> {
        let [out, inp] = shape;
        let panel_block = block_bytes(format).ok_or(Error::NoProducts(format))?;
        let row = format.row_bytes(inp).ok_or(Error::Columns { format, columns: inp })?;
        let expected = row.checked_mul(out);
        if expected != Some(bytes.len()) {
            return Err(Error::Length { what: "a weight", shape, expected, found: bytes.len() });
        }
        let blocks = inp / format.block();
        let panel = blocks * panel_block;
        // No overflow: for rows that are there a panel is little larger than eight of them, and without blocks it is nothing.
        let memory = Memory::filled(out.div_ceil(ROWS) * panel, panel, |index, panel| {
            for row_of_panel in 0..ROWS.min(out - index * ROWS) {
                let bytes = &bytes[(index * ROWS + row_of_panel) * row..][..row];
                for (block, panel) in bytes.chunks_exact(format.block_bytes()).zip(panel.chunks_exact_mut(panel_block)) {
                    pack_block(format, block, row_of_panel, panel);
                }
            }
        });
        Ok(Self { format, shape, memory })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.memory.bytes().len()
    }

    /// Row `row` in ggml's layout, as it was given.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn row_bytes(&self, row: usize) -> Result<Vec<u8>, Error> {
        let [out, inp] = self.shape;
        if row >= out {
            return Err(Error::Row { row, rows: out });
        }
        let size = self.format.block_bytes();
        let mut bytes = vec![0; inp / self.format.block() * size];
        let panel_block = block_bytes(self.format).ok_or(Error::NoProducts(self.format))?;
        let panel = self.panels(row / ROWS).0.chunks_exact(panel_block);
        for (block, panel) in bytes.chunks_exact_mut(size).zip(panel) {
            unpack_block(self.format, panel, row % ROWS, block);
        }
        Ok(bytes)
    }

    /// The values of row `row` into `to`, `[in]`: what an embedding of these weights looks up.
    ///
    /// # Errors
    /// When there is no such row, or `to` has another length.
    pub fn row(&self, row: usize, to: &mut [f32]) -> Result<(), Error> {
        let inp = self.shape[1];
        if to.len() != inp {
            return Err(Error::Length { what: "a row", shape: [1, inp], expected: Some(inp), found: to.len() });
        }
        dequantize(self.format, &self.row_bytes(row)?, to);
        Ok(())
    }

    /// The bytes from panel `first` on, and how many bytes a panel has.
    pub(crate) fn panels(&self, first: usize) -> (&[u8], usize) {
        let size = self.memory().checked_div(self.shape[0].div_ceil(ROWS)).unwrap_or(0);
        (&self.memory.bytes()[first * size..], size)
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("format", &self.format).field("shape", &self.shape).finish_non_exhaustive()
    }
}
