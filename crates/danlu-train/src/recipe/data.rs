//! `[data]`: what the model reads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// Names of the catalogue or of corpora already added, files, folders and globs.
    pub sources: Vec<String>,
    /// How often each source's documents are seen, relative to the others'. Empty: all alike.
    pub weights: Vec<f64>,
    /// Sources with sizes n have shares of the rows like n^(1/temperature), times their weights (Raffel 2020): 1 is by size, larger is more even.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub temperature: f64,
    /// What the model knew before, read again among the sources so that it does not forget it; never measured on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replay: Vec<String>,
    /// The share of the rows that are of `replay`.
    #[schemars(range(min = 0.001, max = 0.9))]
    pub replay_share: f64,
    /// The day that chat templates are told, such as "2026-11-24". Automatic: the day the run begins, where a template asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The share of documents kept out of training to measure with, chosen by their hash.
    #[schemars(range(min = 0.0005, max = 0.5))]
    pub held_out: f64,
}

impl Default for DataSpec {
    fn default() -> Self {
        DataSpec {
            sources: vec!["wiki-leads".into()],
            weights: vec![],
            temperature: 1.0,
            replay: vec![],
            replay_share: 0.1,
            date: None,
            held_out: 0.02,
        }
    }
}

impl DataSpec {
    /// The share of the rows that each source has, then each that is read again, by their sizes in tokens; the sum is 1.
    pub fn shares(&self, sources: &[u64], replay: &[u64]) -> Vec<f64> {
        let size = |i: usize, tokens: u64| {
            (tokens.max(1) as f64).powf(1.0 / self.temperature) * self.weights.get(i).copied().unwrap_or(1.0)
        };
        let of_sources: Vec<f64> = sources.iter().enumerate().map(|(i, &tokens)| size(i, tokens)).collect();
        let of_replay: Vec<f64> = replay.iter().map(|&tokens| tokens.max(1) as f64).collect();
        let again = if replay.is_empty() { 0.0 } else { self.replay_share };
        let scaled = |sizes: Vec<f64>, share: f64| {
            let sum: f64 = sizes.iter().sum();
            sizes.into_iter().map(move |size| share * size / sum)
        };
        scaled(of_sources, 1.0 - again).chain(scaled(of_replay, again)).collect()
    }

    /// Whether sources are mixed in other shares than their sizes.
    pub fn is_mixed(&self) -> bool {
        !self.weights.is_empty() || self.temperature != 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_size_weight_temperature_and_replay() {
        let check = |data: &DataSpec, replay: &[u64], expected: &[f64]| {
            let shares = data.shares(&[100, 300], replay);
            assert!(
                shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12) && shares.len() == expected.len(),
                "{shares:?}"
            );
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        };
        let plain = DataSpec::default();
        check(&plain, &[], &[0.25, 0.75]);
        check(&plain, &[7], &[0.225, 0.675, 0.1]);
        check(&DataSpec { weights: vec![3.0, 1.0], ..plain.clone() }, &[], &[0.5, 0.5]);
        check(&DataSpec { replay_share: 0.5, ..plain.clone() }, &[10, 30], &[0.125, 0.375, 0.125, 0.375]);
        let even = DataSpec { temperature: 1000.0, ..plain };
        assert!((even.shares(&[100, 300], &[])[0] - 0.5).abs() < 1e-3);
    }
}
