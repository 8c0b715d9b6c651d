//! The last number of an answer, however it is written.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use danlu_data::prompts::Reference;
use regex::Regex;

use crate::exact::expected;
use crate::{Answer, Reward};

pub struct Arithmetic {
    pub tolerance: f64,
}

impl Reward for Arithmetic {
    fn name(&self) -> &'static str {
        "arithmetic"
    }

    fn score(&self, answer: &Answer) -> Result<f64> {
        let right = number_of(answer.reference)?;
        let near = |said: f64| (said - right).abs() <= self.tolerance * right.abs().max(1e-9);
        Ok(f64::from(last_number(answer.text).is_some_and(near)))
    }

    fn accepts(&self, reference: &Reference) -> Result<()> {
        number_of(reference).map(drop)
    }
}

fn number_of(reference: &Reference) -> Result<f64> {
    let text = expected(reference)?;
    last_number(text).with_context(|| format!("the question's `answer` {text:?} has no number"))
}

/// A number with thousands apart or not, a fraction of two of them included. Its sign is looked at by hand: a hyphen after a digit is
/// subtraction, or a range.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let one = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?";
    Regex::new(&format!(r"(-?)({one})(?:\s*/\s*({one}))?")).ok()
});

static FRACTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\\[dt]?frac\s*\{\s*(-?[^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}").ok());

/// The last number in a text.
pub fn last_number(text: &str) -> Option<f64> {
    let plain: String = text.chars().filter_map(plain).collect();
    let plain = FRACTION.as_ref()?.replace_all(&plain, "$1/$2");
    let last = NUMBER.as_ref()?.captures_iter(&plain).last()?;
    let sign = last.get(1)?;
    let operator = plain[..sign.start()].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == ')');
    let value = |digits: &str| digits.replace(',', "").parse::<f64>().ok();
    let magnitude = match (value(last.get(2)?.as_str())?, last.get(3)) {
        (whole, None) => whole,
        (above, Some(below)) => above / value(below.as_str())?,
    };
    let value = if sign.is_empty() || operator { magnitude } else { -magnitude };
    value.is_finite().then_some(value)
}

/// A character as ASCII knows it; nothing for those that only space digits.
fn plain(c: char) -> Option<char> {
    match c {
        '\u{ff10}'..='\u{ff19}' => char::from_digit(c as u32 - 0xff10, 10),
        '−' | '–' | '－' | '﹣' => Some('-'),
        '，' | '٬' => Some(','),
        '．' => Some('.'),
        '／' | '⁄' | '÷' => Some('/'),
        '\u{2009}' | '\u{202f}' | '\u{a0}' => None,
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let check = |text: &str, want: Option<f64>| assert_eq!(last_number(text), want, "{text:?}");
        check("19", Some(19.0));
        check("The answer is **1,234.50**.", Some(1234.5));
        check("12 + 7 = 19\nso 19", Some(19.0));
        check("It is -3.", Some(-3.0));
        check("= −3", Some(-3.0));
        check("10-3", Some(3.0));
        check("f(x)-3", Some(3.0));
        check("about 2.5e3 m", Some(2500.0));
        check("$\\boxed{42}$", Some(42.0));
        check("\\frac{1}{2}", Some(0.5));
        check("-\\dfrac{ 3 }{4}", Some(-0.75));
        check("3/4 of it", Some(0.75));
        check("１２，３４５", Some(12345.0));
        check("12 345\u{202f}678", Some(345678.0));
        check(".5", Some(0.5));
        check("#### 72", Some(72.0));
        check("50%", Some(50.0));
        check("12,34", Some(34.0));
        check("1/0", None);
        check("none", None);
        check("", None);
        check(&"9".repeat(400), None);
    }

    #[test]
    fn only_the_last_number_counts() {
        let reference = Reference { answer: Some("1,000".into()), ..Reference::default() };
        let score = |text| Arithmetic { tolerance: 1e-6 }.score(&Answer { text, tokens: 1, ended: true, reference: &reference });
        assert_eq!(score("1000").unwrap(), 1.0);
        assert_eq!(score("1000 1001").unwrap(), 0.0);
        assert_eq!(score("999 1000.0").unwrap(), 1.0);
        let bad = Reference { answer: Some("many".into()), ..Reference::default() };
        assert!(Arithmetic { tolerance: 0.0 }.accepts(&bad).is_err());
    }
}
