//! Many requests at once, as they come: continuous batching (Yu et al., "Orca", 2022) on paged keys and values (Kwon et al., 2023).
//!
//! [`Engine`] is a thread that owns a [`Scheduler`]; a [`Request`] goes in, and its [`Event`]s come out at its [`Sink`]. What a request gets
//! depends on the weights, the request and its seed, never on what else is running or what has been read before, to the bit.

mod engine;
mod log_probs;
mod prefixes;
mod request;
mod scheduler;
mod writing;

pub use engine::{Engine, Refused, Stats};
pub use log_probs::LogProbs;
pub use request::{Event, Request, Sink};
pub(crate) use scheduler::tail;
pub use scheduler::{Options, Scheduler};
