//! Weights in blocks of a few bits, and products with them in integers.
//!
//! A weight is a matrix `[out, in]` whose rows are cut into blocks of 32 or 256 values: a few scales for each block, and a few bits for
//! each value. The layouts are those of [ggml](https://github.com/ggml-org/ggml), so that GGUF files need no conversion
//! ([`Format`], [`quantize`], [`dequantize`]).
//!
//! To compute with a weight, [`Weights`] lays eight of its rows side by side, and [`Activations`] brings the other factor to eight bits, with
//! a scale for each 32 values. [`products`] then multiplies bytes and adds integers, which are exact, and only the sum of each block becomes a
//! float. So every instruction set gives the same bits, whatever the number of threads, and a row of the result does not depend on
//! the rows beside it.
//!
//! [`threads`] is the one pool of threads of all kernels, here and above.

mod activations;
mod dequantize;
mod error;
mod format;
mod isa;
mod kernel;
mod layout;
mod memory;
mod products;
mod quantize;
mod quantize_k;
mod simd;
#[cfg(test)]
mod tests;
pub mod threads;
mod weights;

pub use activations::Activations;
pub use dequantize::dequantize;
pub use error::Error;
pub use format::Format;
pub use isa::Isa;
pub use products::{products, products_with};
pub use quantize::quantize;
pub use weights::Weights;
