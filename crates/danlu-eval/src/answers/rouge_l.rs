/// ROUGE-L ([Lin 2004](https://aclanthology.org/W04-1013/)): the F1 of the longest common subsequence of words, as `rouge_score` computes it
/// without stemming. Words are of ASCII letters and digits; for other scripts use [`super::chrf`].
pub fn rouge_l(answer: &str, expected: &str) -> f64 {
    let (answer, expected) = (words(answer), words(expected));
    let longest = subsequence(&answer, &expected) as f64;
    if longest == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (longest / answer.len() as f64, longest / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The length of the longest common subsequence, one row of the table at a time.
fn subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rouge_score() {
        // Values of rouge_score 0.1.2, `RougeScorer(["rougeL"])`.
        let check =
            |a: &str, b: &str, expected: f64| assert!((rouge_l(a, b) - expected).abs() < 1e-9, "{a:?} {b:?} {}", rouge_l(a, b));
        check("the cat was found under the bed", "the cat was under the bed", 0.923_076_923_076_923);
        check("police kill the gunman", "police killed the gunman", 0.75);
        check("the gunman kill police", "police killed the gunman", 0.5);
        check("Choose Tools - Options.", "choose tools, then options", 0.857_142_857_142_857_1);
        check("", "x", 0.0);
        check("丹炉", "丹炉", 0.0);
    }
}
