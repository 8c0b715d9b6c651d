use std::path::Path;

use anyhow::{Context, Result};
use danlu_train::Outline;
use serde::{Deserialize, Serialize};
use sysinfo::System;

const FILE: &str = "machine.json";
const LIMIT: u64 = 1 << 20;
/// Runs that are remembered.
const KEEP: usize = 64;
/// A run says something about models up to this many times its size either way.
const ALIKE: f64 = 3.0;

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

/// What a run reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reached {
    run: String,
    parameters: u64,
    efficiency: f64,
    #[serde(default = "cpu")]
    device: String,
    /// Whether it learned word vectors, whose small products say nothing about other models and the other way round.
    #[serde(default)]
    words: bool,
}

fn is_words(model: &Outline) -> bool {
    model.model_type == "word2vec"
}

fn cpu() -> String {
    "cpu".into()
}

impl Machine {
    /// This machine, for a model of this outline, with what earlier runs of models of about its size reached. Measures the rate of
    /// matrix products once, in well under a second.
    pub fn here(home: &Path, model: &Outline) -> Self {
        let size = model.parameters;
        let distance = |reached: &Reached| (reached.parameters.max(1) as f64 / size as f64).ln().abs();
        let device = danlu_ops::device_name();
        // The last of those equally near: it is the newest.
        let nearest = reached(home)
            .into_iter()
            .filter(|r| r.device == device && r.words == is_words(model) && distance(r) <= ALIKE.ln())
            .rev()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let (efficiency, measured_in) = nearest.map_or((assumed(model), None), |r| (r.efficiency, Some(r.run)));
        Self {
            threads: danlu_ops::threads(),
            gemm_rate: danlu_ops::gemm_rate(),
            efficiency,
            measured_in,
            // What a graphics card has left, its driver does not tell Burn.
            available: if device == cpu() { available_memory() } else { None },
        }
    }
}

/// Before any run has said better: narrow products are bound by memory, wide ones come near the measured rate.
fn assumed(model: &Outline) -> f64 {
    if is_words(model) {
        return danlu_train::auto::WORDS_EFFICIENCY;
    }
    let width = model.hidden as f64;
    0.75 * width / (width + 100.0)
}

fn reached(home: &Path) -> Vec<Reached> {
    let text = danlu_files::read_text_bounded(&home.join(FILE), LIMIT).unwrap_or_default();
    // A damaged file costs a better guess, nothing else.
    let all: Vec<Reached> = serde_json::from_str(&text).unwrap_or_default();
    all.into_iter().filter(|r| believable(r.efficiency)).collect()
}

fn believable(efficiency: f64) -> bool {
    (0.001..=1.5).contains(&efficiency)
}

/// Keeps what share of the machine's rate of matrix products a finished run reached, for the next plan.
///
/// # Errors
/// The file system's.
pub fn calibrate(home: &Path, run: &str, model: &Outline, efficiency: f64) -> Result<()> {
    if !believable(efficiency) {
        return Ok(());
    }
    let mut all = reached(home);
    all.retain(|r| r.run != run);
    let (parameters, words) = (model.parameters, is_words(model));
    all.push(Reached { run: run.to_string(), parameters, efficiency, device: danlu_ops::device_name(), words });
    let newest = &all[all.len().saturating_sub(KEEP)..];
    danlu_files::write_atomic_bytes(&home.join(FILE), serde_json::to_string_pretty(newest)?.as_bytes())
        .context("the machine's calibration was not kept")
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
    use danlu_models::DecoderConfig;

    use super::*;

    #[test]
    fn the_nearest_run_is_believed_and_damage_is_not() {
        let home = tempfile::tempdir().unwrap();
        let outline = |hidden| Outline::from(&DecoderConfig::Llama(danlu_models::LlamaConfig::new(1000, hidden, 4, 32, 64)));
        let check = |hidden: usize, run: Option<&str>| {
            let machine = Machine::here(home.path(), &outline(hidden));
            assert_eq!(machine.measured_in.as_deref(), run, "{machine:?}");
            assert!((0.01..1.0).contains(&machine.efficiency));
        };
        check(64, None);
        for (run, hidden, efficiency) in [("small", 64, 0.2), ("large", 256, 0.6), ("broken", 64, f64::NAN)] {
            calibrate(home.path(), run, &outline(hidden), efficiency).unwrap();
        }
        check(64, Some("small"));
        check(256, Some("large"));
        check(2048, None);
        let words = Outline { model_type: "word2vec".into(), ..outline(64) };
        assert_eq!(Machine::here(home.path(), &words).measured_in, None);
        calibrate(home.path(), "words", &words, 0.1).unwrap();
        assert_eq!(Machine::here(home.path(), &words).measured_in.as_deref(), Some("words"));
        check(64, Some("small"));
        std::fs::write(home.path().join(FILE), "{").unwrap();
        check(64, None);
    }

    #[test]
    fn there_is_memory() {
        assert!(available_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
