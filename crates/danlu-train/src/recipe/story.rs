//! `[story]`: what a milestone of the field was, for people. Nothing of a run depends on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recipe retells, for `danlu train --list`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorySpec {
    /// When it was published.
    #[schemars(range(min = 1940, max = 2100))]
    pub year: Option<u32>,
    /// What was new, in a few words.
    pub new: String,
    /// Parameters of the recipe's model: "62 k".
    pub parameters: String,
    /// Minutes on two cores.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub minutes: Option<f64>,
    /// The number to expect at its end.
    pub expect: String,
}
