//! `state.json`: where a run is, in numbers that people can read.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The version of the checkpoint format.
const VERSION: u32 = 1;

/// Where a run is after `step` updates. With the tensors, the recipe and the data it decides everything that follows: the order of
/// the data and all random numbers are functions of the recipe's seed and of the counts here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub version: u32,
    /// Updates done.
    pub step: u64,
    /// Rows consumed: the sampler's position.
    pub position: u64,
    /// Tokens that carried loss.
    pub tokens: u64,
    /// Seconds spent, over all sessions, measuring and saving included.
    pub elapsed: f64,
    /// Seconds of those spent in update steps alone.
    pub stepping: f64,
    /// Seconds of those in which the next update could not begin, because its data were not there yet.
    #[serde(default)]
    pub waiting: f64,
    /// The length of the run as planned when it began; warm-up follows from it.
    pub planned: u64,
    /// The length of the run as last estimated; once `frozen` it is final.
    pub total: u64,
    pub frozen: bool,
    /// The running robust centre and spread of the loss that tell a spike from noise.
    pub loss_centre: f64,
    pub loss_spread: f64,
    /// What the objective has learned beside the weights ([`crate::Objective::state`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objective: Vec<f64>,
    /// Checked on resume: a run goes on only with the recipe and data it began with.
    pub recipe: String,
    pub data: String,
    /// The program that wrote this.
    pub code: String,
    pub files: BTreeMap<String, FileHash>,
}

/// What a file beside `state.json` must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileHash {
    pub bytes: u64,
    pub blake3: String,
}

impl Default for State {
    fn default() -> Self {
        State {
            version: VERSION,
            step: 0,
            position: 0,
            tokens: 0,
            elapsed: 0.0,
            stepping: 0.0,
            waiting: 0.0,
            planned: 0,
            total: 0,
            frozen: false,
            loss_centre: 0.0,
            loss_spread: 0.0,
            objective: vec![],
            recipe: String::new(),
            data: String::new(),
            code: concat!("danlu ", env!("CARGO_PKG_VERSION")).into(),
            files: BTreeMap::new(),
        }
    }
}

impl State {
    /// As text with one key per line, and its checksum, so that a changed digit is noticed too.
    pub(super) fn to_json(&self) -> Result<(String, String)> {
        let text = serde_json::to_string_pretty(self)?;
        let hash = danlu_files::hash_bytes(text.as_bytes());
        Ok((text, hash))
    }

    pub(super) fn from_json(text: &str, hash: &str) -> Result<State> {
        ensure!(
            danlu_files::hash_bytes(text.as_bytes()) == hash.trim(),
            "its checksum differs: it has changed since it was written"
        );
        let state: State = serde_json::from_str(text)?;
        ensure!(state.version == VERSION, "it has format {}, this program reads {VERSION}", state.version);
        Ok(state)
    }
}
