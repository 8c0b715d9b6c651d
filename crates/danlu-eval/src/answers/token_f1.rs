use super::common;
use super::exact_match::words;

/// The harmonic mean of precision and recall over the words of an answer, as in SQuAD's `evaluate-v1.1.py`
/// ([Rajpurkar 2016](https://arxiv.org/abs/1606.05250)).
pub fn token_f1(answer: &str, expected: &str) -> f64 {
    let (answer, expected) = (words(answer), words(expected));
    let same = common(&answer, &expected) as f64;
    if same == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (same / answer.len() as f64, same / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_script_of_squad() {
        // Values of evaluate-v1.1.py.
        let check = |a: &str, b: &str, expected: f64| assert!((token_f1(a, b) - expected).abs() < 1e-12, "{a:?} {b:?}");
        check("the cat sat on the mat", "a cat on a mat", 6.0 / 7.0);
        check("one one two", "one three", 0.4);
        check("same", "Same.", 1.0);
        check("", "x", 0.0);
        check("", "", 0.0);
    }
}
