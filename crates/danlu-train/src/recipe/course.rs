//! `[batch]`, `[budget]`, `[checkpoint]`, `[eval]` and `[sample]`: how long a run is, and what happens on the way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many tokens an update sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSpec {
    /// Tokens of one update of the weights, rounded to whole rows. Automatic: grows with the length of the run.
    #[schemars(range(min = 8, max = 1_000_000_000))]
    pub tokens: Option<usize>,
    /// Examples of one update, where rows are examples (pairs, answers in reinforcement learning, labelled texts). Automatic: by the
    /// objective.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub examples: Option<usize>,
    /// Tokens that go through the model at once, or pictures; an update is split into pieces of this size, with the same result.
    /// Automatic: by the size of the model.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub micro_tokens: Option<usize>,
    /// Compute activations again in the backward pass instead of keeping them: a third more work, far less memory.
    pub recompute: bool,
}

/// How long to train: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Minutes of the clock, evaluations included.
    #[schemars(range(min = 0.01, max = 5_256_000.0))]
    pub minutes: Option<f64>,
    /// Tokens, repeated ones included.
    #[schemars(range(min = 1, max = 1_000_000_000_000_000_u64))]
    pub tokens: Option<u64>,
    /// Times that the data is seen.
    #[schemars(range(min = 0.001, max = 1e6))]
    pub epochs: Option<f64>,
    /// Updates of the weights.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub steps: Option<u64>,
    /// Floating-point operations, forward and backward.
    #[schemars(range(min = 1.0, max = 1e30))]
    pub flops: Option<f64>,
}

impl Budget {
    /// The keys that are given, for errors and for views.
    pub fn given(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("minutes", self.minutes),
            ("tokens", self.tokens.map(|n| n as f64)),
            ("epochs", self.epochs),
            ("steps", self.steps.map(|n| n as f64)),
            ("flops", self.flops),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// When to save and what to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Steps between checkpoints. Automatic: by `minutes`.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// Minutes between checkpoints, when `every` is not given.
    #[schemars(range(min = 0.01, max = 100_000.0))]
    pub minutes: f64,
    /// How many of the newest are kept.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep: usize,
    /// A checkpoint at a multiple of this many steps is kept for good.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub keep_every: Option<u64>,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        CheckpointSpec { every: None, minutes: 1.0, keep: 3, keep_every: None }
    }
}

/// When and how to measure on held-out text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSpec {
    /// Steps between measurements. Automatic: about `share` of the time.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// The share of the run's time that measuring may take, when `every` is not given.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub share: f64,
    /// What is measured: "bits-per-byte".
    pub tasks: Vec<String>,
    /// Held-out tokens of one measurement during the run; the last one, at the end, uses `final_tokens`.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub tokens: u64,
    /// Held-out tokens of the measurement at the end.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub final_tokens: u64,
}

impl Default for EvalSpec {
    fn default() -> Self {
        EvalSpec { every: None, share: 0.04, tasks: vec!["bits-per-byte".into()], tokens: 16_384, final_tokens: 262_144 }
    }
}

/// Text written by the model during and after the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SampleSpec {
    /// Steps between samples; 0 for none but the last. Automatic: with every second measurement.
    #[schemars(range(max = 1_000_000_000_000_u64))]
    pub every: Option<u64>,
    /// The prompts. Empty: the first words of held-out documents.
    pub prompts: Vec<String>,
    /// Tokens to write after each prompt.
    #[schemars(range(min = 1, max = 100_000))]
    pub tokens: usize,
    /// Randomness: 0 takes the likeliest token, 1 the model's own distribution.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability are drawn from (Holtzman 2019).
    #[schemars(range(min = 0.01, max = 1.0))]
    pub top_p: f64,
}

impl Default for SampleSpec {
    fn default() -> Self {
        SampleSpec { every: None, prompts: vec![], tokens: 64, temperature: 0.8, top_p: 0.95 }
    }
}
