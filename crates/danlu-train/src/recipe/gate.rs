//! `[gate]`: what a model must be better at than the one it was made from, and what it must not lose.

use anyhow::Result;
use danlu_eval::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The evaluation sets of a line of models, and the gate before a new one becomes what its name means. A set is a source, of which the
/// held-out part is measured, or a source and a measure: "office-qa:rouge-l". Measures are bits-per-byte (of texts), answer-bits-per-byte (of
/// conversations), preference-accuracy (of pairs of answers) and, of answers that the model writes, exact-match, token-f1, rouge-l and chrf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GateSpec {
    /// What the model is made for: it must be better here by more than the 95 % interval of the difference.
    pub target: Vec<String>,
    /// What it must not lose.
    pub general: Vec<String>,
    /// What is measured and recorded, and decides nothing.
    pub also: Vec<String>,
    /// The share of the parent's value that a general set may lose, at the worse end of the difference's interval.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tolerance: f64,
    /// Items of a set that are measured, taken evenly from it.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub items: usize,
    /// The most tokens of an answer that the model writes.
    #[schemars(range(min = 1, max = 100_000))]
    pub answer_tokens: usize,
}

impl Default for GateSpec {
    fn default() -> Self {
        GateSpec { target: vec![], general: vec![], also: vec![], tolerance: 0.03, items: 100, answer_tokens: 128 }
    }
}

impl GateSpec {
    /// The source of a set and its measure: "office-qa:rouge-l" is office-qa by rouge-l. Without a measure it is by the kind of the source.
    ///
    /// # Errors
    /// When what follows the colon is no measure.
    pub fn split(set: &str) -> Result<(&str, Option<Metric>)> {
        match set.rsplit_once(':') {
            // A path may have colons too.
            Some((source, metric)) if !metric.contains(['/', '\\', '.']) => Ok((source, Some(metric.parse()?))),
            _ => Ok((set, None)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.target.is_empty() && self.general.is_empty() && self.also.is_empty()
    }
}
