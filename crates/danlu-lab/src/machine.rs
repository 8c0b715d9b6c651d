use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sysinfo::System;

/// What a step reaches of the rate of matrix products before any run on this machine has said better.
const EFFICIENCY: f64 = 0.7;
const FILE: &str = "machine.json";

/// The machine a run is planned for.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub threads: usize,
    /// FLOP/s of matrix products.
    pub gemm_rate: f64,
    /// The share of `gemm_rate` that a training step reaches.
    pub efficiency: f64,
    /// The run that `efficiency` was measured in.
    pub measured_in: Option<String>,
    /// Bytes that can be allocated now, without swapping and within the container's limit; none where the system does not tell.
    pub available: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Calibration {
    efficiency: f64,
    run: String,
}

impl Machine {
    /// This machine, with the calibration that earlier runs left in `home`. Measures the rate of matrix products once, in well under a
    /// second.
    pub fn here(home: &Path) -> Self {
        let calibration = danlu_files::read_text_bounded(&home.join(FILE), 1 << 16)
            .ok()
            .and_then(|text| serde_json::from_str::<Calibration>(&text).ok())
            .filter(|c| (0.01..=1.5).contains(&c.efficiency));
        let (efficiency, measured_in) = calibration.map_or((EFFICIENCY, None), |c| (c.efficiency, Some(c.run)));
        let available = available_memory();
        Self { threads: danlu_ops::threads(), gemm_rate: danlu_ops::gemm_rate(), efficiency, measured_in, available }
    }
}

/// Keeps what share of the machine's rate of matrix products a finished run reached, for the next plan.
///
/// # Errors
/// The file system's.
pub fn calibrate(home: &Path, run: &str, efficiency: f64) -> Result<()> {
    if !efficiency.is_finite() || efficiency <= 0.0 {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&Calibration { efficiency, run: run.to_string() })?;
    danlu_files::write_atomic_bytes(&home.join(FILE), text.as_bytes()).context("the machine's calibration was not kept")
}

fn available_memory() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    let limit = system.cgroup_limits().map(|limits| limits.free_memory);
    Some(limit.map_or(free, |limit| free.min(limit))).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory() {
        assert!(available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
