//! `[translate]`: from which language into which, and how translations are learned and searched for.

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Translation, for the objective `translate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TranslateSpec {
    /// The language that is read, by its code (ISO 639-1), as the data names it.
    pub from: String,
    /// The language that is written. Changing the two with each other trains the other way.
    pub to: String,
    /// The share of a target's probability that is spread over the whole vocabulary (Szegedy 2015); 0 for none.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub smoothing: f64,
    /// Beginnings of each translation that are kept while it is searched for; 1 takes the likeliest token each time.
    #[schemars(range(min = 1, max = 64))]
    pub beam: usize,
    /// How much longer translations are preferred (Wu 2016); 0 for not at all.
    #[schemars(range(min = 0.0, max = 5.0))]
    pub length_penalty: f64,
}

impl Default for TranslateSpec {
    fn default() -> Self {
        TranslateSpec { from: "en".into(), to: "zh".into(), smoothing: 0.1, beam: 4, length_penalty: 0.6 }
    }
}

impl TranslateSpec {
    pub(super) fn validate(&self) -> Result<()> {
        for (key, code) in [("from", &self.from), ("to", &self.to)] {
            ensure!(
                (2..=12).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                "`translate.{key}` is {code:?}; write the language's code, such as \"en\" or \"zh\""
            );
        }
        ensure!(
            self.from != self.to,
            "`translate.from` and `translate.to` are both {:?}; there is nothing to translate",
            self.to
        );
        Ok(())
    }
}
