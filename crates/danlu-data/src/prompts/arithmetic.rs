//! Sums as questions, made when they are asked for: the same ones everywhere, in five levels of difficulty.

use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The most difficult level.
pub const LEVELS: u8 = 5;
/// Questions of a level; the first has not so many different ones.
const COUNT: usize = 10_000;
const EASIEST: usize = 1_500;

/// The questions of a level from 1 to [`LEVELS`], all different, each with its answer:
///
/// 1. a number up to 99 plus or minus a digit;
/// 2. two numbers up to 99, added or subtracted;
/// 3. numbers up to 999 added or subtracted, and numbers up to 99 times a digit;
/// 4. three numbers, where a product comes before a sum;
/// 5. brackets, divisions without remainder, and sums of products.
pub fn questions(level: u8) -> Vec<(String, i64)> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(level));
    let count = if level <= 1 { EASIEST } else { COUNT };
    let (mut seen, mut found) = (HashSet::new(), Vec::with_capacity(count));
    while found.len() < count {
        let (question, answer) = draw(level, &mut rng);
        if seen.insert(question.clone()) {
            found.push((question, answer));
        }
    }
    found
}

fn draw(level: u8, rng: &mut ChaCha8Rng) -> (String, i64) {
    let mut to = |most: i64| rng.random_range(0..=most);
    let form = to(2);
    match level {
        0 | 1 => sum(to(99), to(9), form == 0),
        2 => sum(to(99), to(99), form == 0),
        3 if form == 2 => {
            let (a, b) = (to(99), to(9));
            (format!("{a}*{b}="), a * b)
        }
        3 => sum(to(999), to(999), form == 0),
        4 => {
            let (a, b, c) = (to(99), to(20), to(9));
            match form {
                0 => (format!("{a}+{b}*{c}="), a + b * c),
                1 => (format!("{b}*{c}-{a}="), b * c - a),
                _ => (format!("{a}-{b}+{c}="), a - b + c),
            }
        }
        _ => {
            let (a, b, c, d) = (to(50), to(50), to(9), to(9));
            match form {
                0 => (format!("({a}+{b})*{c}="), (a + b) * c),
                1 => (format!("({}-{b})/{}=", a * (c + 1) + b, c + 1), a),
                _ => (format!("{a}*{c}+{b}*{d}="), a * c + b * d),
            }
        }
    }
}

fn sum(a: i64, b: i64, minus: bool) -> (String, i64) {
    if minus { (format!("{a}-{b}="), a - b) } else { (format!("{a}+{b}="), a + b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value of a sum, by precedence, as a second opinion.
    fn value(text: &str) -> f64 {
        let text = text.trim();
        let at = |operators: [char; 2]| {
            let mut depth = 0;
            text.char_indices()
                .rev()
                .find(|(i, c)| {
                    depth += i32::from(*c == ')') - i32::from(*c == '(');
                    depth == 0 && *i > 0 && operators.contains(c)
                })
                .map(|(i, c)| (value(&text[..i]), c, value(&text[i + 1..])))
        };
        match at(['+', '-']).or_else(|| at(['*', '/'])) {
            Some((a, '+', b)) => a + b,
            Some((a, '-', b)) => a - b,
            Some((a, '*', b)) => a * b,
            Some((a, _, b)) => a / b,
            None => text.strip_prefix('(').map_or_else(|| text.parse().unwrap(), |inner| value(&inner[..inner.len() - 1])),
        }
    }

    #[test]
    fn answers_are_right_and_questions_different() {
        for level in 1..=LEVELS {
            let all = questions(level);
            assert!(all.len() >= EASIEST);
            for (question, answer) in &all {
                assert_eq!(value(question.strip_suffix('=').unwrap()), *answer as f64, "{question}");
            }
            let different: HashSet<&String> = all.iter().map(|(question, _)| question).collect();
            assert_eq!(different.len(), all.len());
        }
    }
}
