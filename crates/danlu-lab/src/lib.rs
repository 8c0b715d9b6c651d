//! Plans: what a run will need and take, said before its first step and compared with what was measured after its last.
//!
//! The numbers come from the resolved recipe ([`danlu_train::auto::Plan`]), the machine's measured rate of matrix products, and the
//! share of that rate that runs on this machine have reached.

mod compare;
mod machine;
mod memory;
mod predict;

pub use compare::{Measured, compare};
pub use machine::{Machine, calibrate};
pub use memory::{Memory, memory};
pub use predict::{Prediction, Prices, predict, refusal};
