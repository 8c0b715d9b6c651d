/// Whether two answers are the same words: 1 or 0. Capitals, punctuation, articles and white space do not count, as in SQuAD's
/// `evaluate-v1.1.py` ([Rajpurkar 2016](https://arxiv.org/abs/1606.05250)).
pub fn exact_match(answer: &str, expected: &str) -> f64 {
    if words(answer) == words(expected) { 1.0 } else { 0.0 }
}

/// The words of an answer as SQuAD's script compares them.
pub(super) fn words(text: &str) -> Vec<String> {
    // Python's `string.punctuation` is that of ASCII. It is taken out, not replaced: "it's" becomes "its".
    let kept: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    articles_out(&kept).split_whitespace().map(str::to_owned).collect()
}

/// `\b(a|an|the)\b` replaced by a space.
fn articles_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // With ASCII punctuation gone, what ends a word is anything that is no letter, digit or mark of any script.
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(begin) = rest.find(word) {
        let end = rest[begin..].find(|c| !word(c)).map_or(rest.len(), |end| begin + end);
        out.push_str(&rest[..begin]);
        out.push_str(if matches!(&rest[begin..end], "a" | "an" | "the") { " " } else { &rest[begin..end] });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_script_of_squad() {
        let check = |a: &str, b: &str, expected: f64| assert_eq!(exact_match(a, b), expected, "{a:?} {b:?}");
        check("The Furnace!", "furnace", 1.0);
        check("an apple,  a day", "apple day", 1.0);
        check("it's", "its", 1.0);
        check("theatre", "atre", 0.0);
        check("", " the ", 1.0);
        check("丹炉", "丹炉", 1.0);
        check("42", "43", 0.0);
    }
}
