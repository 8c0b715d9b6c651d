//! Products of inputs with weights, on all threads.

use crate::kernel::Piece;
use crate::layout::ROWS;
use crate::threads::{self, SendPtr};
use crate::{Activations, Error, Isa, Weights};

/// Weights in one piece of parallel work.
const PIECE: usize = 32768;
/// Rows of the input in one piece, so that they stay in a core's cache while one panel after the other meets them.
const TALL: usize = 64;

/// Several products of one input side by side (q|k|v, gate|up): `x` is `[rows, in]`, each weight `[out_i, in]`, `y` `[rows, Σ out_i]`.
///
/// A result differs from that of the values the weights stand for, with [`Activations::values`], by the rounding of 32-bit floats alone.
///
/// # Errors
/// When a weight is for inputs of another width, or `y` has another length. Nothing is written then.
pub fn products(y: &mut [f32], x: &Activations, weights: &[&Weights]) -> Result<(), Error> {
    products_with(Isa::current(), y, x, weights)
}

/// [`products`] with an instruction set of [`Isa::available`].
///
/// # Errors
/// As [`products`].
///
/// # Panics
/// When this processor does not have the instruction set.
pub fn products_with(isa: Isa, y: &mut [f32], x: &Activations, weights: &[&Weights]) -> Result<(), Error> {
    assert!(isa == Isa::current() || Isa::available().contains(&isa), "this processor has no {}", isa.name());
    let (rows, columns) = (x.rows(), x.columns());
    let mut all = Vec::with_capacity(weights.len());
    let (mut width, mut pieces) = (0usize, 0);
    for weight in weights {
        let [out, inp] = weight.shape();
        if inp != columns {
            return Err(Error::Width { weight: weight.shape(), columns });
        }
        let panels = (PIECE / ROWS / inp.max(1)).max(1);
        all.push((*weight, width, pieces, panels));
        width = width.saturating_add(out);
        pieces += out.div_ceil(ROWS).div_ceil(panels);
    }
    let expected = rows.checked_mul(width);
    if expected != Some(y.len()) {
        return Err(Error::Length { what: "a result", shape: [rows, width], expected, found: y.len() });
    }
    let y = SendPtr(y.as_mut_ptr());
    threads::for_each(pieces * rows.div_ceil(TALL), |index| {
        let (first, piece) = (index / pieces * TALL, index % pieces);
        let at = all.partition_point(|(_, _, before, _)| *before <= piece) - 1;
        let (weight, column, before, panels) = all[at];
        let panel = (piece - before) * panels;
        let out = (panels * ROWS).min(weight.shape()[0] - panel * ROWS);
        let (bytes, size) = weight.panels(panel);
        let piece = Piece {
            format: weight.format(),
            panels: &bytes[..out.div_ceil(ROWS) * size],
            panel: size,
            x,
            first,
            rows: TALL.min(rows - first),
            out,
            // SAFETY: row `first` and the weight's row `panel × ROWS` have a place in y.
            y: unsafe { y.get().add(first * width + column + panel * ROWS) },
            stride: width,
        };
        // SAFETY: the set was found on this processor; the weight's panels are of its format and of as many blocks as a row of x has;
        // each piece has its own rows and columns of y, which all exist.
        unsafe { piece.run(isa) };
    });
    Ok(())
}
