//! What a run measures, kept as lines of JSON and as TensorBoard events.

mod log;
mod tensorboard;

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

pub use log::{MetricsLog, read_metrics};
pub use tensorboard::EventFile;

/// Both logs of a run.
pub struct Metrics {
    log: MetricsLog,
    events: EventFile,
}

impl Metrics {
    /// Opens the logs of a run that has done `step` updates: what was logged after that step is forgotten, since it will happen again.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        Ok(Metrics {
            log: MetricsLog::open(&run.join("metrics.jsonl"), step)?,
            events: EventFile::create(&run.join("tensorboard"), step)?,
        })
    }

    /// Logs one row. Numbers also become TensorBoard scalars named `group/key`.
    pub fn row(&mut self, group: &str, step: u64, values: Map<String, Value>) -> Result<()> {
        let scalars: Vec<(String, f32)> =
            values.iter().filter_map(|(key, value)| Some((format!("{group}/{key}"), value.as_f64()? as f32))).collect();
        self.log.row(group, step, values)?;
        self.events.scalars(step, &scalars)
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush()?;
        self.events.flush()
    }
}
