//! Letters to be repeated: what tells whether a model does what its examples show, since nothing has to be known for it.

use std::collections::HashSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Questions there are.
const COUNT: usize = 2_000;
/// Letters of a question, at least and at most.
const LETTERS: std::ops::RangeInclusive<usize> = 3..=6;

/// Letters with spaces between them, all different, each answered by itself. The same ones everywhere.
pub fn questions() -> Vec<(String, String)> {
    let mut rng = ChaCha8Rng::seed_from_u64(2020);
    let (mut seen, mut found) = (HashSet::new(), Vec::with_capacity(COUNT));
    while found.len() < COUNT {
        let count = rng.random_range(LETTERS);
        let letters: Vec<String> = (0..count).map(|_| char::from(rng.random_range(b'a'..=b'z')).to_string()).collect();
        let text = letters.join(" ");
        if seen.insert(text.clone()) {
            found.push((text.clone(), text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_different_letters_and_their_own_answers() {
        let all = questions();
        let different: HashSet<&String> = all.iter().map(|(question, _)| question).collect();
        assert_eq!((all.len(), different.len()), (COUNT, COUNT));
        for (question, answer) in &all {
            assert_eq!(question, answer);
            let letters: Vec<&str> = question.split(' ').collect();
            assert!(LETTERS.contains(&letters.len()) && letters.iter().all(|one| one.len() == 1), "{question}");
        }
        assert_eq!(all, questions());
    }
}
