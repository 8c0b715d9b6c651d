//! What a run tells whoever watches it. Views implement [`Observer`]; the trainer knows none of them.

use std::path::Path;

use danlu_eval::Measure;
use serde::{Serialize, Serializer};

use crate::auto::Plan;
use crate::objectives::{Report, Sample, Shown};

/// Something that happened in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run starts, or goes on after `resumed` steps.
    Begin {
        plan: &'a Plan,
        resumed: Option<u64>,
    },
    /// One training row as the model sees it, before the first step.
    Shown(&'a Shown),
    Step(&'a Step),
    /// A measurement on held-out text; `last` is the one at the end, on more text.
    Measured {
        step: u64,
        elapsed: f64,
        last: bool,
        measure: &'a Measure,
    },
    Sampled {
        step: u64,
        samples: &'a [Sample],
    },
    Saved {
        step: u64,
        folder: &'a Path,
        seconds: f64,
    },
    /// Something a person should read: a damaged checkpoint, a corrected length.
    Note(&'a str),
    End(&'a Summary),
}

/// One update of the weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// From 1.
    pub step: u64,
    /// Of the whole run; an estimate until `total_is_final`.
    pub total: u64,
    pub total_is_final: bool,
    /// Mean over the targets; of a language model, their negative log-likelihood in nats.
    pub loss: f64,
    /// What the objective adds: a reward, an accuracy.
    #[serde(serialize_with = "as_map")]
    pub report: Report,
    /// The schedule's share of the peak rates.
    pub rate_share: f64,
    pub gradient_norm: f64,
    /// Of this step.
    pub seconds: f64,
    /// Seconds before it in which its data were not there yet.
    pub data_wait: f64,
    pub tokens_per_second: f64,
    /// FLOP/s of this step over the measured rate of matrix products.
    pub gemm_share: f64,
    /// Tokens so far.
    pub tokens: u64,
    /// How often the data has been seen.
    pub epoch: f64,
    /// Seconds since the run began, over all sessions.
    pub elapsed: f64,
    /// Seconds to go, as far as one can tell.
    pub left: f64,
    /// Resident memory in bytes; 0 when the system does not say.
    pub memory: u64,
}

fn as_map<S: Serializer>(report: &Report, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(report.iter().copied())
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub step: u64,
    pub total: u64,
    /// False when it was stopped and can go on.
    pub finished: bool,
    pub tokens: u64,
    pub elapsed: f64,
    /// Mean over the run's steps.
    pub tokens_per_second: f64,
    pub gemm_share: f64,
    /// The share of the time of steps in which they waited for their data, from 0 to 1.
    pub data_wait_share: f64,
    /// The most resident memory, in bytes; 0 when the system does not say.
    pub peak_memory: u64,
    /// The last held-out measure.
    pub measure: Option<Measure>,
}

/// Watches a run.
pub trait Observer {
    fn event(&mut self, event: &Event);
}

/// Watches nothing.
impl Observer for () {
    fn event(&mut self, _: &Event) {}
}

impl<F: FnMut(&Event)> Observer for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}
