//! The reference's answer, word for word.

use anyhow::{Context, Result};
use danlu_data::prompts::Reference;

use crate::{Answer, ExactSpec, Reward};

pub struct Exact {
    pub spec: ExactSpec,
}

impl Reward for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        let (said, right) = (answer.text.trim(), expected(answer.reference)?.trim());
        let same = if self.spec.case { said == right } else { said.to_lowercase() == right.to_lowercase() };
        Ok(f64::from(same))
    }

    fn accepts(&self, reference: &Reference) -> Result<()> {
        expected(reference).map(drop)
    }
}

/// The reference's answer.
///
/// # Errors
/// When there is none.
pub fn expected(reference: &Reference) -> Result<&str> {
    reference.answer.as_deref().context("the question comes without an `answer`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_at_the_ends_do_not_count_and_case_does_if_wanted() {
        let reference = Reference { answer: Some("Paris ".into()), ..Reference::default() };
        let check = |case, text, want| {
            let rule = Exact { spec: ExactSpec { case, ..ExactSpec::default() } };
            let found = rule.score(&Answer { text, tokens: 1, ended: true, reference: &reference }).unwrap();
            assert_eq!(found, want, "{text:?}");
        };
        check(true, "\nParis", 1.0);
        check(true, "paris", 0.0);
        check(false, "PARIS", 1.0);
        check(false, "Paris, France", 0.0);
        check(true, "", 0.0);
    }
}
