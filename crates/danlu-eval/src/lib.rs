//! Measures of a model, with confidence intervals.
//!
//! The measure of a language model is bits per byte of held-out text: how many bits the model needs to say which byte comes next. It can
//! be compared between models with different tokenizers, which perplexity cannot. It is given with a 95 % interval from a bootstrap over
//! documents, since documents, not tokens, are what was sampled independently. What a model answers is compared with what was expected, by
//! measures that have public definitions. Two models are compared on the same items, by the interval of their difference.

mod analogies;
pub mod answers;
mod bootstrap;
mod calibration;
mod choices;
mod drawn;
mod labels;
mod measure;
mod preferred;
mod scores;
mod sets;
mod unit;
pub mod vision;
mod windows;

pub use analogies::{Analogies, AnalogyScore};
pub use bootstrap::{interval, interval_of_sums, paired_interval, ratio};
pub use calibration::{brier, calibration_error};
pub use choices::{Likelihood, Question, calibrated, likelihoods};
pub use drawn::{Coverage, Features};
pub use labels::{Confusion, correlation};
pub use measure::{Document, bits_per_byte, document_bits, measure};
pub use scores::{Change, Scores};
pub use sets::{EvalSet, Items, Metric, Subject, answer_bits};
pub use unit::{ANSWER_BITS_PER_BYTE, BITS_PER_BYTE, Better, Limits, Measure, Unit};
