//! Where the time of a step goes: counters by part, which cost one relaxed load each while they are off.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Matrix products.
    Gemm,
    /// Products of adapters, and weights put together from them or from 4-bit codes.
    Adapter,
    /// Attention with rope.
    Attention,
    /// Normalizations.
    Norm,
    /// Activations of the MLP.
    Activation,
    /// Cross-entropy without its products.
    Loss,
    /// Embedding and its gradient.
    Embedding,
    /// Optimizer steps without their products.
    Optimizer,
}

impl Part {
    /// All parts, in the order of a report.
    pub const ALL: [Part; 8] =
        [Part::Gemm, Part::Adapter, Part::Attention, Part::Norm, Part::Activation, Part::Loss, Part::Embedding, Part::Optimizer];
}

static ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; Part::ALL.len()] = [const { AtomicU64::new(0) }; Part::ALL.len()];

/// Turns the counters on or off.
pub fn enable(on: bool) {
    ON.store(on, Relaxed);
}

/// Reads the counters and sets them to zero.
pub fn take() -> Vec<(Part, Duration)> {
    Part::ALL.into_iter().map(|part| (part, Duration::from_nanos(NANOSECONDS[part as usize].swap(0, Relaxed)))).collect()
}

/// Runs `work` on account of `part`. Parts must not be nested, or time is counted twice.
pub(crate) fn time<R>(part: Part, work: impl FnOnce() -> R) -> R {
    if !ON.load(Relaxed) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    NANOSECONDS[part as usize].fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    result
}
