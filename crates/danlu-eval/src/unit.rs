use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What is measured, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// As in logs and lineage: `bits_per_byte`.
    pub name: &'static str,
    /// As people read it: "bits per byte".
    pub label: &'static str,
    pub better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

/// Bits a language model needs to say which byte comes next.
pub const BITS_PER_BYTE: Unit = Unit { name: "bits_per_byte", label: "bits per byte", better: Better::Lower };

/// Bits a model needs to say which byte of an answer comes next.
pub const ANSWER_BITS_PER_BYTE: Unit =
    Unit { name: "answer_bits_per_byte", label: "bits per byte of answers", better: Better::Lower };

/// A measured value with its 95 % interval, and what it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    #[serde(serialize_with = "name")]
    pub unit: Unit,
    pub value: f64,
    /// Not a number where the measure has no interval.
    pub low: f64,
    pub high: f64,
    /// Documents, examples, pairs, prompts: what was sampled independently.
    pub items: u64,
    pub tokens: u64,
    /// Of text; zero where bytes say nothing.
    pub bytes: u64,
    pub seconds: f64,
    /// Further numbers of the same measurement, under their names.
    pub others: Vec<(&'static str, f64)>,
}

fn name<S: serde::Serializer>(unit: &Unit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(unit.name)
}

/// How much to measure. Measuring stops after the batch that reaches a limit, with whole documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    pub tokens: Option<u64>,
    pub bytes: Option<u64>,
    pub time: Option<Duration>,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.4} {} (", self.value, self.unit.label)?;
        // A distance between two sets has none.
        if self.low.is_finite() && self.high.is_finite() {
            write!(f, "95 % interval {:.4} to {:.4}; ", self.low, self.high)?;
        }
        write!(f, "{} items", self.items)?;
        if self.bytes > 0 {
            write!(f, ", {} bytes", self.bytes)?;
        }
        write!(f, ", {} tokens, {:.1} s)", self.tokens, self.seconds)?;
        self.others.iter().try_for_each(|(name, value)| write!(f, "; {} {value:.4}", name.replace('_', " ")))
    }
}
