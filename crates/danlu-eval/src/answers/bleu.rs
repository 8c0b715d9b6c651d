//! BLEU of a whole test set.

use std::borrow::Cow;
use std::collections::HashMap;

/// Lengths of word sequences that are compared.
const ORDER: usize = 4;

/// How a text becomes words: sacreBLEU's tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// `13a`, that of the WMT's mteval-v13a.
    Western,
    /// `zh`: each Chinese character is a word, and the rest as in `13a`.
    Chinese,
}

impl Words {
    /// Those that sacreBLEU takes for a language, by its code (ISO 639-1).
    pub fn of_language(code: &str) -> Self {
        if code == "zh" { Self::Chinese } else { Self::Western }
    }
}

/// What BLEU is computed from: of one translation, or added up over many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bleu {
    /// Word sequences that the reference has too, by their length.
    same: [u64; ORDER],
    /// All word sequences.
    all: [u64; ORDER],
    words: u64,
    reference_words: u64,
}

impl Bleu {
    /// Of one translation beside its reference.
    pub fn of(translation: &str, reference: &str, words: Words) -> Self {
        let [translation, reference] = [translation, reference].map(|text| tokenized(text, words));
        let [one, other]: [Vec<&str>; 2] = [&translation, &reference].map(|text| text.split_whitespace().collect());
        let mut found = Bleu { words: one.len() as u64, reference_words: other.len() as u64, ..Bleu::default() };
        for n in 1..=ORDER {
            let mut counts: HashMap<&[&str], u64> = HashMap::new();
            other.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
            for gram in one.windows(n) {
                found.all[n - 1] += 1;
                if let Some(left) = counts.get_mut(gram).filter(|left| **left > 0) {
                    *left -= 1;
                    found.same[n - 1] += 1;
                }
            }
        }
        found
    }

    /// BLEU ([Papineni et al. 2002](https://aclanthology.org/P02-1040/)), from 0 to 100, as sacreBLEU's `corpus_bleu` computes it: precisions of
    /// sequences of one to four words, one without any match halved each time (`smooth_method="exp"`), and the brevity penalty.
    pub fn score(&self) -> f64 {
        if self.same.iter().all(|&same| same == 0) {
            return 0.0;
        }
        let (mut halved, mut logarithms) = (1.0, 0.0);
        for (&same, &all) in self.same.iter().zip(&self.all) {
            if all == 0 {
                // No text is as long as this; sacreBLEU takes such a precision for zero.
                return 0.0;
            }
            let precision = if same == 0 {
                halved *= 2.0;
                1.0 / (halved * all as f64)
            } else {
                same as f64 / all as f64
            };
            logarithms += precision.ln();
        }
        let short = self.words < self.reference_words;
        let penalty = if short { (1.0 - self.reference_words as f64 / self.words as f64).exp() } else { 1.0 };
        100.0 * penalty * (logarithms / ORDER as f64).exp()
    }
}

impl std::iter::Sum for Bleu {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            for n in 0..ORDER {
                sum.same[n] += one.same[n];
                sum.all[n] += one.all[n];
            }
            sum.words += one.words;
            sum.reference_words += one.reference_words;
            sum
        })
    }
}

