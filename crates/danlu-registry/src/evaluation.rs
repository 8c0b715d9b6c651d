//! What a model came to on the evaluation sets of its line, and whether it passed the gate.

use serde::{Deserialize, Serialize};

use crate::id::ModelId;
use crate::record::Measure;

/// Why a set is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the model is made for.
    Target,
    /// What it must not lose.
    General,
    /// To know; it decides nothing.
    Also,
}

/// A model's measure on one evaluation set, and the change from its parent on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRecord {
    /// As the recipe names it: `office-qa`.
    pub set: String,
    /// `rouge_l`
    pub unit: String,
    /// "ROUGE-L"
    pub label: String,
    pub higher_is_better: bool,
    pub role: Role,
    #[serde(flatten)]
    pub measure: Measure,
    pub items: u64,
    /// BLAKE3 of items and measure; values with the same hash can be compared.
    pub hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeRecord>,
}

/// How a model differs from another, with the 95 % interval of the difference over the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    pub from: ModelId,
    /// What the other came to.
    pub was: f64,
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl SetRecord {
    /// Whether the model is better than its parent here by more than the interval, worse by more than it, or neither.
    pub fn verdict(&self) -> Option<Verdict> {
        let change = self.change.as_ref()?;
        let (worse, better) = if self.higher_is_better { (change.high, change.low) } else { (-change.low, -change.high) };
        Some(match (better > 0.0, worse < 0.0) {
            (true, _) => Verdict::Better,
            (_, true) => Verdict::Worse,
            _ => Verdict::Same,
        })
    }
}

/// A change, told from chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Better,
    /// The interval holds zero.
    Same,
    Worse,
}

/// The decision about a model when it was registered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GateRecord {
    pub passed: bool,
    /// Why it did not pass, a sentence for each set; empty when it passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The share of the parent's value that a general set may lose.
    pub tolerance: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_interval_and_the_direction() {
        let verdict = |higher, low, high| {
            let change = ChangeRecord { from: "a@1".parse().unwrap(), was: 1.0, value: (low + high) / 2.0, low, high };
            let record = SetRecord {
                set: "s".into(),
                unit: "u".into(),
                label: "u".into(),
                higher_is_better: higher,
                role: Role::Target,
                measure: Measure::default(),
                items: 1,
                hash: String::new(),
                change: Some(change),
            };
            record.verdict().unwrap()
        };
        assert_eq!(verdict(true, 0.1, 0.2), Verdict::Better);
        assert_eq!(verdict(false, 0.1, 0.2), Verdict::Worse);
        assert_eq!(verdict(false, -0.2, -0.1), Verdict::Better);
        assert_eq!(verdict(true, -0.2, -0.1), Verdict::Worse);
        assert_eq!(verdict(true, -0.1, 0.1), Verdict::Same);
        assert_eq!(verdict(false, 0.0, 0.1), Verdict::Same);
    }
}
