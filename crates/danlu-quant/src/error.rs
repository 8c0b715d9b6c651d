//! What can be wrong with the sizes that come from outside.

use std::fmt;

use crate::Format;

/// Why a weight or a product is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There are no integer products for this format.
    NoProducts(Format),
    /// The blocks of the format do not divide the rows.
    Columns { format: Format, columns: usize },
    /// A slice has another length than its shape.
    Length { what: &'static str, shape: [usize; 2], expected: Option<usize>, found: usize },
    /// A weight is for inputs of another width.
    Width { weight: [usize; 2], columns: usize },
    /// A row that is not there.
    Row { row: usize, rows: usize },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProducts(format) => {
                write!(f, "there are no products in integers with {}: dequantize the weight and use floats", format.name())
            }
            Self::Columns { format, columns } => {
                write!(f, "rows of {columns} values are no whole blocks of {} ({} values each)", format.name(), format.block())
            }
            Self::Length { what, shape: [rows, columns], expected: Some(expected), found } => {
                write!(f, "{what} of the shape {rows}×{columns} has a length of {expected}, not {found}")
            }
            Self::Length { what, shape: [rows, columns], expected: None, .. } => {
                write!(f, "{what} of the shape {rows}×{columns} is larger than memory can be")
            }
            Self::Width { weight: [out, inp], columns } => {
                write!(f, "a weight is {out}×{inp}, but the input has {columns} channels")
            }
            Self::Row { row, rows } => write!(f, "there is no row {row} in a weight of {rows} rows"),
        }
    }
}

impl std::error::Error for Error {}