/// A text with spaces between its words.
fn tokenized(text: &str, words: Words) -> String {
    let text = match words {
        Words::Western => {
            let mut text = Cow::Borrowed(text.trim_end());
            for (from, to) in
                [("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
            {
                if text.contains(from) {
                    text = text.replace(from, to).into();
                }
            }
            format!(" {text} ")
        }
        Words::Chinese => {
            let mut apart = String::with_capacity(2 * text.len());
            for c in text.trim().chars() {
                match is_chinese(c) {
                    true => apart.extend([' ', c, ' ']),
                    false => apart.push(c),
                }
            }
            apart
        }
    };
    let text = around_symbols(&text);
    let text = between(&text, |a, b| !a.is_ascii_digit() && matches!(b, '.' | ','), [false, true, true]);
    let text = between(&text, |a, b| matches!(a, '.' | ',') && !b.is_ascii_digit(), [true, true, false]);
    between(&text, |a, b| a.is_ascii_digit() && b == '-', [false, true, true])
}

/// Spaces around ASCII's symbols but for `,`, `-`, `.` and `'`.
fn around_symbols(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for c in text.chars() {
        match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => out.extend([' ', c, ' ']),
            _ => out.push(c),
        }
    }
    out
}

/// Where two characters follow each other for which `wanted` holds, a space before the first, between them and after the second, as
/// `spaces` says. As in a regular expression of two characters, pairs are taken from the left and do not overlap.
fn between(text: &str, wanted: impl Fn(char, char) -> bool, spaces: [bool; 3]) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut rest = text.chars().peekable();
    while let Some(a) = rest.next() {
        let Some(b) = rest.next_if(|&b| wanted(a, b)) else {
            out.push(a);
            continue;
        };
        let parts = [(spaces[0], Some(a)), (spaces[1], Some(b)), (spaces[2], None)];
        for (space, c) in parts {
            out.extend(space.then_some(' '));
            out.extend(c);
        }
    }
    out
}

/// What sacreBLEU takes for Chinese. The last of its ranges here is meant to be the ideographs beyond the first plane there, but comes to general
/// punctuation and symbols; to give equal scores it is here what it is there.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}' | '\u{ff00}'..='\u{ffef}' | '\u{2e80}'..='\u{2fdf}' | '\u{2ff0}'..='\u{303f}'
        | '\u{31c0}'..='\u{31ef}' | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}' | '\u{3200}'..='\u{33ff}' | '\u{2001}'..='\u{2a6d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(pairs: &[(&str, &str)], words: Words) -> f64 {
        pairs.iter().map(|(translation, reference)| Bleu::of(translation, reference, words)).sum::<Bleu>().score()
    }

    #[track_caller]
    fn words(text: &str, kind: Words, expected: &str) {
        assert_eq!(tokenized(text, kind).split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn words_are_those_of_sacrebleu() {
        words(
            "Click OK, then 3.5% (or 1,000) &amp; \"save\".",
            Words::Western,
            "Click OK , then 3.5 % ( or 1,000 ) & \" save \" .",
        );
        words("a-b 1-2 it's x.y", Words::Western, "a-b 1 - 2 it's x . y");
        words("选择「插入 - 脚注」，LibreOffice 7.4。", Words::Chinese, "选 择 「 插 入 - 脚 注 」 ， LibreOffice 7.4 。");
        words("…a.b", Words::Chinese, "… a . b");
    }

    #[test]
    fn scores_follow_from_their_definition() {
        assert!((score(&[("the cat sat on the mat", "the cat sat on the mat")], Words::Western) - 100.0).abs() < 1e-9);
        assert_eq!(score(&[("x y z w", "a b c d")], Words::Western), 0.0);
        assert_eq!(score(&[("a b", "a b")], Words::Western), 0.0);
        // Five of six words, three of five pairs, two of four and one of three longer ones.
        let one = score(&[("the cat sat on a mat", "the cat sat on the mat")], Words::Western);
        let expected = 100.0 * (5.0 / 6.0 * (3.0 / 5.0) * (2.0 / 4.0) / 3.0f64).powf(0.25);
        assert!((one - expected).abs() < 1e-9, "{one} {expected}");
        // Shorter than the reference: the penalty; no sequence of four: half of one.
        let short = score(&[("the cat sat on", "the cat sat down on it")], Words::Western);
        let expected = 100.0 * (1.0 - 6.0 / 4.0f64).exp() * (2.0 / 3.0 / 2.0 / 2.0f64).powf(0.25);
        assert!((short - expected).abs() < 1e-9, "{short} {expected}");
        // Counts of all translations are added up, and the score is not the mean of scores.
        let both = score(&[("the cat sat on a mat", "the cat sat on the mat"), ("a b", "a b")], Words::Western);
        let expected = 100.0 * (7.0 / 8.0 * (4.0 / 6.0) * (2.0 / 4.0) / 3.0f64).powf(0.25);
        assert!((both - expected).abs() < 1e-9, "{both} {expected}");
    }
}
