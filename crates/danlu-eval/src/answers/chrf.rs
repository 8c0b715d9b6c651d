use std::collections::HashMap;

/// Lengths of character sequences that are compared.
const ORDER: usize = 6;
/// Recall counts this many times as much as precision.
const BETA: f64 = 2.0;

/// chrF2 ([Popović 2015](https://aclanthology.org/W15-3049/)): precision and recall of character sequences of one to six characters, white
/// space left out, averaged over the lengths that both texts have, as sacreBLEU's `sentence_chrf` computes it (there from 0 to 100). It needs
/// no words, so it suits every script.
pub fn chrf(answer: &str, expected: &str) -> f64 {
    Chrf::of(answer, expected).score() / 100.0
}

/// What chrF2 is computed from: of one answer, or added up over many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chrf {
    /// For each length: sequences that both have, those of the answer, and those expected.
    counts: [[u64; 3]; ORDER],
}

impl Chrf {
    /// Of one answer beside the one expected.
    pub fn of(answer: &str, expected: &str) -> Self {
        let chars = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
        let (answer, expected) = (chars(answer), chars(expected));
        let of_length = |n: usize| {
            let sequences = |text: &[char]| (text.len() + 1).saturating_sub(n) as u64;
            let wanted = sequences(&expected);
            // Where nothing is expected, nothing is counted.
            let written = if wanted > 0 { sequences(&answer) } else { 0 };
            [common(&answer, &expected, n) as u64, written, wanted]
        };
        Self { counts: std::array::from_fn(|i| of_length(i + 1)) }
    }

    /// chrF2 from 0 to 100, as sacreBLEU's `corpus_chrf` computes it.
    pub fn score(&self) -> f64 {
        let (mut precision, mut recall, mut lengths) = (0.0, 0.0, 0.0);
        for [same, written, wanted] in self.counts.map(|counts| counts.map(|count| count as f64)) {
            if written > 0.0 && wanted > 0.0 {
                precision += same / written;
                recall += same / wanted;
                lengths += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / lengths, recall / lengths);
        let factor = BETA * BETA;
        100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
    }
}

impl std::iter::Sum for Chrf {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum.counts.as_flattened_mut().iter_mut().zip(one.counts.as_flattened()).for_each(|(sum, one)| *sum += one);
            sum
        })
    }
}

fn common(a: &[char], b: &[char], n: usize) -> usize {
    let mut counts: HashMap<&[char], usize> = HashMap::new();
    b.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
    let mut same = 0;
    for gram in a.windows(n) {
        if let Some(left) = counts.get_mut(gram).filter(|left| **left > 0) {
            *left -= 1;
            same += 1;
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sacrebleu() {
        // Values of sacrebleu 2.5, `sentence_chrf(answer, [expected]).score`.
        let check = |a: &str, b: &str, expected: f64| {
            assert!((100.0 * chrf(a, b) - expected).abs() < 1e-6, "{a:?} {b:?} {}", 100.0 * chrf(a, b))
        };
        check("same text", "same text", 100.0);
        check("", "x", 0.0);
        check("abc", "xyz", 0.0);
        check("the cat sat on the mat", "a cat on a mat", 31.865_368_883_042_795);
        check("在文本中选择单元格", "在文本里选择一个单元格", 25.136_289_405_541_028);
        check("ab", "abcdef", 31.25);
        check("Click OK.", "Click the OK button.", 22.678_751_010_208_444);
    }
}
