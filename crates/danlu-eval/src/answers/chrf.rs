use std::collections::HashMap;

/// Lengths of character sequences that are compared.
const ORDER: usize = 6;
/// Recall counts this many times as much as precision.
const BETA: f64 = 2.0;

/// chrF2 ([Popović 2015](https://aclanthology.org/W15-3049/)): precision and recall of character sequences of one to six characters, white
/// space left out, averaged over the lengths that both texts have, as sacreBLEU's `sentence_chrf` computes it (there from 0 to 100). It needs
/// no words, so it suits every script.
pub fn chrf(answer: &str, expected: &str) -> f64 {
    let chars = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let (answer, expected) = (chars(answer), chars(expected));
    let (mut precision, mut recall, mut lengths) = (0.0, 0.0, 0.0);
    for n in 1..=ORDER.min(answer.len()).min(expected.len()) {
        let same = common(&answer, &expected, n) as f64;
        precision += same / (answer.len() + 1 - n) as f64;
        recall += same / (expected.len() + 1 - n) as f64;
        lengths += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / lengths, recall / lengths);
    let factor = BETA * BETA;
    (1.0 + factor) * precision * recall / (factor * precision + recall)
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
