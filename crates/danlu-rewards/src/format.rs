//! The form of the whole answer.

use anyhow::{Context, Result};
use regex::Regex;

use crate::{Answer, Reward};

pub struct Format {
    whole: Regex,
}

impl Format {
    /// # Errors
    /// When it is no regular expression.
    pub fn new(pattern: &str) -> Result<Self> {
        let whole = Regex::new(&format!(r"\A(?s:{pattern})\z"))
            .with_context(|| format!("`rewards.format.pattern` is {pattern:?}, which is no regular expression"))?;
        Ok(Self { whole })
    }
}

impl Reward for Format {
    fn name(&self) -> &'static str {
        "format"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        Ok(f64::from(self.whole.is_match(answer.text.trim())))
    }
}

#[cfg(test)]
mod tests {
    use danlu_data::prompts::Reference;

    use super::*;

    #[test]
    fn the_whole_answer_has_the_form() {
        let format = Format::new(r"<think>.*</think>\s*\d+").unwrap();
        let reference = Reference::default();
        let check = |text: &str, want: f64| {
            assert_eq!(format.score(&Answer { text, tokens: 1, ended: true, reference: &reference }).unwrap(), want, "{text:?}");
        };
        check("<think>a\nb</think>\n12", 1.0);
        check("well <think>a</think>12", 0.0);
        check("<think>a</think>12 or so", 0.0);
        // An alternative stays inside its anchors.
        let either = Format::new("a|b").unwrap();
        assert_eq!(either.score(&Answer { text: "xb", tokens: 1, ended: true, reference: &reference }).unwrap(), 0.0);
        assert!(Format::new("(").is_err());
    }
}
