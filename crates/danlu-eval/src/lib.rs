//! Measures of a model, with confidence intervals.
//!
//! The measure of a language model is bits per byte of held-out text: how many bits the model needs to say which byte comes next. It can
//! be compared between models with different tokenizers, which perplexity cannot. It is given with a 95 % interval from a bootstrap over
//! documents, since documents, not tokens, are what was sampled independently.

mod bootstrap;
mod calibration;
mod labels;
mod measure;
mod unit;
mod windows;

pub use bootstrap::interval;
pub use calibration::{brier, calibration_error};
pub use labels::{Confusion, correlation};
pub use measure::{Document, bits_per_byte, measure};
pub use unit::{BITS_PER_BYTE, Better, Limits, Measure, Unit};
