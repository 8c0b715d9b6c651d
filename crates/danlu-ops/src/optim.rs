//! Optimizer steps on plain tensors, each one pass over memory on the CPU.
//!
//! Weights, gradients and moments are tensors without autodiff. On the CPU a step changes them in place when nothing else
//! holds them, so pass them by value and keep no clone.

mod adamw;
mod int8;
mod muon;
mod norm;

pub use adamw::{AdamW, adamw_step};
pub use int8::{INT8_BLOCK, Int8Moment, adamw_int8_step, has_int8_moments};
pub use muon::{Muon, muon_step};
pub use norm::{global_norm, square_sum};

#[cfg(test)]
mod tests;
