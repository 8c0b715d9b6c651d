//! A regular expression somewhere in the answer.

use anyhow::{Context, Result, ensure};
use danlu_data::prompts::Reference;
use regex::Regex;

use crate::exact::expected;
use crate::{Answer, Reward};

/// Stands for the reference's answer in a pattern.
const ANSWER: &str = "{answer}";

pub struct Pattern {
    pattern: String,
    /// Known when no question changes it.
    fixed: Option<Regex>,
}

impl Pattern {
    /// # Errors
    /// When it is no regular expression.
    pub fn new(pattern: &str) -> Result<Self> {
        ensure!(!pattern.is_empty(), "`rewards.regex.pattern` is empty, which every answer matches");
        let probe = compile(&pattern.replace(ANSWER, "0"))?;
        Ok(Self { pattern: pattern.into(), fixed: (!pattern.contains(ANSWER)).then_some(probe) })
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).with_context(|| format!("`rewards.regex.pattern` is {pattern:?}, which is no regular expression"))
}

impl Reward for Pattern {
    fn name(&self) -> &'static str {
        "regex"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        let found = match &self.fixed {
            Some(regex) => regex.is_match(answer.text),
            None => {
                let right = regex::escape(expected(answer.reference)?.trim());
                compile(&self.pattern.replace(ANSWER, &right))?.is_match(answer.text)
            }
        };
        Ok(f64::from(found))
    }

    fn accepts(&self, reference: &Reference) -> Result<()> {
        if self.fixed.is_some() { Ok(()) } else { expected(reference).map(drop) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_where_the_pattern_says() {
        let reference = Reference { answer: Some("3.5".into()), ..Reference::default() };
        let check = |pattern: &str, text: &str, want: f64| {
            let found = Pattern::new(pattern).unwrap().score(&Answer { text, tokens: 1, ended: true, reference: &reference });
            assert_eq!(found.unwrap(), want, "{pattern} in {text:?}");
        };
        check("#### {answer}$", "so\n#### 3.5", 1.0);
        check("#### {answer}$", "#### 3x5", 0.0);
        check("#### {answer}$", "#### 3.5 or 4", 0.0);
        check("{answer}", "1 2 3.5 4", 1.0);
        check(r"\d+", "none", 0.0);
        assert!(format!("{:#}", Pattern::new("(").err().unwrap()).contains("no regular expression"));
        assert!(Pattern::new("{answer}").unwrap().accepts(&Reference::default()).is_err());
        assert!(Pattern::new("a").unwrap().accepts(&Reference::default()).is_ok());
    }
}
