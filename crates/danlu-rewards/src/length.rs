//! Long answers cost.

use anyhow::{Result, ensure};

use crate::{Answer, LengthSpec, Reward};

pub struct Length {
    from: usize,
    to: usize,
}

impl Length {
    /// `most` is the most tokens that an answer can have.
    ///
    /// # Errors
    /// When the penalty would begin after it is complete.
    pub fn new(spec: &LengthSpec, most: usize) -> Result<Self> {
        let to = spec.to.unwrap_or(most);
        let from = spec.from.unwrap_or(to - to / 4);
        ensure!(from <= to, "`rewards.length.from` is {from} and `rewards.length.to` {to}; the first must not be more");
        Ok(Self { from, to })
    }
}

impl Reward for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        if !answer.ended || answer.tokens >= self.to {
            return Ok(-1.0);
        }
        let over = answer.tokens.saturating_sub(self.from) as f64;
        // Not minus zero.
        Ok(0.0 - over / (self.to - self.from).max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use danlu_data::prompts::Reference;

    use super::*;

    #[test]
    fn the_penalty_grows_between_two_lengths() {
        let reference = Reference::default();
        let length = Length::new(&LengthSpec { from: Some(10), ..LengthSpec::default() }, 20).unwrap();
        for (tokens, ended, want) in [(5, true, 0.0), (10, true, 0.0), (15, true, -0.5), (20, true, -1.0), (5, false, -1.0)] {
            assert_eq!(length.score(&Answer { text: "", tokens, ended, reference: &reference }).unwrap(), want, "{tokens}");
        }
        assert!(Length::new(&LengthSpec { from: Some(30), ..LengthSpec::default() }, 20).is_err());
    }
}
